"""DeepFool: again and again to the nearest boundary of the linearised model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError, attack
from .base import MinimisationAttack
from .minimum_norm import Search, nearest, start
from .norms import per_image
from .victim import Victim


@dataclass
class _Crossing(Search):
    """``classes`` are the candidates (M, K), the predicted one first; ``moved`` is the sum of steps (M, C, H, W)."""

    classes: Tensor
    moved: Tensor


@attack(
    "deepfool",
    norm="l2",
    norms=("l2", "linf"),
    kind="minimisation",
    access="gradient",
    cost="fast",
    tags=("native", "white-box"),
    reference="Moosavi-Dezfooli et al. 2015, arXiv 1511.04599",
)
class DeepFool(MinimisationAttack):
    """Steps to the nearest linearised boundary until the image is across.

    Moosavi-Dezfooli, Fawzi, Frossard 2015, arXiv 1511.04599. The gradients of all candidate classes come from one
    forward; an image leaves once it is across.

    Args:
        norm: ``l2`` or ``linf``.
        steps: Most steps.
        candidates: Classes to consider, likeliest first, with the predicted one.
        overshoot: How far beyond the boundary to go, as a share of the way.
    """

    def __init__(
        self,
        norm: Literal["l2", "linf"] = "l2",
        steps: int = 50,
        candidates: int = 10,
        overshoot: float = 0.02,
    ) -> None:
        if steps < 1 or candidates < 2:
            raise GauntletError(f"deepfool needs steps >= 1 and candidates >= 2, got {steps} and {candidates}.")
        self.norm, self.steps, self.candidates, self.overshoot = norm, steps, candidates, overshoot

    def closest(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Tensor:
        """Cross, one search for each image."""

        def load(items: Tensor) -> _Crossing:
            fields = start(images, labels, items)
            classes = victim.outputs(fields["clean"]).argsort(dim=1, descending=True)[:, : self.candidates]
            return _Crossing(**fields, classes=classes, moved=torch.zeros_like(fields["clean"]))

        return nearest(victim, images, load, lambda rows: self._step(victim, rows))

    def _step(self, victim: Victim, rows: _Crossing) -> Tensor:
        others, base = rows.classes[:, 1:], rows.classes[:, 0]
        slopes, outputs = victim.slopes(rows.current, others, base)
        gaps = (outputs.gather(1, others) - outputs.gather(1, base[:, None])).abs()
        steepness = torch.linalg.vector_norm(slopes.flatten(2), ord=2 if self.norm == "l2" else 1, dim=2) + 1e-8
        distance, best = (gaps / steepness).min(dim=1)
        every = torch.arange(len(rows), device=best.device)
        slope = slopes[every, best]
        unit = slope * per_image(1 / steepness[every, best], slope) if self.norm == "l2" else slope.sign()
        rows.moved = rows.moved + per_image(distance + 1e-4, slope) * unit
        rows.current = rows.best = (rows.clean + (1 + self.overshoot) * rows.moved).clamp(0, 1)
        return victim.fooled(rows.current, rows.labels) | (rows.taken + 1 >= self.steps)
