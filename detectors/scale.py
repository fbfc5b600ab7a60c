"""SCALE: energy of features scaled by how much of them a few units carry."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .energy import energy
from .numerics import by_rows, compute_dtype, double
from .outputs import Head
from .pruning import ratio, sum_of_survivors


@detector(
    "scale",
    reference="Xu, Lian, Liu, Tao 2023, arXiv 2310.00227",
    tags=("post-hoc", "features"),
    grid={"q": [0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]},
)
def scale(features: Tensor, head: Head, *, q: float = 0.85) -> Tensor:
    """Energy of ``z exp(s1 / s2)``: s1 is the sum of an image's activations, s2 that of the largest 1 - q of them.

    Args:
        features: Shape (N, D), pooled.
        head: The final linear layer.
        q: Share of activations that s2 leaves out, in [0, 1).

    Returns:
        Scores, shape (N,), in the unit of the logits.

    Raises:
        GauntletError: ``q`` is out of range.
    """

    return energy(by_rows(lambda part: head.logits(part, _factor(part, q)), features))


def scaled(features: Tensor, *, q: float = 0.85) -> Tensor:
    """The features (N, D) that :func:`scale` takes the energy of, in float64."""
    return by_rows(lambda part: double(part) * _factor(part, q), features)


def _factor(part: Tensor, q: float) -> Tensor:
    """What multiplies features (N, D), shape (N, 1), in float64."""
    own = compute_dtype(part)
    return double(ratio(own.sum(dim=1), sum_of_survivors(own, q, "scale"))).exp()[:, None]
