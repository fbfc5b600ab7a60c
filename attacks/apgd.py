"""Auto-PGD: projected gradient ascent with momentum that halves its step where progress stalls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError, attack
from .budget import BudgetAttack, Tries, Work
from .losses import dlr, targeted_dlr
from .norms import per_image
from .steps import ascend, random_offset, within

_MOMENTUM = 0.75
_LEAST_RISES = 0.75  # share of the steps between two checkpoints that must raise the loss
_REFERENCE = "Croce, Hein 2020, arXiv 2003.01690"
_TAGS = ("native", "white-box")


@dataclass
class _Ascent(Tries):
    """State of Auto-PGD.

    Attributes:
        target: Class aimed at (M,); only for targeted losses.
        previous: Image before this one (M, C, H, W).
        best: Image of the highest loss.
        slope: Gradient there.
        peak: That loss (M,).
        last: Loss one step ago.
        peak_before: Highest loss at the last checkpoint.
        halved: Whether the step was halved there.
        stride: Length of the step.
        rises: Steps since the checkpoint that raised the loss.
        since: Steps since the checkpoint.
        window: Steps between the last checkpoint and the next.
    """

    target: Tensor
    previous: Tensor
    best: Tensor
    slope: Tensor
    peak: Tensor
    last: Tensor
    peak_before: Tensor
    halved: Tensor
    stride: Tensor
    rises: Tensor
    since: Tensor
    window: Tensor


class APGD(BudgetAttack):
    """Auto-PGD (Croce, Hein 2020, arXiv 2003.01690); an image leaves as soon as it is fooled.

    The step starts at twice epsilon. At checkpoints that come ever closer together it is halved, and the climb goes
    back to the best image, if fewer than 75 % of the steps raised the loss, or if neither the step nor the best loss
    changed since the last checkpoint.

    Args:
        norm: ``linf`` or ``l2``.
        steps: Gradient steps.
        restarts: Random starts to try on an image that resists.
        eot: Passes over which gradient and loss are averaged, for models that are random.
    """

    def __init__(self, norm: str, steps: int, restarts: int, eot: int) -> None:
        if min(steps, restarts, eot) < 1:
            raise GauntletError(f"apgd needs steps, restarts and eot >= 1, got {steps}, {restarts} and {eot}.")
        self.norm, self.steps, self.restarts, self.eot = norm, steps, restarts, eot
        self.first_window = max(int(0.22 * steps), 1)
        self.least_window = max(int(0.06 * steps), 1)
        self.narrowing = max(int(0.03 * steps), 1)

    def pursue(self, work: Work, items: Tensor) -> None:
        """Climb from every start; after each, go on with the items that resist."""
        for restart in range(self.restarts):
            self.climb(work, items, restart)

    def climb(self, work: Work, items: Tensor, restart: int) -> None:
        """One climb of the items that resist."""
        work.search(
            work.resisting(items),
            load=lambda some: self._load(work, some, restart),
            step=lambda rows: self._step(work, rows),
            forwards=self.eot,
            backwards=self.eot,
        )

    def loss(self, work: Work, rows: _Ascent) -> Callable[[Tensor, Tensor], Tensor]:
        """What is driven up: the victim's own loss."""
        return work.victim.losses

    def targets(self, work: Work, items: Tensor, rows: Tries, restart: int) -> Tensor:
        """The class that each row aims at (M,); none here."""
        return rows.labels

    def _load(self, work: Work, items: Tensor, restart: int) -> _Ascent:
        tries = Tries(**work.start(items))
        offset = random_offset(self.norm, work.draws(items), tries.clean.shape[1:], restart=restart)
        # From the surface of the ball.
        order = torch.inf if self.norm == "linf" else 2
        offset = offset / per_image(torch.linalg.vector_norm(offset.flatten(1), ord=order, dim=1), offset)
        tries.current = (tries.clean + per_image(tries.radius, offset) * offset).clamp_(0, 1)
        counts = torch.zeros_like(items)
        low = torch.full_like(tries.radius, -torch.inf)
        return _Ascent(
            **vars(tries),
            target=self.targets(work, items, tries, restart),
            previous=tries.current,
            best=tries.current,
            slope=torch.zeros_like(tries.clean),
            peak=low,
            last=-low,
            peak_before=-low,
            halved=torch.ones_like(items, dtype=torch.bool),
            stride=2 * tries.radius,
            rises=counts,
            since=counts,
            window=torch.full_like(items, self.first_window),
        )

    def _step(self, work: Work, rows: _Ascent) -> Tensor:
        gradient, loss, fooled = self._look(work, rows)
        better = loss > rows.peak
        rows.best = torch.where(per_image(better | fooled, rows.best), rows.current, rows.best)
        rows.slope = torch.where(per_image(better, gradient), gradient, rows.slope)
        rows.peak = torch.where(better, loss, rows.peak)
        rows.rises = rows.rises + (loss > rows.last).long()
        rows.last = loss
        first = rows.taken == 0
        rows.peak_before = torch.where(first, loss, rows.peak_before)
        rows.since = torch.where(first, 0, rows.since + 1)
        here, gradient = self._checkpoint(rows, gradient)
        moved = self._move(rows, here, gradient)
        rows.previous = here
        done = fooled | (rows.taken >= self.steps)
        rows.current = torch.where(per_image(done, moved), rows.best, moved)
        return done

    def _look(self, work: Work, rows: _Ascent) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient, loss and who is fooled, averaged over ``eot`` passes; fooled by most of them."""
        loss = self.loss(work, rows)
        passes = [work.victim.gradient(rows.current, rows.labels, loss) for _ in range(self.eot)]
        value = sum(loss(outputs, rows.labels) for _, outputs in passes) / self.eot
        votes = torch.stack([work.victim.judge(outputs, rows.labels) for _, outputs in passes]).float().mean(dim=0)
        gradient = passes[0][0] if self.eot == 1 else torch.stack([gradient for gradient, _ in passes]).mean(dim=0)
        return gradient, torch.as_tensor(value), votes > 0.5

    def _checkpoint(self, rows: _Ascent, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Where due, judge the progress, halve the step and go back; returns where to step from, and its gradient."""
        due = rows.since == rows.window
        if not due.any():
            return rows.current, gradient
        wavering = rows.rises <= _LEAST_RISES * rows.window
        stuck = ~rows.halved & (rows.peak_before >= rows.peak)
        halve = due & (wavering | stuck)
        rows.halved = torch.where(due, halve, rows.halved)
        rows.peak_before = torch.where(due, rows.peak, rows.peak_before)
        rows.stride = torch.where(halve, rows.stride / 2, rows.stride)
        rows.window = torch.where(due, (rows.window - self.narrowing).clamp_min(self.least_window), rows.window)
        rows.since, rows.rises = rows.since.masked_fill(due, 0), rows.rises.masked_fill(due, 0)
        back = per_image(halve, rows.current)
        return torch.where(back, rows.best, rows.current), torch.where(back, rows.slope, gradient)

    def _move(self, rows: _Ascent, here: Tensor, gradient: Tensor) -> Tensor:
        """A gradient step, pulled along the last move."""
        plain = ascend(here, rows.clean, gradient, self.norm, stride=rows.stride, radius=rows.radius)
        share = per_image(torch.where(rows.taken == 0, 1.0, _MOMENTUM), plain)
        pulled = here + share * (plain - here) + (1 - share) * (here - rows.previous)
        return within(pulled, rows.clean, self.norm, rows.radius)


