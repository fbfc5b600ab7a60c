"""The final linear layer applied again to features that a detector has changed."""

from __future__ import annotations

import torch
from torch import Tensor

from .numerics import beside, double, working
from .outputs import Head
from .probabilities import log_sum_exp


def apply_head(features: Tensor, head: Head) -> Tensor:
    """Logits of features (N, D), shape (N, C), in float64, with products in the precision of the features."""
    weight, bias = beside(head.weight, features).T, beside(head.bias, features)
    return double(torch.addmm(bias, working(features), weight))


def head_energy(features: Tensor, head: Head) -> Tensor:
    """Free energy ``-logsumexp(W z + b)`` of features (N, D), shape (N,), in float64."""
    return -log_sum_exp(apply_head(features, head))
