"""What a run takes from the store, and why it may: nothing that is damaged, and nothing of a model that has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

import torch

from ..results.examples import damaged_examples
from ..results.records import PlannedCell
from ..results.store import Store
from .context import Resources, RowContext
from .failures import failure
from .jobs import Job, ModelRow
from .plan import Plan
from .probe import TOLERANCE, differs

#: Name under which the store keeps the probe outputs of a model, beside its cells.
PROBE = "probe-outputs"


class Reuse:
    """Looks at the stored cells of a plan before they are shown as results; what must not be is taken out.

    Args:
        plan: What is about to run.
        store: Where results are.
        resources: Load the models.

    Attributes:
        reasons: For each row with stored cells, why these may be used.
    """

    def __init__(self, plan: Plan, store: Store, resources: Resources) -> None:
        self._plan, self._store, self._resources = plan, store, resources
        self.reasons: dict[str, str] = {}

    def verify(self, force: str = "") -> Iterator[str]:
        """Take out what is damaged, forced or of another model; yields what a user should read."""
        yield from self._drop(self._damaged(), "damaged in the store")
        if force:
            forced = {cell.key for cell in self._plan.cells if picks(force, cell)}
            yield from self._drop(forced, f"forced by {force!r}")
        for row in self._rows():
            if why := self._changed(row):
                keys = {cell.key for job in self._plan.jobs if row in (job.row, *job.others) for cell in job.cells}
                yield from self._drop(keys, f"{row.name}: {why}")
        if stored := self._stored(self._plan.cells):
            how = ", ".join(f"{number} {reason}" for reason, number in Counter(self.reasons.values()).items())
            yield f"{len(stored)} cells are from the store: source, settings and data are the same (models: {how})."

    def _drop(self, keys: Iterable[str], why: str) -> Iterator[str]:
        found = self._stored([cell for cell in self._plan.cells if cell.key in set(keys)])
        self._store.forget(found)
        if found:
            yield f"{len(found)} cells are computed again: {why}."

    def _stored(self, cells: Iterable[PlannedCell]) -> list[str]:
        statuses = self._store.statuses([cell.key for cell in cells])
        return [key for key, status in statuses.items() if status == "ok"]

    def _damaged(self) -> set[str]:
        keys = self._stored(self._plan.cells)
        return {*self._store.damaged(keys), *damaged_examples(self._store.path.parent)}

    def _rows(self) -> list[ModelRow]:
        """The rows of jobs that have stored cells, and of the other models that these took."""
        stored = set(self._stored(self._plan.cells))
        jobs: list[Job] = [job for job in self._plan.jobs if any(cell.key in stored for cell in job.cells)]
        return list({(row.key, row.name): row for job in jobs for row in (job.row, *job.others)}.values())

    def _changed(self, row: ModelRow) -> str:
        """What differs between a model and the one that its stored cells are of; nothing where they may be used."""
        before = None if self._store.damaged([row.key]) else self._store.arrays(row.key).get(PROBE)
        where = f"{row.name}, seed {row.seed}"
        if before is None or row.obstacle or not self._resources.models.ready(row.model, row.dataset, row.seed):
            self.reasons[where] = "not verified, as their outputs or weights are not at hand"
            return ""
        context = RowContext(row, self._plan.suite, self._resources)
        try:
            outputs = context.probe_outputs()
        except (Exception, SystemExit) as error:
            if (found := failure(error, row.model.label)).status != "failed":
                self.reasons[where] = f"not verified: {found.reason}"
                return ""
            return f"the model cannot be made any more ({found.reason.rstrip('.')})"
        if differs(outputs, torch.from_numpy(before)):
            return "its outputs have changed, though no source, setting or data did"
        self.reasons[where] = f"verified by outputs within {TOLERANCE:g}"
        return ""


def picks(pattern: str, cell: PlannedCell) -> bool:
    """Whether a glob picks the label of a cell's model, detector, attack or evaluator."""
    one = cell.identity
    return any(fnmatchcase(label, pattern) for label in (one.model, one.detector, one.attack, one.evaluator) if label)
