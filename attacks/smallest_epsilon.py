"""The smallest budget at which a fixed-budget attack succeeds, image by image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from .base import Attack
from .victim import Victim

ROUNDS = 12


def smallest_epsilons(
    attack: Attack, victim: Victim, images: Tensor, labels: Tensor, rng: PerImageRNG, *, rounds: int = ROUNDS
) -> Tensor:
    """Smallest successful epsilon (N,) by bisection, infinite where the largest one fails.

    The protocol of Schott et al. 2018, arXiv 1805.09190: the search is between 0 and the largest distance that two
    images can have, which ``rounds`` halvings leave known to ``largest / 2 ** rounds`` (to a pixel in L0). For a
    minimum-norm attack it is what it found, without a search.

    Args:
        attack: One that spends a budget or looks for the nearest adversarial.
        victim: The model, entered.
        images: Correctly classified images (N, C, H, W).
        labels: Their labels (N,).
        rng: Their random numbers: each round uses the same, so that only the budget changes.
        rounds: Halvings.
    """
    largest = largest_distance(attack.norm, images)
    first = attack.run(victim, images, labels, [largest], rng=rng)[0]
    if first.smallest is not None:
        return first.smallest.double()
    low = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    high = torch.where(first.success, largest, math.inf).double()
    for _ in range(rounds):
        middle = _middle(low, high, attack.norm)
        open_ = high.isfinite() & (middle > low) & (middle < high)
        # Images at the same epsilon share a run; after a few rounds most epsilons have few images.
        for epsilon in middle[open_].unique().tolist():
            chosen = (open_ & (middle == epsilon)).nonzero().flatten()
            (result,) = attack.run(victim, images[chosen], labels[chosen], [epsilon], rng=rng.select(chosen))
            high[chosen[result.success]] = epsilon
            low[chosen[~result.success]] = epsilon
    return high


def largest_distance(norm: str, images: Tensor) -> float:
    """The largest distance that two images of (N, C, H, W) can have.

    >>> [largest_distance(norm, torch.zeros(1, 3, 4, 4)) for norm in ("linf", "l1", "l0")]
    [1.0, 48.0, 16.0]
    """
    values = images[0].numel()
    return {"linf": 1.0, "l2": math.sqrt(values), "l1": float(values), "l0": float(values // images.shape[1])}[norm]


def _middle(low: Tensor, high: Tensor, norm: str) -> Tensor:
    middle = (low + high) / 2
    return middle.floor() if norm == "l0" else middle
