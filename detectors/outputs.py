"""What one pass of a model over a dataset yields: everything that a detector may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .numerics import broken_logits, broken_rows, compute_dtype, double, like

T = TypeVar("T")

_LOGITS = ("logits", "deflated-logits", "members", "passes")

#: Seed of the projection matrix: part of the definition of a projected feature, so it never changes.
_PROJECTION_SEED = 20_480


class Head(NamedTuple):
    """The final linear layer: ``logits = features @ weight.T + bias``."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)

    def logits(self, features: Tensor, factor: Tensor | None = None) -> Tensor:
        """Logits (N, C) in float64 of ``factor * features``, (N, 1) and (N, D).

        Products are in the precision of the features; the factor multiplies them, not the features.
        """
        products = double(compute_dtype(features) @ like(self.weight, features).T)
        return (products if factor is None else products * factor) + double(self.bias)


@dataclass(eq=False)
class Outputs:
    """A model's outputs on N images, aligned to them.

    Attributes:
        labels: True classes, shape (N,); a negative label means that the image belongs to no class.
        logits: Shape (N, C), or None.
        features: Penultimate activations, shape (N, D), or None.
        named: The model's own outputs by name, each with first dimension N.
        head: The final linear layer, or None where the model has none.
        model: The network in eval mode, or None.
        image_batches: Called without arguments, yields the images in order as float32 batches in [0, 1], shape
            (B, channels, height, width), on the model's device.
        projected: What stands in for ``features`` in detectors whose cost grows with D x D or with all training
            features: the same features projected to fewer dimensions. None means that no projection was needed.
        tap: Maps a batch of images to the model's ``logits``, ``features`` and named outputs, with gradients where
            they are enabled; or None.
        name: Which images these are, for detectors that draw at random.
        layers: Widths of the layers whose ``gram-statistics`` stand side by side.
    """

    labels: Tensor
    logits: Tensor | None = None
    features: Tensor | None = None
    named: dict[str, Tensor] = field(default_factory=dict)
    head: Head | None = None
    model: nn.Module | None = None
    image_batches: Callable[[], Iterable[Tensor]] | None = None
    projected: Tensor | None = None
    tap: Callable[[Tensor], dict[str, Tensor]] | None = None
    name: str = ""
    layers: tuple[int, ...] = ()
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def projected_features(self) -> Tensor | None:
        """The features as projected (N, D'), or as they are where no projection was needed."""
        return self.features if self.projected is None else self.projected

    def get(self, need: str) -> Any:
        """The value of one need (``logits``, ``images``, ``output:NAME``, ...), or None where there is none."""
        if need == "images":
            return self.image_batches
        if need in ("labels", "logits", "features", "head", "model", "tap"):
            return getattr(self, need)
        return self.named.get(need.removeprefix("output:"))

    def restricted_to(self, needs: Sequence[str]) -> Outputs:
        """The same for a detector with these needs: without the head its features are the projected ones.

        So they do not depend on whether some other detector needs whole features. What is made once is made for both.
        """
        if self.projected is None or "head" in needs:
            return self
        view = replace(self, features=self.projected, projected=None)
        view._made = self._made
        return view

    def cached(self, key: Any, make: Callable[[], T]) -> T:
        """What ``make`` returns, made on the first call with ``key``: what several detectors compute from one set."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def broken(self, need: str) -> int:
        """Of how many images the value of a need is NaN or infinite; 0 where there is none. Counted once.

        A logit of minus infinity is fine: it masks a class. Not all of an image may be.
        """
        values = self.get(need)
        count = broken_logits if need in _LOGITS else broken_rows
        return self.cached(("broken", need), lambda: count(values)) if isinstance(values, Tensor) else 0

    def subset(self, positions: Any) -> Outputs:
        """The outputs at ``positions`` (a slice, a mask, or whole numbers), in that order."""
        # On the CPU, as they pick from tensors on several devices; a mask on CUDA cannot pick from one on the CPU.
        chosen = torch.arange(len(self))[positions.cpu() if isinstance(positions, Tensor) else positions]
        batches = self.image_batches

        def pick(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[chosen.to(values.device)]

        return Outputs(
            labels=self.labels[chosen.to(self.labels.device)],
            logits=pick(self.logits),
            features=pick(self.features),
            named={name: values[chosen.to(values.device)] for name, values in self.named.items()},
            head=self.head,
            model=self.model,
            image_batches=None if batches is None else lambda: _pick_images(batches(), chosen),
            projected=pick(self.projected),
            tap=self.tap,
            name=self.name,
            layers=self.layers,
        )


@lru_cache(maxsize=4)
def random_projection(dim: int, feature_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """The fixed matrix, shape (``dim``, ``feature_dim``), that projects wide features: ``features @ matrix``.

    Entries are Gaussian with variance 1 / ``feature_dim``, so that squared lengths are kept in expectation
    (Johnson and Lindenstrauss 1984). Drawn on the CPU: the same matrix on every device.
    """
    generator = torch.Generator().manual_seed(_PROJECTION_SEED)
    return (torch.randn(dim, feature_dim, generator=generator) / feature_dim**0.5).to(device)


def _pick_images(batches: Iterable[Tensor], chosen: Tensor) -> Iterator[Tensor]:
    """Images at the positions ``chosen``: streamed where these ascend, otherwise gathered first."""
    if bool((chosen[1:] > chosen[:-1]).all()):
        yield from _stream(batches, chosen)
        return
    ascending, inverse = chosen.unique(return_inverse=True)
    parts = list(_stream(batches, ascending))
    gathered = torch.cat(parts)
    yield from gathered[inverse.to(gathered.device)].split(max(map(len, parts)))


def _stream(batches: Iterable[Tensor], ascending: Tensor) -> Iterator[Tensor]:
    start = 0
    for batch in batches:
        here = ascending[(ascending >= start) & (ascending < start + len(batch))] - start
        if len(here):
            yield batch[here.to(batch.device)]
        start += len(batch)
