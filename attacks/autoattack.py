"""AutoAttack: strong attacks of different kinds in a cascade, without parameters to tune."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..registry import attack
from .apgd import APGDCE, APGDDLR, APGDT
from .budget import BudgetAttack, Work
from .fab import FABT
from .square import Square

Lp = Literal["linf", "l2"]
Version = Literal["standard", "fast", "rand"]


@attack(
    "autoattack",
    norm="linf",
    norms=("linf", "l2"),
    kind="fixed",
    access="gradient",
    cost="full",
    tags=("native", "white-box", "cascade"),
    reference="Croce, Hein 2020, arXiv 2003.01690",
)
class AutoAttack(BudgetAttack):
    """A cascade in which each attack sees only the images that the ones before could not fool.

    Croce, Hein 2020, arXiv 2003.01690. ``standard`` is apgd-ce, apgd-t, fab-t and square at full length; ``fast``
    the same at a quarter of the steps, three targets and 1,000 queries; ``rand``, for models that are random,
    apgd-ce and apgd-dlr with gradients averaged over 20 passes. With three classes or fewer apgd-dlr (or, with two,
    nothing) takes the place of apgd-t.

    Args:
        norm: ``linf`` or ``l2``.
        version: ``standard``, ``fast`` or ``rand``.
    """

    def __init__(self, norm: Lp = "linf", version: Version = "standard") -> None:
        self.norm, self.lp, self.version = norm, norm, version

    def parts(self, classes: int) -> tuple[BudgetAttack | FABT, ...]:
        """The attacks of the cascade against a model of that many classes."""
        norm = self.lp
        if self.version == "rand":
            return APGDCE(norm, eot=20), *((APGDDLR(norm, eot=20),) if classes > 2 else ())
        steps, targets, queries = (25, 3, 1000) if self.version == "fast" else (100, 9, 5000)
        ratio: tuple[BudgetAttack, ...] = ()
        if classes > 3:
            ratio = (APGDT(norm, steps, targets),)
        elif classes == 3:
            ratio = (APGDDLR(norm, steps),)
        return APGDCE(norm, steps), *ratio, FABT(norm, steps, targets), Square(norm, queries)

    def pursue(self, work: Work, items: Tensor) -> None:
        """Run the cascade."""
        if not len(items):
            return
        classes = work.victim.outputs(work.images[:1]).shape[1]
        work.spend(torch.as_tensor(items[:1]), 1)
        for part in self.parts(classes):
            part.pursue(work, work.resisting(items))
