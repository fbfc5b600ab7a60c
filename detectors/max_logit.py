"""Maximum logit."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector


@detector(
    "max-logit",
    reference="Hendrycks et al. 2019, arXiv 1911.11132",
    tags=("post-hoc", "logits"),
)
def max_logit(logits: Tensor) -> Tensor:
    """Negative largest logit, ``-max_c l_c``; logits of shape (N, C), scores of shape (N,).

    >>> import torch
    >>> max_logit(torch.tensor([[1.0, 3.0], [2.0, 0.5]])).tolist()
    [-3.0, -2.0]
    """
    return -logits.amax(dim=1)
