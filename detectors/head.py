"""The final linear layer applied again to features that a detector has changed."""

from __future__ import annotations

from torch import Tensor

from .numerics import beside, double, working
from .outputs import Head
from .probabilities import log_sum_exp


def apply_head(features: Tensor, head: Head, factor: Tensor | float = 1.0) -> Tensor:
    """Logits of ``factor * features``, (N, 1) and (N, D): products in the precision of the features, then float64."""
    products = working(features) @ beside(head.weight, features).T
    return double(products) * factor + double(head.bias)


def head_energy(features: Tensor, head: Head, factor: Tensor | float = 1.0) -> Tensor:
    """Free energy ``-logsumexp(factor W z + b)`` of features (N, D), shape (N,), in float64."""
    return -log_sum_exp(apply_head(features, head, factor))
