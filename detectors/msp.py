"""Maximum softmax probability."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .numerics import by_rows, check_temperature, compute_dtype, double
from .probabilities import below_top


@detector(
    "msp",
    reference="Hendrycks, Gimpel 2016, arXiv 1610.02136",
    tags=("post-hoc", "logits"),
)
def msp(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """One minus the largest softmax probability, ``1 - max_c softmax(l / T)_c``.

    >>> import torch
    >>> msp(torch.tensor([[0.0, 0.0], [50.0, 0.0]])).tolist()[1] > 0  # where 1 - 1 / (1 + exp(-50)) is 0
    True

    It is summed from the *other* probabilities, so that confident images, whose largest probability
    rounds to 1, still have different scores, and so do all images at T = 1000, where it is near 1 / C.

    Args:
        logits: Shape (N, C).
        temperature: T > 0.

    Returns:
        Scores in [0, 1 - 1/C], shape (N,).

    Raises:
        GauntletError: ``temperature`` is not above 0.
    """
    check_temperature(temperature, "msp")
    return by_rows(lambda part: _msp(part, temperature), logits)


def _msp(logits: Tensor, temperature: float) -> Tensor:
    # A high temperature brings all classes so near to each other that single precision could not tell images apart.
    _, below = below_top(logits, compute_dtype if temperature == 1 else double)
    marks = below.sign()  # -1, and 0 for the largest: the sum leaves that out, and counts what ties with it
    tied = len(below) - 1 + marks.sum(dim=0)
    weights = (below if temperature == 1 else below / temperature).exp()
    return double(tied - (weights * marks).sum(dim=0)) / double(weights.sum(dim=0))
