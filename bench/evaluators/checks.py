"""Whether robust figures can be believed: the sanity checks of every attacked model, one cell a check.

Carlini et al. 2019, arXiv 1902.06705; Croce & Hein 2020, arXiv 2003.01690 (AutoAttack's flags); Pintor et al. 2021,
arXiv 2106.09947 (indicators of attack failure).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...registry import GauntletError, Selected
from ...results.records import CellResult, Measurement
from . import checks_model as model
from . import checks_stored as stored
from .attack import AttackEvaluator
from .base import Evaluator, Finished
from .check_context import AttackRun, Check, CheckContext, CheckResult, NotApplicable

if TYPE_CHECKING:
    from ..context import RowContext
    from ..plan import Job, OODSet, Row
    from ..suite import Suite

#: Every check by name, in the order of the table; those of FULL run with ``checks: full`` only.
CHECKS: dict[str, Check] = {
    "valid-outputs": stored.valid_outputs,
    "deterministic": model.deterministic,
    "logits": model.logits,
    "varied-answers": model.varied_answers,
    "gradients": model.gradients,
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
    {"deterministic", "logits", "varied-answers", "gradients", "smooth-loss", "intact-graph", "class-count"}
)


class Checks(Evaluator):
    """Derived from the stored arrays of a row's attacks, and from a few passes of its model."""

    name = "checks"

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job a row, one cell a check; the column ``attack`` holds the check's name."""
        from ..plan import Job

        planned = AttackEvaluator().plan(suite, row, ()) if "attack" in suite.evaluators else []
        jobs = [job for job in planned if "attack" in job.payload]
        others = _others(suite, row) if suite.checks == "full" else ()
        basis = [[cell.key for job in jobs for cell in job.cells], [other.key for other in others]]
        names = [name for name in CHECKS if suite.checks == "full" or name not in FULL]
        cells = tuple(
            self.cell(row, name, basis, facts={}, params={"check": name}, attack=name, role="check") for name in names
        )
        return [Job(self.name, row, "checks", cells, {"jobs": jobs, "others": others})]

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Look at everything that is there; without it all, only a failure counts."""
        evidence, unfinished = gather(job, bench)
        for cell in job.cells:
            if cell.key not in missing:
                continue
            name = cell.identity.attack
            yield cell.key, _looked_at(CHECKS[name], evidence, 0 if name in NEEDS_NO_ATTACK else unfinished)


def _looked_at(check: Check, evidence: CheckContext, unfinished: int) -> CellResult:
    try:
        verdict = check(evidence)
    except NotApplicable as lacking:
        verdict = CheckResult(None, f"Not applicable: {lacking}")
    except GauntletError as error:
        return CellResult(status="failed", reason=str(error))
    if verdict.passed is not False and unfinished:
        cells = f"{unfinished} attack {'cell' if unfinished == 1 else 'cells'} failed"
        return CellResult(status="skipped", reason=f"Cannot be judged: {cells}; so far: {verdict.text}")
    figures = {"check_passed": verdict.passed, "check_figure": verdict.figure}
    measured = (Measurement(name, float(value)) for name, value in figures.items() if value is not None)
    return CellResult(measurements=tuple(measured), reason=verdict.text)


def gather(job: Job, bench: RowContext) -> tuple[CheckContext, int]:
    """The evidence in the store, and how many cells of attacks should be there and are not."""
    trials, failures, unfinished = [], [], 0
    for source in job.payload["jobs"]:
        chosen: Selected = source.payload["attack"]
        for cell in source.cells:
            result = bench.stored(cell.key)
            if result is None or result.status not in ("ok", "skipped"):
                unfinished += 1
            if result is not None and result.status != "skipped":
                trial = AttackRun(chosen.label, chosen.entry, cell.facts.norm, cell.identity.epsilon, result)
                if result.status != "ok":
                    failures.append(trial)
                elif "success" in result.arrays:
                    trials.append(trial)
    return CheckContext(job.row, bench, trials, failures, job.payload["others"]), unfinished


def _others(suite: Suite, row: Row) -> tuple[Row, ...]:
    from ..plan import make_row, misfit

    fitting = [
        model for model in suite.model_specs if model.label != row.model.label and not misfit(model, row.dataset)
    ]
    rows = [make_row(model, row.dataset, row.seed) for model in fitting]
    return tuple(other for other in rows if not other.blocked)
