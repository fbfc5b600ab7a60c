"""AutoAttack: strong attacks of different kinds in a cascade, without parameters to tune."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..registry import GauntletError
from .apgd import APGDCE, APGDDLR, APGDT
from .budget import BudgetAttack, SearchBatch
from .fab import FABT
from .losses import lacking_classes
from .native import native
from .square import Square

Lp = Literal["linf", "l2", "l1"]
Version = Literal["standard", "fast", "rand"]


@native(
    "autoattack",
    "linf",
    "l2",
    "l1",
    reference="Croce, Hein 2020, arXiv 2003.01690; in L1: 2021, arXiv 2103.01208",
    cost="full",
    tags=("cascade",),
    few={"version": "fast"},
)
class AutoAttack(BudgetAttack):
    """A cascade in which each attack sees only the images that the ones before could not fool.

    Croce, Hein 2020, arXiv 2003.01690. ``standard`` is apgd-ce, apgd-t, fab-t and square; ``fast`` the same with
    fewer steps, targets and queries unless they are given; ``rand``, for models that are random,
    apgd-ce and apgd-dlr with gradients averaged over 20 passes. In L1 the standard version has five starts of apgd-ce
    and five targets of apgd-t, as the authors' code. With three classes apgd-dlr takes the place of
    apgd-t, with two nothing does.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        version: ``standard``, ``fast`` or ``rand``.
        steps: Steps of the gradient attacks; by default 100, of ``fast`` 25.
        targets: Classes that apgd-t and fab-t aim at; by default 9, of ``fast`` 3.
        queries: Queries of square; by default 5000, of ``fast`` 1000.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self,
        norm: Lp = "linf",
        version: Version = "standard",
        steps: int | None = None,
        targets: int | None = None,
        queries: int | None = None,
    ) -> None:
        given, defaults = (steps, targets, queries), (25, 3, 1000) if version == "fast" else (100, 9, 5000)
        chosen = [default if value is None else value for value, default in zip(given, defaults, strict=True)]
        self.norm, self.lp, self.version = norm, norm, version
        self.steps, self.targets, self.queries = chosen
        if min(chosen) < 1:
            raise GauntletError(
                "autoattack needs steps, targets and queries >= 1, got "
                f"{self.steps}, {self.targets} and {self.queries}."
            )

    def parts(self, classes: int) -> tuple[BudgetAttack | FABT, ...]:
        """The attacks of the cascade against a model of that many classes."""
        norm, steps = self.lp, self.steps
        if self.version == "rand":
            return APGDCE(norm, steps, eot=20), *((APGDDLR(norm, steps, eot=20),) if classes > 2 else ())
        ratio: tuple[BudgetAttack, ...] = ()
        if classes > 3:
            ratio = (APGDT(norm, steps, min(self.targets, 5) if norm == "l1" else self.targets),)
        elif classes == 3:
            ratio = (APGDDLR(norm, steps),)
        starts = 5 if norm == "l1" and self.version == "standard" else 1
        return APGDCE(norm, steps, starts), *ratio, FABT(norm, steps, self.targets), Square(norm, self.queries)

    def left_out(self, classes: int) -> dict[str, str]:
        """The parts whose loss needs more classes; with three, apgd-dlr takes the place of apgd-t."""
        name, loss = ("apgd-dlr", "dlr") if self.version == "rand" else ("apgd-t", "targeted dlr")
        reason = lacking_classes(loss, classes)
        return {name: reason} if reason else {}

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """Run the cascade."""
        if not len(items):
            return
        classes = batch.victim.outputs(batch.images[:1]).shape[1]
        batch.count_queries(items[:1], 1)
        for part in self.parts(classes):
            part.search(batch, batch.unsolved(items))
