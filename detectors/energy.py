"""Free energy."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .numerics import check_temperature, double
from .probabilities import log_sum_exp


@detector(
    "energy",
    reference="Liu, Wang, Owens, Li 2020, arXiv 2010.03759",
    tags=("post-hoc", "logits"),
)
def energy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Free energy, ``-T logsumexp(l / T)``.

    >>> import torch
    >>> energy(torch.tensor([[0.0, 0.0], [10.0, 0.0]])).round(decimals=2).tolist()
    [-0.69, -10.0]

    Args:
        logits: Shape (N, C).
        temperature: T > 0.

    Returns:
        Scores, shape (N,), in the unit of the logits.

    Raises:
        GauntletError: ``temperature`` is not above 0.
    """
    check_temperature(temperature, "energy")
    scaled = logits if temperature == 1 else double(logits) / temperature
    return -temperature * log_sum_exp(scaled)
