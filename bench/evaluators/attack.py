"""Accuracy under attack: one job an attack, one cell an epsilon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...registry import Selected
from .attack_measures import attacked_targets, measure, measure_minimal, nothing_left
from .attack_plans import AttackPlan, plan_attack
from .base import Evaluator, Finished, examples_key
from .worst_case import run_worst_case, worst_case_jobs

if TYPE_CHECKING:
    from ...datasets import ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..plan import Job, OODSet, Row
    from ..suite import Suite


#: Option of an attack on a reconstruction error: whether gradients flow through the reconstruction alone.
DETACH_TARGET = "detach_target"


class AttackEvaluator(Evaluator):
    """Attacks the images that the model gets right; clean errors count as errors."""

    name = "attack"
    version = 2  # labels beside predictions

    def misfits(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, str]]:
        """The evaluator itself, or attacks that are about reconstructions."""
        whole = list(super().misfits(suite, model, dataset))
        yield from whole or (
            (attack.label, f"detach_target is about reconstruction errors, and {model.label} is attacked by its logits")
            for attack in suite.attacks
            if DETACH_TARGET in attack.options
        )

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job an attack, then the worst case of each norm."""
        jobs = [self._job(suite, row, attack) for attack in attacks_on_classes(suite)]
        return [*jobs, *worst_case_jobs(self, suite, row, jobs)]

    def _job(self, suite: Suite, row: Row, attack: Selected) -> Job:
        from ..plan import Job

        plan = plan_attack(suite, row, attack)
        cells = tuple(
            self.cell(
                row,
                plan.content,
                "minimal" if epsilon is None else epsilon,
                row.seed,
                plan.images,
                *examples_key(suite),
                facts={"norm": plan.norm},
                params=plan.params,
                attack=attack.label,
                epsilon=epsilon,
            )
            for epsilon in budgets(suite, attack, plan.norm)
        )
        blocked = {cell.key: reason for cell in cells if (reason := impossible(plan, cell.identity.epsilon))}
        payload = {"attack": attack, "images": plan.images}
        return Job(self.name, row, attack.label, cells, payload, blocked, plan.others)

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Run the attack at all missing epsilons, check every result, measure."""
        if "parts" in job.payload:
            yield from run_worst_case(job, missing, bench)
            return
        cells = [cell for cell in job.cells if cell.key in missing]
        attacked = attacked_targets(job, bench)
        if not len(attacked.y):
            yield from ((cell.key, nothing_left(attacked.targets)) for cell in cells)
            return
        # An attack without budgets has one cell, and any number stands for its budget.
        budgets = {cell.key: 1.0 if attacked.attack.kind == "other" else cell.identity.epsilon for cell in cells}
        given = {key: epsilon for key, epsilon in budgets.items() if epsilon is not None}
        for key, found in zip(given, attacked.at([*given.values()]), strict=True):
            yield key, measure(found, attacked, bench.suite.examples)
        for key in budgets.keys() - given.keys():
            yield key, measure_minimal(attacked.smallest(), attacked.targets)


def attacks_on_classes(suite: Suite) -> list[Selected]:
    """The suite's attacks without those that are about reconstructions."""
    return [attack for attack in suite.attacks if DETACH_TARGET not in attack.options]


def budgets(suite: Suite, attack: Selected, norm: str) -> tuple[float | None, ...]:
    """The attack's own budgets, or those of the suite; None for the smallest that succeeds."""
    from ..suite import parse_epsilons

    if attack.entry.meta.get("kind") == "other":
        return (None,)
    given = attack.options.get("epsilons")
    if given is None:
        return suite.budgets(norm)
    return parse_epsilons(given if isinstance(given, (list, tuple)) else [given], f"attack {attack.label!r}")


def impossible(plan: AttackPlan, epsilon: float | None) -> str:
    """Why a cell cannot be computed, in one sentence, or nothing."""
    if plan.norm == "l0" and epsilon is not None and epsilon != int(epsilon):
        return f"Attack {plan.attack.label!r}: an L0 epsilon must be a whole number of pixels, got {epsilon:g}."
    return plan.blocked
