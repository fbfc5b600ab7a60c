"""Monte-Carlo dropout."""

from __future__ import annotations

from torch import Tensor

from ..registry import GauntletError, detector
from .numerics import double


@detector(
    "mc-dropout",
    reference="Gal, Ghahramani 2015, arXiv 1506.02142",
    tags=("post-hoc", "passes"),
)
def mc_dropout(passes: Tensor, *, n: int = 30) -> Tensor:
    """One minus the largest probability, where probabilities are averaged over passes with dropout switched on.

    Args:
        passes: Logits of the P passes, shape (N, P, C).
        n: Number of passes that are averaged, at most P.

    Returns:
        Scores in [0, 1 - 1/C], shape (N,).

    Raises:
        GauntletError: ``n`` is out of range.
    """
    if not 1 <= n <= passes.shape[1]:
        raise GauntletError(f"Detector 'mc-dropout' needs n from 1 to the {passes.shape[1]} passes made, got {n}.")
    p = double(passes[:, :n]).softmax(dim=2).mean(dim=1)
    top = p.argmax(dim=1, keepdim=True)
    return p.scatter(1, top, 0.0).sum(dim=1)
