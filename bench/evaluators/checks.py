"""Whether robust figures can be believed: the sanity checks of every attacked model, one cell a check.

Carlini et al. 2019, arXiv 1902.06705; Croce & Hein 2020, arXiv 2003.01690 (AutoAttack's flags); Pintor et al. 2021,
arXiv 2106.09947 (indicators of attack failure).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...registry import GauntletError, evaluator
from ...results.records import CellResult, Measurement, PlannedCell
from ..jobs import Finished, Job, ModelRow, OODSet
from . import checks_model as model
from . import checks_stored as stored
from .attack import AttackJob
from .base import Evaluator, build_evaluator
from .check_context import AttackRun, Check, CheckContext, CheckResult, NotApplicable

if TYPE_CHECKING:
    from ..context import RowContext
    from ..suite import Suite

#: Every check by name, in the order of the table; those of FULL run with ``checks: full`` only.
CHECKS: dict[str, Check] = {
    "valid-outputs": stored.valid_outputs,
    "deterministic": model.deterministic,
    "logits": model.logits,
    "varied-answers": model.varied_answers,
    "gradients": model.gradients,
    "finite-gradients": model.finite_gradients,
    "work-done": stored.work_done,
    "monotone": stored.monotone,
    "chance-at-large-budget": model.chance_at_large_budget,
    "iterative-wins": stored.iterative_wins,
    "converged": model.converged,
    "best-iterate": model.best_iterate,
    "black-box-loses": stored.black_box_loses,
    "noise-loses": model.noise_loses,
    "transfer-loses": model.transfer_loses,
    "worst-case": stored.worst_case,
    "smooth-loss": model.smooth_loss,
    "intact-graph": model.intact_graph,
    "class-count": model.class_count,
    "clean-at-zero": model.clean_at_zero,
}
FULL = frozenset(
    {"converged", "best-iterate", "noise-loses", "transfer-loses", "smooth-loss", "intact-graph", "class-count"}
)
#: Checks that look at the model alone, whatever became of the attacks.
NEEDS_NO_ATTACK = frozenset(
    {
        *("deterministic", "logits", "varied-answers", "gradients", "finite-gradients"),
        *("smooth-loss", "intact-graph", "class-count"),
    }
)


@evaluator(
    "checks",
    title="Sanity checks",
    order=70,
    needs="logits",
    reads=("checks",),
    default_with=("attacks", "checks"),
    metrics=("check_passed", "check_figure"),
)
class Checks(Evaluator):
    """Derived from the stored arrays of a row's attacks, and from a few passes of its model."""

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[CheckJob]:
        """One job a row, one cell a check; the column ``attack`` holds the check's name."""
        planned = build_evaluator("attack").plan(suite, row, ()) if "attack" in suite.evaluators else []
        attacks = [job for job in planned if isinstance(job, AttackJob)]
        others = _others(suite, row) if suite.checks == "full" else ()
        basis = [[cell.key for job in attacks for cell in job.cells], [other.key for other in others]]
        names = [name for name in CHECKS if suite.checks == "full" or name not in FULL]
        cells = tuple(self.cell(row, name, basis, params={"check": name}, attack=name, role="check") for name in names)
        return [CheckJob(evaluator=self.name, row=row, label=self.name, cells=cells, attacks=attacks, models=others)]


@dataclass(frozen=True, kw_only=True)
class CheckJob(Job):
    """Looks at the stored results of ``attacks``, at the row's model, and at other ``models`` on the same data."""

    attacks: Sequence[AttackJob]
    models: Sequence[ModelRow]

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Look at everything that is there; without it all, only a failure counts."""
        evidence, unfinished = gather(self, context)
        for cell in cells:
            name = cell.identity.attack
            yield cell.key, _looked_at(CHECKS[name], evidence, 0 if name in NEEDS_NO_ATTACK else unfinished)


def _looked_at(check: Check, evidence: CheckContext, unfinished: int) -> CellResult:
    try:
        found = check(evidence)
    except NotApplicable as lacking:
        found = CheckResult(None, f"Not applicable: {lacking}")
    except GauntletError as error:
        return CellResult(status="failed", reason=str(error))
    if found.passed is not False and unfinished:
        cells = f"{unfinished} attack {'cell' if unfinished == 1 else 'cells'} failed"
        return CellResult(status="skipped", reason=f"Cannot be judged: {cells}; so far: {found.text}")
    figures = {"check_passed": found.passed, "check_figure": found.figure}
    measured = (Measurement(name, float(value)) for name, value in figures.items() if value is not None)
    return CellResult(measurements=tuple(measured), reason=found.text)


def gather(job: CheckJob, context: RowContext) -> tuple[CheckContext, int]:
    """The evidence in the store, and how many cells of attacks should be there and are not."""
    runs, failures, unfinished = [], [], 0
    for source in job.attacks:
        chosen = source.attack
        for cell in source.cells:
            result = context.stored(cell.key)
            if result is None or result.status not in ("ok", "skipped"):
                unfinished += 1
            if result is not None and result.status != "skipped":
                run = AttackRun(chosen.label, chosen.entry, cell.facts.norm, cell.identity.epsilon, result)
                if result.status != "ok":
                    failures.append(run)
                elif "success" in result.arrays:
                    runs.append(run)
    return CheckContext(job.row, context, runs, failures, job.models), unfinished


def _others(suite: Suite, row: ModelRow) -> tuple[ModelRow, ...]:
    others = [model for model in suite.model_specs if model.label != row.model.label]
    fitting = [model for model in others if not model.obstacle(row.dataset)]
    rows = [ModelRow.of(model, row.dataset, row.seed) for model in fitting]
    return tuple(other for other in rows if not other.obstacle)
