"""The final linear layer applied again to features that a detector has changed."""

from __future__ import annotations

import torch
from torch import Tensor

from .numerics import by_rows, double
from .outputs import Head


def apply_head(features: Tensor, head: Head) -> Tensor:
    """Logits of features (N, D), shape (N, C), in float64."""
    weight, bias = double(head.weight).T, double(head.bias)
    return by_rows(lambda part: torch.addmm(bias, double(part), weight), features)


def head_energy(features: Tensor, head: Head) -> Tensor:
    """Free energy ``-logsumexp(W z + b)`` of features (N, D), shape (N,), in float64."""
    return -apply_head(features, head).logsumexp(dim=1)
