"""PGD and its relatives: many small gradient steps, each projected back onto the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError, attack
from .budget import BudgetAttack, Tries, Work
from .losses import LossName, loss_named
from .norms import per_image
from .steps import ascend, displaced, random_offset

_DEFAULTS = {"linf": (40, 1 / 30), "l2": (50, 0.05), "l1": (50, 0.05)}


@dataclass
class Climb(Tries):
    """A climb: ``stride`` is the length of its steps (M,)."""

    stride: Tensor


@attack(
    "pgd",
    norm="linf",
    norms=("linf", "l2", "l1"),
    kind="fixed",
    loss="any",
    access="gradient",
    cost="fast",
    tags=("native", "white-box"),
    reference="Madry et al. 2017, arXiv 1706.06083",
)
class PGD(BudgetAttack):
    """Projected gradient descent; an image leaves as soon as it is fooled.

    Madry, Makelov, Schmidt, Tsipras, Vladu 2017, arXiv 1706.06083. Without a random start this is the basic iterative
    method of Kurakin, Goodfellow, Bengio 2016, arXiv 1607.02533. All epsilons share batches. In L1, steps are sparse
    (Tramèr, Boneh 2019, arXiv 1904.13000) and projected onto the ball and the box at once (Croce, Hein 2021, arXiv
    2103.01208).

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        steps: Gradient steps; by default 40 in Linf and 50 in L2 and L1.
        rel_stepsize: Length of a step in epsilons; by default 1/30 in Linf and 0.05 in L2 and L1, and 2.5 / steps where
            fewer steps than by default are made, so that they cross the ball as far (Madry et al.'s rule).
        random_start: Start from a point drawn uniformly in the ball.
        restarts: Random starts to try on an image that resists.
        stop_when_fooled: Whether an image leaves when it is fooled, as the image that did it; otherwise it goes all
            the way.
        loss: What is driven up: cross entropy (``xent``; the victim's own loss), ``margin`` or ``dlr``.
    """

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
        default_steps, default_stepsize = _DEFAULTS[norm]
        self.norm = norm
        self.steps = default_steps if steps is None else steps
        if rel_stepsize is None:
            rel_stepsize = default_stepsize if self.steps >= default_steps else 2.5 / max(self.steps, 1)
        self.rel_stepsize = rel_stepsize
        self.random_start = random_start
        self.restarts = restarts
        self.stop_when_fooled = stop_when_fooled
        self.loss = loss_named(loss)
        self._check()

    def _check(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise GauntletError(f"pgd needs steps >= 1 and restarts >= 1, got {self.steps} and {self.restarts}.")
        if not self.rel_stepsize > 0:
            raise GauntletError(f"pgd needs rel_stepsize > 0, got {self.rel_stepsize}.")
        if self.restarts > 1 and not self.random_start:
            raise GauntletError("pgd with restarts > 1 needs random_start: true, or every restart is the same.")

    def pursue(self, work: Work, items: Tensor) -> None:
        """Climb from every start; after each, go on with the items that resist."""
        for restart in range(self.restarts):
            work.search(
                work.resisting(items),
                load=lambda some, restart=restart: self.load(work, some, restart),  # type: ignore[misc]
                step=lambda rows: self._step(work, rows),
                backwards=1,
            )

    def load(self, work: Work, items: Tensor, restart: int) -> Climb:
        """Start some items: at their images, or at a random point of the ball."""
        fields = work.start(items)
        # In double precision first: a stride is the very number that rel_stepsize times epsilon gives.
        strides = torch.tensor([self.rel_stepsize * epsilon for epsilon in work.epsilons], device=items.device)
        rows = Climb(**fields, stride=strides[items // len(work.images)])
        if self.random_start:
            unit = random_offset(self.norm, work.draws(items), rows.clean.shape[1:], restart=restart)
            rows.current = displaced(rows.clean, per_image(rows.radius, unit) * unit, self.norm, rows.radius)
        return rows

    def _step(self, work: Work, rows: Climb) -> Tensor:
        gradient, outputs = work.victim.gradient(rows.current, rows.labels, self.loss)
        moved = self.move(rows, gradient)
        done = rows.taken + 1 >= self.steps
        if self.stop_when_fooled:
            fooled = work.victim.judge(outputs, rows.labels)
            moved[fooled] = rows.current[fooled]
            done |= fooled
        rows.current = moved
        return done

    def move(self, rows: Climb, gradient: Tensor) -> Tensor:
        """The next images."""
        return ascend(rows.current, rows.clean, gradient, self.norm, stride=rows.stride, radius=rows.radius)


@attack(
    "bim",
    norm="linf",
    norms=("linf", "l2", "l1"),
    kind="fixed",
    loss="any",
    access="gradient",
    cost="fast",
    tags=("native", "white-box"),
    reference="Kurakin et al. 2016, arXiv 1607.02533",
)
def bim(
    norm: Literal["linf", "l2", "l1"] = "linf",
    steps: int = 10,
    rel_stepsize: float = 0.2,
    stop_when_fooled: bool = True,
    loss: LossName = "xent",
) -> PGD:
    """Basic iterative method: projected gradient descent from the image itself, in few large steps."""
    return PGD(norm, steps, rel_stepsize, random_start=False, stop_when_fooled=stop_when_fooled, loss=loss)
