"""Maximum softmax probability."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .numerics import double
from .temperature import check_temperature


@detector(
    "msp",
    reference="Hendrycks, Gimpel 2016, arXiv 1610.02136",
    tags=("post-hoc", "logits"),
)
def msp(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """One minus the largest softmax probability, ``1 - max_c softmax(l / T)_c``.

    It is summed from the *other* probabilities in float64, so that confident images, whose largest probability
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
    scaled = double(logits) / temperature
    top = scaled.max(dim=1, keepdim=True)
    others = (scaled - top.values).exp().scatter(1, top.indices, 0.0).sum(dim=1)
    return others / (1.0 + others)
