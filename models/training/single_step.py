"""Training on single-step examples: `fgsm-augmentation` and `fast-at`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...registry import recipe
from ..layers import eval_mode
from .batch import Batch
from .hooks import Hook, LossOutput, Objective, TrainingState
from .trainer import Trainer

#: What is known of single steps at a radius of 0.1.
SINGLE_STEP = (
    "training on single steps at a large radius often ends in catastrophic over-fitting, with a high accuracy under "
    "FGSM and none under PGD: attack the result with pgd too"
)


def input_gradient(loop: TrainingState, images: Tensor, targets: Tensor) -> Tensor:
    """Gradient (N, C, H, W) of the cross entropy at ``images``."""
    return gradient_at(loop, images, lambda x: F.cross_entropy(loop.logits(x), targets, reduction="sum"))


def gradient_at(loop: TrainingState, images: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient (N, C, H, W) of a scalar loss at ``images``; in eval mode, and none reaches the weights."""
    with eval_mode(loop.module):
        probe = images.detach().requires_grad_()
        return torch.autograd.grad(loss(probe), probe)[0]


def _of_cross_entropy(loop: TrainingState, batch: Batch) -> Tensor:
    return input_gradient(loop, batch.images, batch.targets)


@dataclass(eq=False)
class FGSMAugmentation(Hook):
    """Adds the FGSM examples of every batch: as an update of their own, or in the mean of both losses.

    Args:
        epsilon: Radius in Linf; None: drawn for each batch from ``interval``.
        interval: Smallest and largest radius where it is drawn.
        mode: ``alternating`` or ``joint``.
        gradient: What the examples climb along (N, C, H, W), from a batch; by default that of the cross entropy.
    """

    epsilon: float | None
    interval: tuple[float, float]
    mode: str
    gradient: Callable[[TrainingState, Batch], Tensor] = _of_cross_entropy

    def _adversarial(self, loop: TrainingState, batch: Batch) -> Batch:
        epsilon: float | Tensor = self.epsilon if self.epsilon is not None else 0.0
        if self.epsilon is None:
            low, high = self.interval
            epsilon = low + (high - low) * torch.rand((), generator=loop.rng, device=loop.device)
        gradient = self.gradient(loop, batch)
        return replace(batch, images=(batch.images + epsilon * gradient.sign()).clamp(0, 1), outliers=None)

    def expand(self, loop: TrainingState, batch: Batch) -> Iterator[Batch]:
        """The clean batch, then, where the mode is alternating, its examples."""
        if self.mode == "joint":
            yield batch
            return
        adversarial = self._adversarial(loop, batch)
        yield batch
        yield adversarial

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """In joint mode the mean of both losses."""
        if self.mode != "joint":
            return inner(batch)
        clean, adversarial = inner(batch), inner(self._adversarial(loop, batch))
        return LossOutput((clean.loss + adversarial.loss) / 2, clean.logits)


def check_radii(trainer: Trainer, epsilon: float | None, interval: tuple[float, float]) -> None:
    """Raise a :class:`GauntletError` unless both can be radii of examples."""
    trainer._require(epsilon is None or 0 <= epsilon < math.inf, "an epsilon >= 0", epsilon)
    trainer._require(
        0 <= interval[0] <= interval[1] < math.inf, "an interval [low, high] with 0 <= low <= high", interval
    )


@recipe(
    "fgsm-augmentation",
    reference="Goodfellow, Shlens, Szegedy 2014, arXiv 1412.6572",
    profiles={
        "r1": {"epochs": 200, "lr": 1e-4, "epsilon": None},
        "r1-plus": {"epochs": 50, "lr": 1e-4, "epsilon": None},
        "r4": {"epochs": 20, "epsilon": 0.1},
    },
    warnings={"r4": SINGLE_STEP},
)
class FGSMAugmented(Trainer):
    """Clean batches and their FGSM examples in turn, or both in one update.

    Args:
        epsilon: Radius in Linf; None: drawn for each batch from ``interval``.
        interval: Smallest and largest radius where it is drawn.
        mode: ``alternating``: an update on the clean batch, then one on its examples, which were made before;
            ``joint``: one on the mean of both losses.
        **settings: Those of :class:`Trainer`.
    """

    name = "fgsm-augmentation"

    def __init__(
        self,
        *,
        epsilon: float | None = None,
        interval: tuple[float, float] = (0.01, 0.15),
        mode: Literal["alternating", "joint"] = "alternating",
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_radii(self, epsilon, interval)
        self.epsilon, self.interval, self.mode = epsilon, interval, mode

    def own_hooks(self) -> list[Hook]:
        """The examples."""
        return [FGSMAugmentation(self.epsilon, self.interval, self.mode)]


@dataclass(eq=False)
class FastAdversarial(Hook):
    """Trains on one long FGSM step from a random point of the ball."""

    epsilon: float
    stride: float

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """The loss of the examples alone."""
        x = batch.images
        draws = torch.rand(x.shape, generator=loop.rng, device=x.device)
        start = (x + self.epsilon * (2 * draws - 1)).clamp(0, 1)
        moved = start + self.stride * self.epsilon * input_gradient(loop, start, batch.targets).sign()
        return inner(replace(batch, images=(x + (moved - x).clamp(-self.epsilon, self.epsilon)).clamp(0, 1)))


@recipe("fast-at", reference="Wong, Rice, Kolter 2020, arXiv 2001.03994")
class FastAT(Trainer):
    """Single-step adversarial training with a random start.

    Args:
        epsilon: Radius in Linf.
        stride: Length of the step, in epsilons; 1.25 is the paper's for CIFAR-10.
        **settings: Those of :class:`Trainer`.
    """

    name = "fast-at"

    def __init__(self, *, epsilon: float = 0.3, stride: float = 1.25, **settings: Any) -> None:
        super().__init__(**settings)
        self._require(0 <= epsilon < math.inf and stride > 0, "epsilon >= 0 and stride > 0", f"{epsilon} and {stride}")
        self.epsilon, self.stride = epsilon, stride

    def own_hooks(self) -> list[Hook]:
        """The examples."""
        return [FastAdversarial(self.epsilon, self.stride)]
