"""TR: trust regions towards the class whose linearised boundary is nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image
from .steps import steepest_direction
from .victim import Victim

_DUAL = {"l2": 2, "linf": 1}
_RADII = {"l2": (0.0005, 0.05), "linf": (0.0001, 0.01)}  # the smallest and the largest trust region


@dataclass
class TRState(MinimumNormSearch):
    """``pair`` is label and target (M, 2), ``radius`` that of the trust region (M,)."""

    pair: Tensor
    radius: Tensor


@native("tr", "l2", "linf", reference="Yao, Gholami, Xu, Keutzer, Mahoney 2018, arXiv 1812.06371", kind="minimum-norm")
class TrustRegion(IterativeMinimumNormAttack):
    """Small steps along the gradient towards one target, each as long as the model can be trusted to be linear.

    Yao, Gholami, Xu, Keutzer, Mahoney 2018, arXiv 1812.06371, as in adversarial-library. The target is the class of the
    nearest linearised boundary. A step that changes the logit of the label by more than 0.9 of its length makes the
    region 1.2 times as large, by less than 0.5 as much smaller.

    Args:
        norm: ``l2`` or ``linf``.
        steps: Most steps.
        candidates: Classes that are considered, likeliest first.
        radius: Of the first trust region.
        adaptive: Whether it changes.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self,
        norm: Literal["l2", "linf"] = "l2",
        steps: int = 1000,
        candidates: int = 9,
        radius: float = 0.001,
        adaptive: bool = True,
    ) -> None:
        if min(steps, candidates) < 1 or not radius > 0:
            raise GauntletError(
                f"tr needs steps and candidates >= 1 and radius > 0, got {steps}, {candidates} and {radius}."
            )
        self.norm, self.steps, self.candidates = norm, steps, candidates
        self.radius, self.adaptive = radius, adaptive

    def start(self, victim: Victim, fields: dict[str, Any]) -> TRState:
        """At the originals, with the class of the nearest linearised boundary as target."""
        clean, labels = fields["clean"], fields["labels"]
        wrong = victim.outputs(clean).scatter(1, labels[:, None], -torch.inf)
        others = wrong.topk(min(self.candidates, wrong.shape[1] - 1), dim=1).indices
        slopes, outputs = victim.logit_difference_gradients(clean, others, labels)
        gaps = outputs.gather(1, labels[:, None]) - outputs.gather(1, others)
        steepness = torch.linalg.vector_norm(slopes.flatten(2), ord=_DUAL[self.norm], dim=2).clamp_min(1e-12)
        nearest = (gaps / steepness).clamp_min(0).argmin(dim=1, keepdim=True)
        pair = torch.cat([labels[:, None], others.gather(1, nearest)], dim=1)
        return TRState(**fields, pair=pair, radius=torch.full_like(fields["best_size"], self.radius))

    def step(self, victim: Victim, state: TRState, rng: PerImageRNG) -> Tensor:
        """Towards the target, to the boundary or to the edge of the trust region."""
        slope, before = victim.gradient(state.current, state.pair, _gap)
        steepness = torch.linalg.vector_norm(slope.flatten(1), ord=_DUAL[self.norm], dim=1).clamp_min(1e-6)
        length = torch.minimum(-_gap(before, state.pair) / steepness, state.radius)
        move = per_image((length + 1e-4) * 1.02, slope) * steepest_direction(slope, self.norm)
        state.current = (state.current + move).clamp(0, 1)
        outputs = victim.outputs(state.current)
        if self.adaptive:
            fall = (before - outputs).gather(1, state.labels[:, None]).squeeze(1) / length
            factor = torch.where(fall > 0.9, 1.2, torch.where(fall < 0.5, 1 / 1.2, 1.0))
            state.radius = (length * factor).clamp(*_RADII[self.norm])
        fooled = victim.is_fooled(outputs, state.labels)
        over = state.keep_nearest(fooled, self.norm, outputs)
        return over | fooled | (state.steps_done + 1 >= self.steps)


def _gap(outputs: Tensor, pair: Tensor) -> Tensor:
    """Logit of the target minus the label's (N,), for pairs (label, target) (N, 2)."""
    logits = outputs.gather(1, pair)
    return logits[:, 1] - logits[:, 0]