@attack(
    "apgd-ce",
    norm="linf",
    norms=("linf", "l2"),
    kind="fixed",
    loss="any",
    access="gradient",
    cost="standard",
    tags=_TAGS,
    reference=_REFERENCE,
)
class APGDCE(APGD):
    """Auto-PGD on the cross entropy.

    Croce, Hein 2020, arXiv 2003.01690.

    Args:
        norm: ``linf`` or ``l2``.
        steps: Gradient steps.
        restarts: Random starts to try on an image that resists.
        eot: Passes over which gradient and loss are averaged, for models that are random.
    """

    def __init__(self, norm: Literal["linf", "l2"] = "linf", steps: int = 100, restarts: int = 1, eot: int = 1) -> None:
        super().__init__(norm, steps, restarts, eot)


@attack(
    "apgd-dlr",
    norm="linf",
    norms=("linf", "l2"),
    kind="fixed",
    access="gradient",
    cost="standard",
    tags=_TAGS,
    reference=_REFERENCE,
)
class APGDDLR(APGDCE):
    """Auto-PGD on the difference of logits ratio, which no rescaling of the logits can flatten.

    Croce, Hein 2020, arXiv 2003.01690. It needs three classes. Parameters as in ``apgd-ce``.
    """

    def loss(self, work: Work, rows: _Ascent) -> Callable[[Tensor, Tensor], Tensor]:
        """The difference of logits ratio."""
        return dlr


@attack(
    "apgd-t",
    norm="linf",
    norms=("linf", "l2"),
    kind="fixed",
    access="gradient",
    cost="standard",
    tags=_TAGS,
    reference=_REFERENCE,
)
class APGDT(APGD):
    """Auto-PGD towards each of the likeliest wrong classes in turn, on the targeted difference of logits ratio.

    Croce, Hein 2020, arXiv 2003.01690. It needs four classes.

    Args:
        norm: ``linf`` or ``l2``.
        steps: Gradient steps for each target.
        targets: Classes to aim at, likeliest first; at most all wrong ones.
        restarts: Random starts for each of them.
        eot: Passes over which gradient and loss are averaged, for models that are random.
    """

    def __init__(
        self,
        norm: Literal["linf", "l2"] = "linf",
        steps: int = 100,
        targets: int = 9,
        restarts: int = 1,
        eot: int = 1,
    ) -> None:
        super().__init__(norm, steps, restarts, eot)
        if targets < 1:
            raise GauntletError(f"apgd-t needs targets >= 1, got {targets}.")
        self.most_targets = targets

    def pursue(self, work: Work, items: Tensor) -> None:
        """One climb for each restart and target, of the items that resist."""
        if not len(items):
            return
        classes = work.victim.outputs(work.images[:1]).shape[1]
        work.spend(items[:1], 1)
        for trial in range(self.restarts * min(self.most_targets, classes - 1)):
            self.climb(work, items, trial)

    def targets(self, work: Work, items: Tensor, rows: Tries, restart: int) -> Tensor:
        """The wrong classes in turn, by the logits of the original image."""
        work.spend(items, 1)
        classes = wrong_classes(work.victim.outputs(rows.clean), rows.labels)
        return classes[:, restart % min(self.most_targets, classes.shape[1])]

    def loss(self, work: Work, rows: _Ascent) -> Callable[[Tensor, Tensor], Tensor]:
        """The targeted difference of logits ratio."""
        return lambda outputs, labels: targeted_dlr(outputs, labels, rows.target)


def wrong_classes(outputs: Tensor, labels: Tensor) -> Tensor:
    """The classes other than the label (N, classes - 1), likeliest first."""
    last = outputs.scatter(1, labels[:, None], -torch.inf)
    return last.argsort(dim=1, descending=True, stable=True)[:, :-1]
