"""What a recipe can change about training: the methods of a hook, and what of the training they may read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...datasets import ImageSet
from .batch import Batch, evaluate
from .optim import Optimisation
from .recipe import EpochLog


class LossOutput(NamedTuple):
    """A forward pass: its scalar loss, and the logits (N, K) of the images with a class, where it has some."""

    loss: Tensor
    logits: Tensor | None


#: From a batch to its loss: the next hook's, in the end the network's own.
Objective = Callable[[Batch], LossOutput]


@dataclass(frozen=True)
class LoopSettings:
    """How long, with what batches, and what is kept; the fields are parameters of :class:`~.trainer.Trainer`."""

    epochs: int
    batch_size: int
    keep: str
    patience: int | None
    steps: int | None
    precision: str


class TrainingState:
    """One training as its hooks see it.

    Attributes:
        module: The network, on ``device``.
        train: The training images.
        pixels: All of them (N, C, H, W), uint8 or float32, on the device; a hook may append to them.
        targets: Their classes (N,) or class probabilities (N, K), on the device.
        epoch: Number of the epoch at hand, from 0.
        step: Number of updates done.
        rng: Generator of augmentations and outliers, on the device.
        seed: The seed that all streams derive from.
        hooks: All hooks, in their order.
    """

    def __init__(
        self,
        module: nn.Module,
        train: ImageSet,
        settings: LoopSettings,
        optimisation: Optimisation,
        hooks: Sequence[Hook],
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        self.module, self.train, self.device, self.seed = module, train, device, seed
        self.settings, self.optimisation, self.hooks = settings, optimisation, list(hooks)
        self.epoch = self.step = 0
        self._in_full = False
        self.rng = torch.Generator(device).manual_seed(seed + 1)
        self.pixels, self.targets = train.pixels.to(device), train.labels.to(device)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; a last one of a single image is left out, since batch-norm needs two."""
        whole, rest = divmod(len(self.targets), self.settings.batch_size)
        return whole + (rest > 1)

    @property
    def total(self) -> int:
        """Batches of the whole training."""
        return self.settings.steps or self.settings.epochs * self.steps_per_epoch

    def logits(self, images: Tensor) -> Tensor:
        """One pass of images (N, C, H, W) to logits (N, K) in float32, in the precision of this training."""
        with self.precision():
            logits = self.module(images)
        return logits.float() if self._half else logits

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Entered around forward passes: bfloat16 where this training works in it."""
        if self._half and not self._in_full:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def full_precision(self) -> Iterator[None]:
        """Passes in here are in float32 whatever the precision of this training, as gradients of gradients need."""
        before, self._in_full = self._in_full, True
        try:
            yield
        finally:
            self._in_full = before

    @property
    def _half(self) -> bool:
        precision = self.settings.precision
        return precision == "bfloat16" or (precision == "auto" and self.device.type == "cuda")


class Hook:
    """One idea about training. A recipe is a list of hooks; each overrides the few methods that it is about.

    Hooks apply in their order; of nested ones (:meth:`objective`) the first is outermost.

    Attributes:
        replaces: What it replaces and only one hook may (``criterion``), for a clear message; empty for most.
    """

    replaces: str = ""

    def parameters(self, loop: TrainingState) -> list[nn.Parameter]:
        """Parameters that are trained with the network's, by the same optimiser; asked once, before all else."""
        return []

    def start(self, loop: TrainingState) -> None:
        """Before the first step (also of a resumed run): check the data, get ready."""

    def transform(self, loop: TrainingState, batch: Batch) -> Batch:
        """The batch that is trained on instead (augmented, with outliers)."""
        return batch

    def expand(self, loop: TrainingState, batch: Batch) -> Iterator[Batch]:
        """The batches, one update each, that one batch leads to."""
        yield batch

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """The loss of a batch, from that of ``inner``."""
        return inner(batch)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The scalar loss of logits (N, K); a hook that overrides it says ``replaces = "criterion"``."""
        return F.cross_entropy(logits, targets)

    def evaluate(self, loop: TrainingState, images: ImageSet) -> dict[str, float]:
        """Figures of a watched split, ``loss`` among them; the hook that replaces the criterion is asked."""
        return dict(zip(("loss", "accuracy"), evaluate(loop.module, images, loop.device), strict=True))

    def penalty(self, inside: Tensor, outside: Tensor) -> Tensor | float:
        """A term in the logits of the images (N, K) and of the outliers (M, K), where the batch has outliers."""
        return 0.0

    def after_step(self, loop: TrainingState) -> None:
        """After every update."""

    def after_epoch(self, loop: TrainingState, log: EpochLog) -> None:
        """After every epoch; may add figures to its record."""

    def evaluating(self, loop: TrainingState) -> contextlib.AbstractContextManager[None]:
        """Entered where the model is judged or kept (averaged weights, say)."""
        return contextlib.nullcontext()

    def state(self) -> dict[str, Tensor]:
        """What an unbroken run would remember, for one that goes on after a kill."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what :meth:`state` gave."""
