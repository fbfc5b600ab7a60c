"""PGD and its relatives: many small gradient steps, each projected back onto the ball."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError
from .budget import BudgetAttack, BudgetSearch, SearchBatch
from .losses import LossName, get_loss, lacking_classes
from .native import native
from .norms import per_image
from .steps import PATH, ascend, displaced, random_offset

_STEPS = {"linf": 40, "l2": 50, "l1": 50}


@dataclass
class PGDState(BudgetSearch):
    """State of PGD: ``stepsize`` is the length of its steps (M,), in pixel units."""

    stepsize: Tensor


@native("pgd", "linf", "l2", "l1", reference="Madry et al. 2017, arXiv 1706.06083", loss="any")
class PGD(BudgetAttack):
    """Projected gradient descent; an image leaves as soon as it is fooled.

    Madry, Makelov, Schmidt, Tsipras, Vladu 2017, arXiv 1706.06083. Without a random start this is the basic iterative
    method of Kurakin, Goodfellow, Bengio 2016, arXiv 1607.02533. All epsilons share batches. In L1, steps are sparse
    (Tramèr, Boneh 2019, arXiv 1904.13000) and projected onto the ball and the box at once (Croce, Hein 2021, arXiv
    2103.01208).

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        steps: Gradient steps; by default 40 in Linf and 50 in L2 and L1.
        rel_stepsize: Length of a step in epsilons; by default 0.1, and 4 / steps where fewer than 40 are made, so that
            the path is four epsilons at least. Madry et al. and foolbox walk 1.33 (Linf: 1/30), foolbox in L2 and L1
            1.25 (0.025).
        random_start: Start from a point drawn uniformly in the ball.
        restarts: Random starts to try on an image that resists.
        stop_when_fooled: Whether an image leaves when it is fooled, as the image that did it; otherwise it goes all
            the way.
        loss: What is driven up: cross entropy (``xent``; the victim's own loss), ``margin`` or ``dlr``.

    Raises:
        GauntletError: A parameter is out of range.
    """

    forwards = backwards = 1  # of a step

    def __init__(
        self,
        norm: Literal["linf", "l2", "l1"] = "linf",
        steps: int | None = None,
        rel_stepsize: float | None = None,
        random_start: bool = True,
        restarts: int = 1,
        stop_when_fooled: bool = True,
        loss: LossName = "xent",
    ) -> None:
        self.norm = norm
        self.steps = _STEPS[norm] if steps is None else steps
        self.rel_stepsize = max(0.1, PATH / max(self.steps, 1)) if rel_stepsize is None else rel_stepsize
        self.random_start = random_start
        self.restarts = restarts
        self.stop_when_fooled = stop_when_fooled
        self.loss, self._loss_name = get_loss(loss), loss
        self._check()

    def _check(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise GauntletError(f"pgd needs steps >= 1 and restarts >= 1, got {self.steps} and {self.restarts}.")
        if not self.rel_stepsize > 0:
            raise GauntletError(f"pgd needs rel_stepsize > 0, got {self.rel_stepsize}.")
        if self.restarts > 1 and not self.random_start:
            raise GauntletError("pgd with restarts > 1 needs random_start: true, or every restart is the same.")

    def left_out(self, classes: int) -> dict[str, str]:
        """The attack itself, where its loss needs more classes."""
        reason = lacking_classes(self._loss_name, classes)
        return {"": reason} if reason else {}

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """Climb from every start; after each, go on with the items that are not solved."""
        for restart in range(self.restarts):
            start, step = partial(self.start, batch, restart), partial(self._step, batch)
            batch.run(batch.unsolved(items), start, step, forwards=self.forwards, backwards=self.backwards)

    def start(self, batch: SearchBatch, restart: int, items: Tensor) -> PGDState:
        """Start some items (M,): at their images, or at a random point of the ball."""
        # In double precision first: a step is the very number that rel_stepsize times epsilon gives.
        stepsizes = torch.tensor([self.rel_stepsize * epsilon for epsilon in batch.epsilons], device=items.device)
        state = PGDState(**vars(batch.start(items)), stepsize=stepsizes[items // len(batch.images)])
        if self.random_start:
            unit = random_offset(self.norm, batch.rng(items), state.clean.shape[1:], restart=restart)
            state.current = displaced(state.clean, per_image(state.radius, unit) * unit, self.norm, state.radius)
        return state

    def _step(self, batch: SearchBatch, state: PGDState) -> Tensor:
        gradient, outputs = self.gradient(batch, state)
        moved = self.move(state, gradient)
        done = state.steps_done + 1 >= self.steps
        if self.stop_when_fooled:
            over = batch.victim.is_over(outputs, state.labels)
            moved[over] = state.current[over]  # the image that was judged, not the one after it
            done |= over
        state.current = moved
        return done

    def gradient(self, batch: SearchBatch, state: PGDState) -> tuple[Tensor, Tensor]:
        """Gradient (M, C, H, W) of the loss, and outputs (M, classes) for the images as they are."""
        return batch.victim.gradient(state.current, state.labels, self.loss)

    def move(self, state: PGDState, gradient: Tensor) -> Tensor:
        """The next images (M, C, H, W)."""
        return ascend(state.current, state.clean, gradient, self.norm, stepsize=state.stepsize, radius=state.radius)


@native("bim", "linf", "l2", "l1", reference="Kurakin et al. 2016, arXiv 1607.02533", loss="any")
def bim(
    norm: Literal["linf", "l2", "l1"] = "linf",
    steps: int = 20,
    rel_stepsize: float = 0.2,
    stop_when_fooled: bool = True,
    loss: LossName = "xent",
) -> PGD:
    """Basic iterative method: projected gradient descent from the image itself, in few large steps.

    The authors walk 1.25 epsilons, in steps of 1/255; foolbox's `bim` is ``steps=10``: two epsilons.
    """
    return PGD(norm, steps, rel_stepsize, random_start=False, stop_when_fooled=stop_when_fooled, loss=loss)
