"""Accuracy under attack: one job an attack, one cell an epsilon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...registry import Obstacle, Selected, evaluator
from ...results.records import PlannedCell
from ..jobs import Finished, Job, ModelRow, OODSet
from .attack_measures import attacked_targets, measure, measure_minimal, nothing_left
from .attack_plans import AttackingJob, plan_attack, unused_budgets
from .base import Evaluator
from .worst_case import worst_case_jobs

if TYPE_CHECKING:
    from ...datasets import ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..suite import Suite


#: Option of an attack on a reconstruction error: whether gradients flow through the reconstruction alone.
DETACH_TARGET = "detach_target"

#: Keys of a suite that say how attacks run, for evaluators that run them.
ATTACK_KEYS = ("epsilons", "attack_images", "examples")


@evaluator(
    "attack",
    title="Accuracy under attack",
    order=50,
    needs="logits",
    needs_keys=("attacks",),
    reads=(*ATTACK_KEYS, "worst_case"),
    default_with=("attacks",),
    metrics=("robust_accuracy", "attack_success_rate", "forwards", "backwards", "median_norm"),
    plots=("accuracy-epsilon", "robust-heatmap", "attacked-confusion", "adversarial-examples"),
)
class AttackEvaluator(Evaluator):
    """Attacks the images that the model gets right; clean errors count as errors."""

    version = 2  # labels beside predictions

    def left_out(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, Obstacle]]:
        """Attacks that are about reconstructions."""
        for attack in suite.attacks:
            if DETACH_TARGET in attack.options:
                yield (
                    attack.label,
                    f"detach_target is about reconstruction errors, and {model.label} is attacked by its logits",
                )

    def unused(self, suite: Suite) -> Iterator[str]:
        """Budgets and numbers of images of other attacks."""
        return unused_budgets(suite)

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> Sequence[Job]:
        """One job an attack, then the worst case of each norm."""
        jobs = [self._job(suite, row, attack) for attack in attacks_on_classes(suite)]
        return [*jobs, *worst_case_jobs(self, suite, row, jobs)]

    def _job(self, suite: Suite, row: ModelRow, attack: Selected) -> AttackJob:
        plan = plan_attack(suite, row, attack)
        cells = plan.cells(self, suite, row)
        return AttackJob(
            evaluator=self.name,
            row=row,
            label=attack.label,
            cells=cells,
            obstacles=plan.obstacles(cells),
            others=plan.others,
            attack=attack,
            images=plan.images,
        )


def attacks_on_classes(suite: Suite) -> list[Selected]:
    """The suite's attacks without those that are about reconstructions."""
    return [attack for attack in suite.attacks if DETACH_TARGET not in attack.options]


class AttackJob(AttackingJob):
    """Accuracy under one attack."""

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Run the attack at all epsilons, check every result, measure."""
        attacked = attacked_targets(self, context)
        if not len(attacked.y):
            yield from ((cell.key, nothing_left(attacked.targets)) for cell in cells)
            return
        # An attack without budgets has one cell, and any number stands for its budget.
        budgets = {cell.key: 1.0 if attacked.attack.kind == "other" else cell.identity.epsilon for cell in cells}
        given = {key: epsilon for key, epsilon in budgets.items() if epsilon is not None}
        for key, found in zip(given, attacked.at([*given.values()]), strict=True):
            yield key, measure(found, attacked, context.suite.examples)
        for key in budgets.keys() - given.keys():
            yield key, measure_minimal(attacked.smallest(), attacked.targets)
