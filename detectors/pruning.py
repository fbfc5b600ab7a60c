"""What the detectors that shape activations share: how many survive, and thresholds over all units."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..registry import GauntletError


def survivors(features: Tensor, share: float, name: str) -> tuple[Tensor, Tensor]:
    """The largest activations of each image that are left when ``share`` of them is pruned: values and positions.

    At least one is left; shape (N, k) with k = D - round(D * share).

    Raises:
        GauntletError: ``share`` is not in [0, 1).
    """
    kept = features.topk(_left(features, share, name), dim=1, sorted=False)
    return kept.values, kept.indices


def sum_of_survivors(features: Tensor, share: float, name: str) -> Tensor:
    """The sum of each image's :func:`survivors`, shape (N,)."""
    count = _left(features, share, name)
    if features.requires_grad or features.device.type != "cpu":
        return survivors(features, share, name)[0].sum(dim=1)
    # On a CPU numpy sorts a row faster than torch finds its largest numbers.
    return torch.from_numpy(np.sort(features.numpy(), axis=1)[:, -count:]).sum(dim=1)


def _left(features: Tensor, share: float, name: str) -> int:
    check_share(share, name)
    width = features.shape[1]
    return max(1, width - round(width * share))


def quantile(values: Tensor, q: float) -> float:
    """The q-quantile of all elements, linearly interpolated (torch's own refuses more than 16 million)."""
    return float(np.quantile(values.detach().cpu().numpy().ravel(), q))


def ratio(total: Tensor, part: Tensor) -> Tensor:
    """``total / part`` for sums of one image's activations (N,); 1 where nothing was active at all."""
    silent = part == 0
    return torch.where(silent, torch.ones_like(total), total / part.masked_fill(silent, 1.0))


def check_share(share: float, name: str) -> None:
    """Raise GauntletError unless ``share`` is in [0, 1).

    Raises:
        GauntletError: It is none.
    """
    if not 0 <= share < 1:
        raise GauntletError(f"Detector {name!r} needs a share of at least 0 and below 1, got {share}.")
