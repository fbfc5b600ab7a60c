"""Conditions of test images that a suite crosses an evaluator with: as they are, corrupted, or attacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...datasets.corruptions import obstacle
from ...registry import Obstacle, Selected, source_fingerprint
from .attack import attacks_on_classes
from .attack_measures import attacked_targets
from .attack_plans import AttackingJob, AttackPlan, plan_attack
from .corruption import levels

if TYPE_CHECKING:
    from ...detectors import Outputs
    from ..context import RowContext
    from ..jobs import Job, ModelRow
    from ..suite import Suite


@dataclass(frozen=True)
class Condition:
    """What was done to test images.

    Attributes:
        content: What the key of a cell about it covers.
        where: Its coordinates: ``corruption`` and ``severity``, or ``attack`` and ``epsilon``.
        params: What the column ``params`` says.
        facts: What the cell knows beside its coordinates.
        corruption: What corrupts them.
        attack: What attacks them.
    """

    content: tuple[Any, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    corruption: Selected | None = None
    attack: AttackPlan | None = None

    @property
    def obstacle(self) -> Obstacle:
        """Why these images cannot be made here."""
        return "" if self.attack is None else self.attack.obstacle

    def outputs(self, job: Job, context: RowContext, needs: frozenset[str]) -> Outputs:
        """Outputs of the model of a job's row on these images: from the cache where nothing was done to them.

        Those of corrupted images that hold logits alone are kept, for every evaluator that looks at them.
        """
        dataset = job.row.dataset
        if self.attack is not None:
            assert isinstance(job, AttackingJob)
            return attacked_targets(job, context).outputs(self.where["epsilon"])
        if self.corruption is None:
            return context.outputs(dataset, "test")
        needs |= {"logits"}

        def make() -> Outputs:
            assert self.corruption is not None
            images = context.corrupted(dataset, self.corruption, self.where["severity"])
            return context.outputs_of(images, needs)

        key = ("corrupted", self.corruption.label, self.where["severity"])
        return context.once(key, make) if needs == {"logits"} else make()


CLEAN = Condition()


def conditions(suite: Suite, row: ModelRow, evaluator: str) -> list[list[Condition]]:
    """What a suite crosses an evaluator with: all that is not attacked, then what each attack makes."""
    corrupted = _corrupted(suite, row) if (evaluator, "corruptions") in suite.cross else ()
    attacks = attacks_on_classes(suite) if (evaluator, "attacks") in suite.cross else ()
    attacked = [list(_attacked(plan_attack(suite, row, attack))) for attack in attacks]
    return [[CLEAN, *corrupted], *filter(None, attacked)]


def _corrupted(suite: Suite, row: ModelRow) -> Iterator[Condition]:
    for chosen in suite.corruptions:
        if obstacle(chosen.entry, row.dataset.shape):
            continue
        parameters = {**chosen.entry.defaults(), **chosen.parameters}
        content = [chosen.entry.name, parameters, source_fingerprint(chosen.entry)]
        described = {"corruption": {"name": chosen.entry.name, **parameters}}
        for level in levels(suite, chosen):
            where = {"corruption": chosen.label, "severity": level}
            yield Condition((content, level), where, described, corruption=chosen)


def _attacked(plan: AttackPlan) -> Iterator[Condition]:
    """One for each budget; none where the smallest that succeeds is looked for."""
    common = Condition(params=plan.params, facts={"norm": plan.norm}, attack=plan)
    for epsilon in plan.epsilons:
        if epsilon is not None:
            where = {"attack": plan.attack.label, "epsilon": epsilon}
            yield replace(common, content=(plan.content, epsilon, plan.images), where=where)


def attack_facts(plan: AttackPlan) -> dict[str, Any]:
    """What an :class:`AttackingJob` takes beside what every job takes."""
    return {"others": plan.others, "attack": plan.attack, "images": plan.images}
