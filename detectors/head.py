"""The final linear layer applied again to features that a detector has changed."""

from __future__ import annotations

from torch import Tensor

from .numerics import compute_dtype, double, like
from .outputs import Head


def apply_head(features: Tensor, head: Head, factor: Tensor | None = None) -> Tensor:
    """Logits of ``factor * features``, (N, 1) and (N, D): products in the precision of the features, then float64."""
    products = double(compute_dtype(features) @ like(head.weight, features).T)
    return (products if factor is None else products * factor) + double(head.bias)
