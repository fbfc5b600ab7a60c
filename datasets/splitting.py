"""Fixed random choices of images. They use numpy's ``RandomState``, whose streams are frozen for all time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def stratified(labels: Tensor, count: int, *, seed: int = 0) -> Tensor:
    """Choose ``count`` images with the class shares of the whole (largest remainder).

    Args:
        labels: (N,) integers.
        count: How many to choose, from 0 to N.
        seed: Of the choice.

    >>> stratified(torch.tensor([0, 0, 0, 0, 1, 1]), 3).sum().item()
    3

    Returns:
        (N,) bool: which were chosen. Nothing but the labels, the count and the seed decides it.
    """
    values = labels.cpu().numpy()
    rng = np.random.RandomState(seed)
    classes, sizes = np.unique(values, return_counts=True)
    quotas = count * sizes / max(len(values), 1)
    takes = np.floor(quotas).astype(int)
    by_remainder = np.argsort(takes - quotas, kind="stable")
    takes[by_remainder[: count - takes.sum()]] += 1
    chosen = np.zeros(len(values), dtype=bool)
    for label, take in zip(classes, takes, strict=True):
        chosen[rng.permutation(np.flatnonzero(values == label))[:take]] = True
    return torch.from_numpy(chosen)


def fixed_subset(total: int, limit: int, *, seed: int = 0) -> Tensor:
    """Positions, in ascending order, of ``limit`` of ``total`` images; a smaller limit chooses a part of a larger.

    >>> fixed_subset(20, 5).tolist(), fixed_subset(20, 3).tolist()
    ([1, 8, 10, 18, 19], [1, 18, 19])
    """
    return torch.from_numpy(np.sort(np.random.RandomState(seed).permutation(total)[:limit]))
