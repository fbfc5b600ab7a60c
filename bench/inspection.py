"""A first look at a model in memory: what it gives, whether its gradients are there, and what is odd about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..datasets import ImageSet
from ..models.layers import Normalize, eval_mode
from ..models.normalisation import USUAL, fitting, in_words
from ..models.own import OwnModel, as_logits
from ..models.standard_form import kind_of
from ..registry import GauntletError, nearest

_LOOKED_AT = 16
#: Share of right answers by which another normalisation must be better.
_FAR_BETTER = 0.15
#: Seconds, or share of the test images, that looking for a better normalisation may take.
_SECONDS, _SHARE = 0.25, 0.04


class Inspection:
    """What is seen of a model on the first test images.

    Args:
        module: The model; what it needs is set on it.
        label: Its name in messages.
        images: Test images with labels.
        classes: Names of the data's classes, which the model must have as many logits as.
        mapping: What ``classes=`` says: for each class of the data the position or name of its logit.

    Attributes:
        notes: What a user should know, one sentence each.
        gradients: Whether gradients reach the images.

    Raises:
        GauntletError: The model does not take the images, gives NaN, or has other classes.
    """

    def __init__(
        self, module: OwnModel, label: str, images: ImageSet, mapping: Any = None, names: Sequence[str] = ()
    ) -> None:
        self._module, self._label, self._images = module, label, images
        self.notes: list[str] = []
        inner = module.model
        if isinstance(inner, nn.Module) and inner.training:
            self.notes.append(f"{label} was in train mode: it is put in eval mode for the run, and back afterwards.")
        with eval_mode(module):
            first = images.subset(range(min(_LOOKED_AT, len(images)))).images.to(_device(module))
            raw = self._first_outputs(first)
            self._look_at(raw, first)
            self._match_classes(raw, mapping, names)
            self.gradients = self._has_gradients(first[:1])

    def _first_outputs(self, images: Tensor) -> Tensor:
        module = self._module
        lent = images.clone()
        try:
            with torch.no_grad():
                self._given = module.raw(lent)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            size = "x".join(map(str, images.shape[1:]))
            said = str(error).strip().partition("\n")[0].rstrip(".")
            raise GauntletError(f"Model {self._label!r} does not take {size} images: {said}.") from error
        module.clones = lent._version > 0
        module.contiguous = not self._takes_channels_last(images)
        return as_logits(self._given, len(images))

    def _takes_channels_last(self, images: Tensor) -> bool:
        try:
            with torch.no_grad():
                self._module.raw(images.to(memory_format=torch.channels_last).clone())
        except RuntimeError as error:
            if "view" in str(error):
                return False
            raise
        return True

    def _look_at(self, raw: Tensor, images: Tensor) -> None:
        broken = int(raw.isnan().any(1).sum())
        if broken:
            raise GauntletError(f"Model {self._label!r} gives NaN for {broken} of the first {len(raw)} images.")
        given = self._given
        if isinstance(given, Tensor) and given.reshape(len(images), -1).shape[1] == 1:
            self.notes.append(f"{self._label} gives one logit an image: it is taken for two classes, 1 where positive.")
        kind = kind_of(raw)
        if kind == "probabilities":
            self._module.kind = kind
            self.notes.append(
                f"{self._label} gives probabilities: their logarithms are taken as logits, and detectors that read the "
                "level of logits are left out. Let it return what comes before its softmax for these."
            )
        elif kind != "logits":
            self.notes.append(f"{self._label} gives {kind} in the place of logits.")

    def _match_classes(self, raw: Tensor, mapping: Any, names: Sequence[str]) -> None:
        known, wanted = raw.shape[1], self._images.classes
        if mapping is not None:
            positions = positions_of(mapping, wanted, known, names)
            self._module.choose_classes(positions)
        elif known != len(wanted):
            raise GauntletError(
                f"Model {self._label!r} gives {known} logits, and the data has {len(wanted)} classes: say with "
                "classes=[...] which logit (by position or name) belongs to each class."
            )

    def _has_gradients(self, image: Tensor) -> bool:
        with torch.inference_mode(False), torch.enable_grad():
            image = image.clone().requires_grad_()
            try:
                logits = self._module(image)
                return logits.requires_grad and (
                    torch.autograd.grad(logits.sum(), image, allow_unused=True)[0] is not None
                )
            except RuntimeError:
                return False

    def look_for_normalisation(self) -> None:
        """Note it where the model is far better under another usual normalisation."""
        started, images = time.perf_counter(), self._images
        known = (images.labels >= 0).nonzero().flatten()
        # Of images in the order of their classes, some of each.
        some = images.subset(known[torch.linspace(0, len(known) - 1, min(64, len(known))).long()])
        if len(some) < _LOOKED_AT or self._module.normalize is not None:
            return
        with eval_mode(self._module), torch.no_grad():
            right = self._accuracy(some, None)
            best, name, spent = right, "", len(some)
            for one in fitting(images.shape[0]) if right < 1 - _FAR_BETTER else ():
                if time.perf_counter() - started > _SECONDS and spent > _SHARE * len(images):
                    break
                accuracy, spent = self._accuracy(some, Normalize(*USUAL[one])), spent + len(some)
                if accuracy > best:
                    best, name = accuracy, one
        if best - right > max(_FAR_BETTER, 3 * (0.5 / len(some)) ** 0.5):
            self.notes.append(
                f"{self._label} classifies {right:.0%} of {len(some)} images as given, {best:.0%} under "
                f"{in_words(name)}: did you mean normalize={name!r}?"
            )

    def _accuracy(self, some: ImageSet, normalize: Any) -> float:
        module, device = self._module, _device(self._module)
        module.normalize = None if normalize is None else normalize.to(device)
        try:
            return float((module(some.images.to(device)).argmax(1).cpu() == some.labels).float().mean())
        finally:
            module.normalize = None


def positions_of(mapping: Any, wanted: Sequence[str], known: int, names: Sequence[str]) -> list[int]:
    """For each class of the data the position of its logit, as ``classes=`` says it.

    Args:
        mapping: A list with an entry for each class of the data, or a mapping from (some of) its names; each entry is
            a position, or one of the model's class ``names``.
        wanted: Names of the data's classes.
        known: How many logits the model gives.
        names: Names of the model's classes, if it has any.

    Raises:
        GauntletError: A class is not said, or an entry is no position and no name.
    """
    said = dict(mapping) if isinstance(mapping, Mapping) else dict(zip(wanted, _listed(mapping), strict=False))
    if not isinstance(mapping, Mapping) and len(_listed(mapping)) != len(wanted):
        raise GauntletError(
            f"classes must have one entry for each of the {len(wanted)} classes, got {len(_listed(mapping))}."
        )
    found = []
    for position, name in enumerate(wanted):
        entry = said.get(name, said.get(position))
        if entry is None:
            raise GauntletError(f"classes does not say which logit belongs to the class {name!r}.")
        found.append(_position(entry, known, names))
    return found


def _position(entry: Any, known: int, names: Sequence[str]) -> int:
    if isinstance(entry, str):
        matching = [number for number, name in enumerate(names) if entry in (name, *name.split(", "))]
        if not matching:
            hint = nearest(entry, names) if names else "the model's classes have no names: give positions."
            raise GauntletError(f"classes: the model has no class {entry!r}; {hint}")
        return matching[0]
    if not 0 <= int(entry) < known:
        raise GauntletError(f"classes: there is no logit {entry}; the model gives {known}.")
    return int(entry)


def _listed(value: Any) -> list[Any]:
    return value.tolist() if hasattr(value, "tolist") else list(value)


def class_names(model: Any) -> list[str]:
    """Names of a model's classes, where its library keeps them on it (Hugging Face's ``config.id2label``)."""
    config = getattr(model, "config", None)
    known = getattr(config, "id2label", None) or getattr(model, "class_names", None) or ()
    return [str(known[number]) for number in sorted(known)] if isinstance(known, dict) else [*map(str, known)]


def _device(module: nn.Module) -> torch.device:
    return next((one.device for one in _tensors(module)), torch.device("cpu"))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
