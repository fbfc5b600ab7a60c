"""A model as somebody has it in memory: made to take images in [0, 1] and to give logits, and given back unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import GauntletError
from .standard_form import Kind

Normalisation = Callable[[Tensor], Tensor]

#: Names under which models return their logits beside other outputs.
_NAMES = ("logits", "out", "output", "outputs", "pred", "prediction", "y")


class OwnModel(nn.Module):
    """A model in standard form: images (N, C, H, W) in [0, 1] to logits (N, K) in float32.

    Args:
        model: A module or any callable.
        normalize: What is done to the images first.
        kind: What the model gives; probabilities are turned into their logarithms.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        normalize: Normalisation | None = None,
        kind: Kind = "logits",
    ) -> None:
        super().__init__()
        self.model = unwrapped(model)
        self.normalize = normalize
        self.kind = kind
        # Set where the model is seen to need it: it calls ``view``, or writes into its images.
        self.contiguous = self.clones = False
        self.dtype = torch.float32  # of what the model itself gave last
        self._classes: Tensor | None = None

    def choose_classes(self, positions: Sequence[int]) -> None:
        """Give only the logits at these positions, in this order."""
        self._classes = torch.tensor(positions)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        given = self.raw(images)
        self.dtype = given.dtype if isinstance(given, Tensor) else torch.float32
        logits = as_logits(given, len(images))
        if self.kind == "probabilities":
            logits = logits.clamp_min(torch.finfo(logits.dtype).tiny).log()
        return logits if self._classes is None else logits[:, self._classes.to(logits.device)]

    def raw(self, images: Tensor) -> Any:
        """What the model itself returns."""
        if self.normalize is not None:
            images = self.normalize(images)
        elif self.clones:
            images = images.clone()
        return self.model(images.contiguous() if self.contiguous else images)

    def to(self, *arguments: Any, **options: Any) -> OwnModel:
        """Moved, without a change of layout where the model cannot work in another."""
        if self.contiguous:
            options.pop("memory_format", None)
        return super().to(*arguments, **options) if arguments or options else self


def unwrapped(model: Callable[..., Any]) -> Callable[..., Any]:
    """What ``torch.compile`` was given: hooks on parts of a compiled model are not called."""
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model


def as_logits(outputs: Any, count: int) -> Tensor:
    """Logits (N, K) in float32 from whatever a model returned for N images.

    A tensor, or the first that is found: under a usual name of a mapping or of an object, else in order. ``(N, K, 1,
    1)`` is flattened; one logit an image becomes two, that of the class 0 being 0.

    Raises:
        GauntletError: There is no such tensor.

    >>> as_logits({"loss": None, "logits": torch.tensor([[[1.0], [2.0]]])}, 1).tolist()
    [[1.0, 2.0]]
    """
    found = _tensor(outputs)
    if found is None:
        raise GauntletError(f"The model must return logits (N, classes), got {_described(outputs)}.")
    if found.ndim == 1 and count == 1 and len(found) > 1:  # squeezed
        found = found[None]
    if found.ndim > 2 and found[0].numel() == found.shape[1]:
        found = found.flatten(1)
    if found.ndim == 1 and len(found) == count:
        found = found[:, None]
    if found.ndim != 2 or len(found) != count:
        raise GauntletError(
            f"The model must return logits of shape ({count}, classes) for {count} images, got {tuple(found.shape)}."
        )
    found = found.float()
    return torch.cat([torch.zeros_like(found), found], 1) if found.shape[1] == 1 else found


def _tensor(outputs: Any) -> Tensor | None:
    if isinstance(outputs, Tensor):
        return outputs
    if hasattr(outputs, "__array__"):
        return torch.as_tensor(outputs)
    if isinstance(outputs, Mapping) or hasattr(outputs, "logits"):
        known = outputs if isinstance(outputs, Mapping) else {"logits": outputs.logits}
        named = (known[name] for name in _NAMES if known.get(name) is not None)
        return next((part for value in (*named, *known.values()) if (part := _tensor(value)) is not None), None)
    if isinstance(outputs, (tuple, list)):
        return next((part for value in outputs if (part := _tensor(value)) is not None), None)
    return None


def _described(outputs: Any) -> str:
    if isinstance(outputs, Mapping):
        return f"a {type(outputs).__name__} with {', '.join(map(str, outputs)) or 'nothing in it'}"
    return f"a {type(outputs).__name__}"


@contextmanager
def borrowed(*modules: nn.Module) -> Iterator[None]:
    """Everything about modules that a run may change, put back at the end: weights' places, modes, hooks, gradients."""
    parts = [part for module in modules for part in module.modules()]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    modes = [(part, part.training) for part in parts]
    places = [(one, one.data, one.requires_grad, one.grad) for one in parameters]
    buffers = [(part, dict(part._buffers)) for part in parts]
    hooks = [(part, name, dict(getattr(part, name))) for part in parts for name in _HOOKS if getattr(part, name)]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for one, data, requires_grad, gradient in places:
            one.data = data
            one.requires_grad_(requires_grad) if one.is_leaf else None
            one.grad = gradient
        for part, known in buffers:
            part._buffers.update(known)
        noted = {(id(part), name): known for part, name, known in hooks}
        for part in parts:
            for name in _HOOKS:
                _restore(getattr(part, name), noted.get((id(part), name), {}))


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _restore(hooks: dict[int, Any], known: dict[int, Any]) -> None:
    for number in set(hooks) - set(known):
        del hooks[number]
