"""The gradient for a label that says every class at once, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import detector
from .numerics import by_rows, double
from .outputs import Head


@detector(
    "grad-uncertainty",
    reference="Lee, AlRegib 2020, arXiv 2008.08030",
    tags=("post-hoc", "features"),
)
def grad_uncertainty(features: Tensor, head: Head) -> Tensor:
    """Negative squared L2 norm of the gradient of ``-sum_c log p_c`` in the last layer's weight and bias.

    In the logits that gradient is ``C p - 1``, which is longest where the network is sure. In weight and bias it is
    the outer product with z and with 1, so that no backward pass is needed: ``-|C p - 1|^2 (|z|^2 + 1)``. The paper
    trains a classifier on such norms of all layers, with OOD images; this is the last layer's sum, without training.

    Args:
        features: Shape (N, D).
        head: The final linear layer, with C classes.

    Returns:
        Scores of at most 0, shape (N,), float64.
    """
    p = head.logits(features).softmax(dim=1)
    slopes = (p * p.shape[1] - 1).square().sum(dim=1)
    return -slopes * (by_rows(lambda part: torch.linalg.vector_norm(double(part), dim=1).square(), features) + 1)
