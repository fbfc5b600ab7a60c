"""What gradient attacks drive up: functions of logits and labels; all but cross entropy are above 0 once fooled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from ..registry import GauntletError

Loss = Callable[[Tensor, Tensor], Tensor]
LossName = Literal["xent", "margin", "dlr", "probability-margin"]


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest wrong logit minus the right one (N,), of logits (N, K) (Carlini, Wagner 2016, arXiv 1608.04644).

    >>> import torch
    >>> margin(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([0]))
    tensor([3.])
    """
    right = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], -float("inf")).amax(dim=1) - right


def probability_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest wrong probability minus the right one (N,) (Xie et al. 2024, arXiv 2411.15210).

    >>> import torch
    >>> probability_margin(torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([0]))
    tensor([-0.3000])
    """
    return margin(logits.softmax(dim=1), labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (N,): the margin over the gap between first and third (arXiv 2003.01690).

    Raises:
        GauntletError: There are fewer than three classes.
    """
    _need(logits, 3, "dlr")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Difference of logits ratio towards a target class (N,) (Croce, Hein 2020, arXiv 2003.01690).

    Raises:
        GauntletError: There are fewer than four classes.
    """
    _need(logits, 4, "targeted dlr")
    top = logits.topk(4, dim=1).values
    chosen = logits.gather(1, targets[:, None]).squeeze(1) - logits.gather(1, labels[:, None]).squeeze(1)
    return chosen / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def get_loss(name: LossName) -> Loss | None:
    """The loss of that name; None for ``xent``, which is the victim's own loss."""
    return {"xent": None, "margin": margin, "dlr": dlr, "probability-margin": probability_margin}[name]


def lacking_classes(loss: str, classes: int) -> str:
    """Why a loss cannot be computed for so few classes, or nothing.

    >>> lacking_classes("targeted dlr", 3)
    'needs at least 4 classes (its loss is the targeted dlr), the model has 3'
    """
    least = {"dlr": 3, "targeted dlr": 4}.get(loss, 2)
    return (
        "" if classes >= least else f"needs at least {least} classes (its loss is the {loss}), the model has {classes}"
    )


def _need(logits: Tensor, classes: int, name: str) -> None:
    if logits.shape[1] < classes:
        raise GauntletError(f"The {name} loss needs at least {classes} classes, the model has {logits.shape[1]}.")
