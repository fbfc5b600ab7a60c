"""Auto-PGD: projected gradient ascent with momentum that halves its step where progress stalls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError
from .apgd_l1 import L1Climb
from .apgd_state import APGDState
from .budget import BudgetAttack, BudgetSearch, SearchBatch
from .losses import dlr, lacking_classes, targeted_dlr
from .native import native
from .norms import per_image
from .steps import ascend, random_offset, within

_MOMENTUM = 0.75
_LEAST_INCREASES = 0.75  # share of the steps between two checkpoints that must raise the loss
_REFERENCE = "Croce, Hein 2020, arXiv 2003.01690"


class APGD(BudgetAttack):
    """Auto-PGD (Croce, Hein 2020, arXiv 2003.01690; in L1: 2021, arXiv 2103.01208); an image leaves once it is fooled.

    The step starts at twice epsilon. At checkpoints that come ever closer together it is halved, and the climb goes
    back to the best image, if fewer than 75 % of the steps raised the loss, or if neither the step nor the best loss
    changed since the last checkpoint.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        steps: Gradient steps.
        restarts: Random starts to try on an image that resists.
        eot: Passes over which gradient and loss are averaged, for models that are random.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(self, norm: str, steps: int, restarts: int, eot: int) -> None:
        if min(steps, restarts, eot) < 1:
            raise GauntletError(f"apgd needs steps, restarts and eot >= 1, got {steps}, {restarts} and {eot}.")
        self.norm, self.steps, self.restarts, self.eot = norm, steps, restarts, eot
        self.first_window = max(int(0.22 * steps), 1)
        self.least_window = max(int(0.06 * steps), 1)
        self.narrowing = max(int(0.03 * steps), 1)

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """Climb from every start; after each, go on with the items that are not solved."""
        for restart in range(self.restarts):
            self.climb(batch, items, restart)

    def climb(self, batch: SearchBatch, items: Tensor, restart: int) -> None:
        """One climb of the items that are not solved."""
        if self.norm == "l1":
            walk = L1Climb(self, batch, restart)
            batch.run(batch.unsolved(items), walk.start, walk.step, forwards=self.eot, backwards=self.eot)
            return
        start, step = partial(self._start, batch, restart), partial(self._step, batch)
        batch.run(batch.unsolved(items), start, step, forwards=self.eot, backwards=self.eot)

    def loss(self, batch: SearchBatch, state: APGDState) -> Callable[[Tensor, Tensor], Tensor]:
        """What is driven up, a loss (M,) of outputs and labels: the victim's own."""
        return batch.victim.losses

    def targets(self, batch: SearchBatch, items: Tensor, state: BudgetSearch, restart: int) -> Tensor:
        """The class that each row aims at (M,); none here."""
        return state.labels

    def _start(self, batch: SearchBatch, restart: int, items: Tensor) -> APGDState:
        state = batch.start(items)
        offset = random_offset(self.norm, batch.rng(items), state.clean.shape[1:], restart=restart)
        # From the surface of the ball, as the authors' code does.
        order = torch.inf if self.norm == "linf" else 2
        offset = offset / per_image(torch.linalg.vector_norm(offset.flatten(1), ord=order, dim=1), offset)
        state.current = (state.clean + per_image(state.radius, offset) * offset).clamp_(0, 1)
        return self.fresh(batch, items, state, restart, stepsize=2 * state.radius)

    def fresh(
        self, batch: SearchBatch, items: Tensor, state: BudgetSearch, restart: int, *, stepsize: Tensor
    ) -> APGDState:
        """Searches of items (M,) at their first images, with a first step of length ``stepsize`` (M,)."""
        counts = torch.zeros_like(items)
        lowest = torch.full_like(state.radius, -torch.inf)
        return APGDState(
            **vars(state),
            target=self.targets(batch, items, state, restart),
            previous=state.current,
            best=state.current,
            best_gradient=torch.zeros_like(state.clean),
            best_loss=lowest,
            previous_loss=-lowest,
            checkpoint_loss=-lowest,
            halved=torch.ones_like(items, dtype=torch.bool),
            stepsize=stepsize,
            increases=counts,
            steps_since=counts,
            window=torch.full_like(items, self.first_window),
        )

    def _step(self, batch: SearchBatch, state: APGDState) -> Tensor:
        gradient, loss, over = self.evaluate(batch, state)
        better = loss > state.best_loss
        state.best = torch.where(per_image(better | over, state.best), state.current, state.best)
        state.best_gradient = torch.where(per_image(better, gradient), gradient, state.best_gradient)
        state.best_loss = torch.where(better, loss, state.best_loss)
        state.increases = state.increases + (loss > state.previous_loss).long()
        state.previous_loss = loss
        first = state.steps_done == 0  # the loss of the start: a checkpoint compares with it, and counts no step
        state.checkpoint_loss = torch.where(first, loss, state.checkpoint_loss)
        state.steps_since = torch.where(first, 0, state.steps_since + 1)
        here, gradient = self._checkpoint(state, gradient)
        moved = self._move(state, here, gradient)
        state.previous = here
        done = over | (state.steps_done >= self.steps)
        # Who is fooled leaves with the image that did it, whose loss need not be its highest: `best` holds that one.
        state.current = torch.where(per_image(done, moved), state.best, moved)
        return done

    def evaluate(self, batch: SearchBatch, state: APGDState) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient (M, C, H, W) and loss (M,), means over ``eot`` passes; and which searches most of them end (M,)."""
        loss = self.loss(batch, state)
        passes = [batch.victim.gradient(state.current, state.labels, loss) for _ in range(self.eot)]
        value = sum(loss(outputs, state.labels) for _, outputs in passes) / self.eot
        over = torch.stack([batch.victim.is_over(outputs, state.labels) for _, outputs in passes])
        gradient = passes[0][0] if self.eot == 1 else torch.stack([gradient for gradient, _ in passes]).mean(dim=0)
        return gradient, torch.as_tensor(value), over.float().mean(dim=0) > 0.5

    def _checkpoint(self, state: APGDState, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Where due, judge the progress, halve the step and go back; returns where to step from, and gradients."""
        due = state.steps_since == state.window
        if not due.any():
            return state.current, gradient
        # The two conditions of the paper (section 3.1).
        oscillating = state.increases <= _LEAST_INCREASES * state.window
        stuck = ~state.halved & (state.checkpoint_loss >= state.best_loss)
        halve = due & (oscillating | stuck)
        state.halved = torch.where(due, halve, state.halved)
        state.checkpoint_loss = torch.where(due, state.best_loss, state.checkpoint_loss)
        state.stepsize = torch.where(halve, state.stepsize / 2, state.stepsize)
        state.window = torch.where(due, (state.window - self.narrowing).clamp_min(self.least_window), state.window)
        state.steps_since, state.increases = state.steps_since.masked_fill(due, 0), state.increases.masked_fill(due, 0)
        back = per_image(halve, state.current)
        return torch.where(back, state.best, state.current), torch.where(back, state.best_gradient, gradient)

    def _move(self, state: APGDState, here: Tensor, gradient: Tensor) -> Tensor:
        """The next images (M, C, H, W): a gradient step, pulled along the last move."""
        plain = ascend(here, state.clean, gradient, self.norm, stepsize=state.stepsize, radius=state.radius)
        # Nothing has moved before the first step, so that it takes the gradient alone.
        share = per_image(torch.where(state.steps_done == 0, 1.0, _MOMENTUM), plain)
        pulled = here + share * (plain - here) + (1 - share) * (here - state.previous)
        return within(pulled, state.clean, self.norm, state.radius)


