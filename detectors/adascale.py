"""AdaSCALE: SCALE with a share of its own for each image, by how much a small step shifts its features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .energy import energy
from .numerics import compute_dtype, double
from .outputs import Head, Outputs
from .pruning import ratio


@detector(
    "adascale",
    needs=("images", "tap", "features", "head"),
    reference="Regmi 2025, arXiv 2503.08023",
    tags=("post-hoc", "gradient"),
    differentiable=False,
    grid={"high": [0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99]},
)
class AdaScale(Detector):
    """``scale`` whose share q falls from ``high`` to ``low`` as the features shift more than those of other images.

    The values of the image (pixel and channel) on which the largest logit depends least move by half a standard
    deviation of their channel up its gradient, which takes the features z to z'. An image's shift is the sum of
    ``relu(z')`` over its largest features plus ``weight`` times that of ``|z - z'|`` over its very largest; the share
    of validation images that shift no more says where q is. With ``r = s1 / s2`` of ``relu(z)`` as in ``scale``,
    variant a is the energy of the features times exp(r), variant l that of the logits times r^2.

    Following the code in OpenOOD, whose ``k1`` and ``k2`` are exchanged in the paper, as its author says. There, images
    are normalised by their dataset's deviations; here, those of the validation images count.

    Args:
        variant: ``a`` scales activations, ``l`` logits.
        low: q of an image that shifts more than all validation images, in [0, 1).
        high: q of one that shifts less, in [low, 1).
        moved: Share of the image's values that move, in (0, 1]; at least one does.
        active: Share of the features whose ``relu(z')`` counts, in (0, 1]; at least one does.
        shifted: Share of them whose ``|z - z'|`` counts, likewise.
        weight: Of the latter.

    Raises:
        GauntletError: A parameter is out of range.
    """

    needs_val = True

    def __init__(
        self,
        variant: Literal["a", "l"] = "a",
        low: float = 0.6,
        high: float = 0.85,
        moved: float = 0.05,
        active: float = 0.05,
        shifted: float = 0.01,
        weight: float = 10.0,
    ) -> None:
        if not 0 <= low <= high < 1:
            raise GauntletError(f"Detector 'adascale' needs 0 <= low <= high < 1, got {low:g} and {high:g}.")
        if not (min(moved, active, shifted) > 0 and max(moved, active, shifted) <= 1):
            raise GauntletError(
                "Detector 'adascale' needs moved, active and shifted above 0 and at most 1, got "
                f"{moved:g}, {active:g} and {shifted:g}."
            )
        self.variant, self.low, self.high = variant, low, high
        self.moved, self.active, self.shifted, self.weight = moved, active, shifted, weight
        self._step: Tensor | None = None  # (channels, 1, 1)
        self._shifts: Tensor | None = None  # of validation images, rising

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Measure the deviation of each channel of validation images, and how much the features of each image shift.

        Raises:
            GauntletError: There are none.
        """
        held_out = self.validation(val)
        if not len(held_out):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted to an empty validation set.")
        self._step = 0.5 * channel_deviations(self.pull(held_out)[0]())
        self._shifts = torch.cat([shift for _, shift in self._moved(held_out)]).sort().values

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), float64, in the unit of the logits."""
        shifts, head = self.fitted(self._shifts), self.pull(outputs)[3]
        found = [shifts[:0]]
        for features, shift in self._moved(outputs):
            below = torch.searchsorted(shifts, shift, right=True) / len(shifts)
            found.append(self._energy(features, self.low + (1 - below) * (self.high - self.low), head))
        return torch.cat(found)

    def _energy(self, features: Tensor, share: Tensor, head: Head) -> Tensor:
        width = features.shape[1]
        active = double(features.relu())
        left = (width - (width * share).round()).clamp(min=1)
        ordered = active.sort(dim=1, descending=True).values
        kept = ordered * (torch.arange(width, device=ordered.device) < left[:, None])
        part = ratio(active.sum(dim=1), kept.sum(dim=1))[:, None]
        return energy(
            head.logits(features, part.exp()) if self.variant == "a" else head.logits(features) * part.square()
        )

    def _moved(self, outputs: Outputs) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (B, D) and their shift (B,) in float64, batch by batch."""
        step = self.fitted(self._step)
        batches, tap, _, _ = self.pull(outputs)
        for images in batches():
            gradient, features = _gradient_of_largest_logit(images, tap)
            least = gradient.abs().flatten(1).topk(_share(gradient[0].numel(), self.moved), largest=False).indices
            chosen = torch.zeros_like(gradient.flatten(1)).scatter_(1, least, 1.0).view_as(gradient)
            with torch.no_grad():
                there = compute_dtype(tap(images.detach() + step.to(images) * chosen * gradient.sign())["features"])
            order = features.argsort(dim=1, descending=True, stable=True)
            few, very_few = (order[:, : _share(features.shape[1], part)] for part in (self.active, self.shifted))
            high = double(there.relu()).gather(1, few).sum(dim=1)
            yield features, high + self.weight * double((features - there).abs()).gather(1, very_few).sum(dim=1)


def channel_deviations(batches: Any) -> Tensor:
    """Standard deviation (channels, 1, 1) in float64 of each channel of batches of images (B, channels, H, W)."""
    sums = [
        (double(part).sum(dim=(0, 2, 3)), double(part).square().sum(dim=(0, 2, 3)), part[:, 0].numel())
        for part in batches
    ]
    total, squares, count = (sum(column) for column in zip(*sums, strict=True))
    return (squares / count - (total / count).square()).clamp(min=0).sqrt()[:, None, None]


def _gradient_of_largest_logit(images: Tensor, tap: Any) -> tuple[Tensor, Tensor]:
    """Gradient (B, channels, H, W) of each image's largest logit, and its features (B, D)."""
    with torch.inference_mode(False), torch.enable_grad():
        pixels = images.clone().detach().requires_grad_()
        seen = tap(pixels)
        (gradient,) = torch.autograd.grad(seen["logits"].amax(dim=1).sum(), pixels)
    return gradient, compute_dtype(seen["features"].detach())


def _share(count: int, share: float) -> int:
    return max(1, int(count * share))
