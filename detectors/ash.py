"""ASH: energy after most activations are removed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..registry import detector
from .energy import energy
from .numerics import by_rows, compute_dtype, double
from .outputs import Head
from .pruning import ratio, survivors


@detector(
    "ash",
    reference="Djurisic, Bozanic, Ashok, Liu 2022, arXiv 2209.09858",
    tags=("post-hoc", "features"),
    grid={"q": [0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]},
)
def ash(features: Tensor, head: Head, *, variant: Literal["b", "p", "s"] = "b", q: float = 0.9) -> Tensor:
    """Energy of features of which only the largest are kept: as one value (b), as they are (p), or scaled (s).

    With s1 and s2 the sums of an image's activations before and after pruning and k their number after it, variant b
    sets the survivors to s1 / k, p leaves them, and s multiplies them by exp(s1 / s2) (by e where all are 0).

    Args:
        features: Shape (N, D), pooled.
        head: The final linear layer.
        variant: ``b``, ``p`` or ``s``.
        q: Share of activations that are removed, in [0, 1).

    Returns:
        Scores, shape (N,), in the unit of the logits.

    Raises:
        GauntletError: ``q`` is out of range.
    """

    return energy(by_rows(lambda part: head.logits(*_pruned(part, variant, q)), features))


def shaped(features: Tensor, *, variant: Literal["b", "p", "s"] = "b", q: float = 0.9) -> Tensor:
    """The features (N, D) that :func:`ash` takes the energy of."""

    def shape(part: Tensor) -> Tensor:
        pruned, factor = _pruned(part, variant, q)
        return pruned if factor is None else double(pruned) * factor

    return by_rows(shape, features)


def _pruned(part: Tensor, variant: str, q: float) -> tuple[Tensor, Tensor | None]:
    """Features (N, D) of which only the largest are left, and what multiplies them (N, 1), in float64."""
    own = compute_dtype(part)
    kept, places = survivors(own, q, "ash")
    total = own.sum(dim=1, keepdim=True)
    factor: Tensor | None = None
    if variant == "b":
        kept = (total / kept.shape[1]).expand_as(kept)
    elif variant == "s":
        factor = double(ratio(total, kept.sum(dim=1, keepdim=True))).exp()
    return torch.zeros_like(own).scatter(1, places, kept), factor