@native("apgd-ce", "linf", "l2", "l1", reference=_REFERENCE, cost="standard", loss="any")
class APGDCE(APGD):
    """Auto-PGD on the cross entropy.

    Croce, Hein 2020, arXiv 2003.01690.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        steps: Gradient steps.
        restarts: Random starts to try on an image that resists.
        eot: Passes over which gradient and loss are averaged, for models that are random.
    """

    def __init__(
        self, norm: Literal["linf", "l2", "l1"] = "linf", steps: int = 100, restarts: int = 1, eot: int = 1
    ) -> None:
        super().__init__(norm, steps, restarts, eot)


@native("apgd-dlr", "linf", "l2", "l1", reference=_REFERENCE, cost="standard")
class APGDDLR(APGDCE):
    """Auto-PGD on the difference of logits ratio, which no rescaling of the logits can flatten.

    Croce, Hein 2020, arXiv 2003.01690. It needs three classes. Parameters as in ``apgd-ce``.
    """

    def left_out(self, classes: int) -> dict[str, str]:
        """The attack itself, with two classes."""
        reason = lacking_classes("dlr", classes)
        return {"": reason} if reason else {}

    def loss(self, batch: SearchBatch, state: APGDState) -> Callable[[Tensor, Tensor], Tensor]:
        """The difference of logits ratio."""
        return dlr


@native("apgd-t", "linf", "l2", "l1", reference=_REFERENCE, cost="standard")
class APGDT(APGD):
    """Auto-PGD towards each of the likeliest wrong classes in turn, on the targeted difference of logits ratio.

    Croce, Hein 2020, arXiv 2003.01690. It needs four classes.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        steps: Gradient steps for each target.
        targets: Classes to aim at, likeliest first; at most all wrong ones.
        restarts: Random starts for each of them.
        eot: Passes over which gradient and loss are averaged, for models that are random.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self,
        norm: Literal["linf", "l2", "l1"] = "linf",
        steps: int = 100,
        targets: int = 9,
        restarts: int = 1,
        eot: int = 1,
    ) -> None:
        super().__init__(norm, steps, restarts, eot)
        if targets < 1:
            raise GauntletError(f"apgd-t needs targets >= 1, got {targets}.")
        self.most_targets = targets

    def left_out(self, classes: int) -> dict[str, str]:
        """The attack itself, with two or three classes."""
        reason = lacking_classes("targeted dlr", classes)
        return {"": reason} if reason else {}

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """One climb for each restart and target, of the items that resist."""
        if not len(items):
            return
        classes = batch.victim.outputs(batch.images[:1]).shape[1]
        batch.count_queries(items[:1], 1)
        for trial in range(self.restarts * min(self.most_targets, classes - 1)):
            self.climb(batch, items, trial)

    def targets(self, batch: SearchBatch, items: Tensor, state: BudgetSearch, restart: int) -> Tensor:
        """The wrong classes in turn, by the logits of the original image."""
        batch.count_queries(items, 1)
        classes = wrong_classes(batch.victim.outputs(state.clean), state.labels)
        return classes[:, restart % min(self.most_targets, classes.shape[1])]

    def loss(self, batch: SearchBatch, state: APGDState) -> Callable[[Tensor, Tensor], Tensor]:
        """The targeted difference of logits ratio."""
        return lambda outputs, labels: targeted_dlr(outputs, labels, state.target)


def wrong_classes(outputs: Tensor, labels: Tensor) -> Tensor:
    """The classes other than the label (N, classes - 1), likeliest first."""
    last = outputs.scatter(1, labels[:, None], -torch.inf)
    return last.argsort(dim=1, descending=True, stable=True)[:, :-1]
