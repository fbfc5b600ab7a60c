"""LTS: energy of logits tempered by how much of the features a few units carry."""

from __future__ import annotations

from torch import Tensor

from ..registry import GauntletError, detector
from .energy import energy
from .numerics import by_rows, compute_dtype, double
from .outputs import Head
from .pruning import ratio, sum_of_survivors


@detector(
    "lts",
    reference="Djurisic, Liu, Nikolic 2024, arXiv 2409.20221",
    tags=("post-hoc", "features"),
    grid={"p": [0.02, 0.05, 0.1, 0.2]},
)
def lts(features: Tensor, head: Head, *, p: float = 0.05) -> Tensor:
    """Energy of ``l (s1 / s2)^2``: s1 is the sum of an image's positive activations, s2 that of its largest share p.

    Args:
        features: Shape (N, D), pooled.
        head: The final linear layer, which gives the logits l.
        p: Share of activations in s2, in (0, 1].

    Returns:
        Scores, shape (N,), in the unit of the logits.

    Raises:
        GauntletError: ``p`` is out of range.
    """
    if not 0 < p <= 1:
        raise GauntletError(f"Detector 'lts' needs p above 0 and at most 1, got {p}.")

    def logits(part: Tensor) -> Tensor:
        active = compute_dtype(part).relu()
        factor = double(ratio(active.sum(dim=1), sum_of_survivors(active, 1 - p, "lts"))).square()
        return head.logits(part) * factor[:, None]

    return energy(by_rows(logits, features))
