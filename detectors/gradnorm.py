"""GradNorm in closed form."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .numerics import by_rows, check_temperature, double
from .outputs import Head


@detector(
    "gradnorm",
    reference="Huang, Geng, Li 2021, arXiv 2110.00218",
    tags=("post-hoc", "features"),
)
def gradnorm(features: Tensor, head: Head, *, temperature: float = 1.0) -> Tensor:
    """Negative L1 norm of the gradient of KL(uniform || softmax(l / T)) in the last weight.

    That gradient is the outer product of ``(p - 1/C) / T`` and z, so that its norm needs no backward pass:
    ``-|z|_1 |p - 1/C|_1 / T``.

    Args:
        features: Shape (N, D).
        head: The final linear layer.
        temperature: T > 0.

    Returns:
        Scores of at most 0, shape (N,).

    Raises:
        GauntletError: ``temperature`` is not above 0.
    """
    check_temperature(temperature, "gradnorm")
    p = (head.logits(features) / temperature).softmax(dim=1)
    lengths = by_rows(lambda part: double(part).abs().sum(dim=1), features)
    return -lengths * (p - 1 / p.shape[1]).abs().sum(dim=1) / temperature
