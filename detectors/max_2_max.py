"""Gap between the two largest probabilities."""

from __future__ import annotations

from torch import Tensor

from ..registry import GauntletError, detector
from .numerics import double


@detector("max-2-max", tags=("post-hoc", "logits"))
def max_2_max(logits: Tensor) -> Tensor:
    """One minus the gap between the two largest softmax probabilities, ``1 - (p_(1) - p_(2))``.

    Args:
        logits: Shape (N, C), with C of at least 2.

    Returns:
        Scores in [0, 1], shape (N,); 0 where the model is certain.

    Raises:
        GauntletError: There is one class only.
    """
    if logits.shape[1] < 2:
        raise GauntletError("Detector 'max-2-max' needs at least two classes, got one.")
    precise = double(logits)
    top = precise.topk(2, dim=1)
    relative = (precise - top.values[:, :1]).exp()
    others = relative.scatter(1, top.indices[:, :1], 0.0).sum(dim=1)  # not 1 - p_(1), which rounds to 0
    second = relative.gather(1, top.indices[:, 1:]).squeeze(1)
    return (others + second) / (1.0 + others)
