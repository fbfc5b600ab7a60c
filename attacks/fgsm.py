"""FGSM: one step along the sign of the gradient, or along the gradient itself in L2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from .base import Attack, AttackResult, verified
from .native import native
from .norms import per_image
from .steps import ascend, random_offset
from .victim import Victim


@native("fgsm", "linf", "l2", reference="Goodfellow et al. 2014, arXiv 1412.6572", loss="any", tags=("single-step",))
class FGSM(Attack):
    """Fast gradient (sign) method: a single step of size epsilon.

    Goodfellow, Shlens, Szegedy 2014, arXiv 1412.6572. Without a random start the gradient is taken once for all
    epsilons.

    Args:
        norm: ``linf`` steps along the sign of the gradient, ``l2`` along the gradient.
        random_start: Start from a point drawn uniformly in the ball.
    """

    def __init__(self, norm: Literal["linf", "l2"] = "linf", random_start: bool = False) -> None:
        self.norm = norm
        self.random_start = random_start

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """One gradient for each start, one step for each epsilon."""
        unit = random_offset(self.norm, rng, images.shape[1:]) if self.random_start else None
        gradient = None
        for epsilon in epsilons:
            radius = torch.full((len(images),), epsilon, dtype=images.dtype, device=images.device)
            start = images if unit is None else (images + per_image(radius, images) * unit).clamp_(0, 1)
            if gradient is None or self.random_start:
                gradient, _ = victim.gradient(start, labels)
            adversarial = ascend(start, images, gradient, self.norm, stepsize=radius, radius=radius)
            result = verified(victim, images, labels, adversarial, self.norm, epsilon)
            # As if run alone, although the epsilons share the gradient.
            yield replace(result, forwards=2 * len(images), backwards=len(images))


@native("fgm-l2", "l2", reference="Goodfellow et al. 2014, arXiv 1412.6572", loss="any", tags=("single-step",))
def fgm_l2(random_start: bool = False) -> FGSM:
    """Fast gradient method: a single step of L2 size epsilon along the gradient."""
    return FGSM("l2", random_start)
