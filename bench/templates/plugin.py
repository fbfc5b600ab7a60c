"""A detector of one's own: its leading arguments are what it needs, the others parameters that a suite may set."""

from __future__ import annotations

from torch import Tensor

from gauntlet import detector


@detector("margin", needs="logits", reference="the gap between the two most likely classes")
def margin(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Minus the gap between the two largest probabilities (N,) of logits (N, C); higher is more unusual."""
    top = (logits / temperature).softmax(1).topk(2).values
    return top[:, 1] - top[:, 0]
