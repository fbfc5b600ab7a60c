"""How much the members of a model, or its dropout passes, disagree."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .numerics import double

_REFERENCE = "Depeweg, Hernandez-Lobato, Doshi-Velez, Udluft 2017, arXiv 1710.07283"


@detector("disagreement", reference=_REFERENCE, tags=("post-hoc", "ensemble"))
def disagreement(members: Tensor) -> Tensor:
    """Mutual information between prediction and member, ``H(mean_m p_m) - mean_m H(p_m)``, in nats.

    Args:
        members: Logits of the M members, shape (N, M, C).

    Returns:
        Scores in [0, log min(M, C)], shape (N,).
    """
    log_p = double(members).log_softmax(dim=2)
    log_mean = log_p.logsumexp(dim=1, keepdim=True) - double(members).new_tensor(members.shape[1]).log()
    # As a mean of divergences from the mean, which no cancellation of two entropies can make negative.
    return (log_p.exp() * (log_p - log_mean)).sum(dim=2).mean(dim=1).clamp(min=0)


@detector("mc-disagreement", reference=_REFERENCE, tags=("post-hoc", "passes"))
def mc_disagreement(passes: Tensor) -> Tensor:
    """Mutual information between prediction and dropout mask; passes of shape (N, P, C), as ``disagreement``."""
    return disagreement(passes)
