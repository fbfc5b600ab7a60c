"""What a recipe can change about training: every method of the loop that a hook may override."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from ...datasets import ImageSet
    from .batch import Batch
    from .loop import Loop
    from .recipe import EpochLog


class Pass(NamedTuple):
    """A forward pass: its scalar loss, and the logits (N, K) of the images with a class, where it has some."""

    loss: Tensor
    logits: Tensor | None


#: From a batch to its loss: the next hook's, in the end the network's own.
Objective = Callable[["Batch"], Pass]


class Hook:
    """One idea about training. A recipe is a list of hooks; each overrides the few methods that it is about.

    Hooks apply in their order; of nested ones (:meth:`objective`) the first is outermost.

    Attributes:
        replaces: What it replaces and only one hook may (``criterion``), for a clear message; empty for most.
    """

    replaces: str = ""

    def parameters(self, loop: Loop) -> list[nn.Parameter]:
        """Parameters that are trained with the network's, by the same optimiser; asked once, before all else."""
        return []

    def start(self, loop: Loop) -> None:
        """Before the first step (also of a resumed run): check the data, get ready."""

    def change(self, loop: Loop, batch: Batch) -> Batch:
        """The batch that is trained on instead (augmented, with outliers)."""
        return batch

    def steps(self, loop: Loop, batch: Batch) -> Iterator[Batch]:
        """The batches, one update each, that one batch leads to."""
        yield batch

    def objective(self, loop: Loop, batch: Batch, inner: Objective) -> Pass:
        """The loss of a batch, from that of ``inner``."""
        return inner(batch)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits; a hook that overrides it says ``replaces = "criterion"``."""
        return F.cross_entropy(logits, targets)

    def evaluate(self, loop: Loop, images: ImageSet) -> dict[str, float]:
        """Figures of a watched split, ``loss`` among them; the hook that replaces the criterion is asked."""
        from .loop import evaluate

        return dict(zip(("loss", "accuracy"), evaluate(loop.module, images, loop.device), strict=True))

    def penalty(self, inside: Tensor, outside: Tensor) -> Tensor | float:
        """A term in the logits of the images (N, K) and of the outliers (M, K), where the batch has outliers."""
        return 0.0

    def after_step(self, loop: Loop) -> None:
        """After every update."""

    def after_epoch(self, loop: Loop, log: EpochLog) -> None:
        """After every epoch; may add figures to its record."""

    def evaluating(self, loop: Loop) -> AbstractContextManager[None]:
        """Entered where the model is judged or kept (averaged weights, say)."""
        return nullcontext()

    def state(self) -> dict[str, Tensor]:
        """What an unbroken run would remember, for one that goes on after a kill."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what :meth:`state` gave."""
