"""One pass over the jobs of a plan: every missing cell is computed once, stored at once, and fails alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch

from ..registry import GauntletError
from ..registry.folders import cache_folder
from ..results.examples import write_examples
from ..results.journal import JournalStore
from ..results.records import CellResult, PlannedCell
from ..results.store import Store
from ..results.trackers import Sink
from .context import Resources, RowContext
from .failures import alarm_held, failure, out_of_memory, time_limit
from .guard import global_state
from .jobs import Job, ModelRow
from .leaks import require_unseen
from .plan import Plan, groups
from .reuse import PROBE, Reuse


class Reporter:
    """Receives the events of a run; this one says nothing, subclasses show them."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def start(self, plan: Plan, cached: int) -> None:
        """The run begins; ``cached`` cells are in the store already."""

    def job(self, job: Job, cells: int) -> None:
        """A job begins that will compute so many cells."""

    def computing(self, job: Job, cells: Sequence[PlannedCell]) -> None:
        """The models that these cells of a job need are there: now they are computed."""

    def training(self, model: str, done: int, total: int, figures: dict[str, Any]) -> None:
        """A batch of a training is done."""

    def cell(self, key: str, result: CellResult) -> None:
        """A cell has its result."""

    def note(self, text: str) -> None:
        """Something the user should read."""


class Execution:
    """One pass over the jobs of a plan.

    Args:
        plan: What to compute.
        store: Where results go; cells that are there with status ok are not computed again.
        run_id: The run they belong to.
        device: Where to compute.
        reporter: Is told what happens.
        sinks: Told of every training, beside the store.
        force: Cells with a label that this glob picks are computed again; none where it is empty.
        alone: Keys of cells that may end the process: each is computed for itself.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store | JournalStore,
        run_id: str,
        device: torch.device,
        reporter: Reporter,
        sinks: Sequence[Sink] = (),
        force: str = "",
        alone: Collection[str] = (),
    ) -> None:
        self._plan, self._store, self._run_id, self._device = plan, store, run_id, device
        self._reporter, self._force, self._alone = reporter, force, alone
        self._avoided: set[str] = set()
        self._batch_sizes: dict[str, int] = {}
        self._sinks = (store.put_history, *sinks)
        self._told: set[str] = set()
        self.counts: dict[str, int] = {}
        self.reused: dict[str, str] = {}
        self._resources = Resources(
            device,
            cache_folder(),
            on_training=reporter.training,
            on_history=self._keep_history,
            on_note=reporter.note,
            keep_outputs=store.has_file,
        )

    def run(self) -> None:
        """Compute every missing cell, row by row, but for those that ended the process of an earlier run."""
        self.verify()
        self._avoid()
        for jobs in groups(self._plan):
            self.run_group(jobs)

    def verify(self) -> None:
        """Take out of the store what must not be shown as a result, and say what is ahead."""
        assert isinstance(self._store, Store)
        reuse = Reuse(self._plan, self._store, self._resources)
        for note in reuse.verify(self._force):
            self._reporter.note(note)
        self.reused = reuse.reasons
        done = self._finished(self._plan.cells)
        self._count("cached", sum(cell.key in done for cell in self._plan.cells))
        self._reporter.start(self._plan, len(done))
        self._tell_notes()

    def _avoid(self) -> None:
        assert isinstance(self._store, Store)
        self._avoided = self._store.crashed(cell.key for cell in self._plan.cells)
        if self._avoided:
            self._count("failed", len(self._avoided))
            self._reporter.note(
                f"{len(self._avoided)} cells ended their process in an earlier run and are left alone here; "
                "--isolate tries them again, each in a process of its own."
            )

    def train(self) -> None:
        """Train the models of every row, without evaluating them."""
        self._tell_notes()
        rows = {(row.key, row.name): row for job in self._plan.jobs for row in (job.row, *job.others)}
        for row in rows.values():
            if row.obstacle:
                self._reporter.note(f"{row.name}: {row.obstacle}")
                continue
            try:
                with global_state():
                    self._context(row).module()
            except (Exception, SystemExit) as error:  # of any kind: the model may be the user's own
                self._count("failed")
                self._reporter.note(f"{row.name}: {failure(error, row.model.label).reason}")
            else:
                self._count("ok")

    def _context(self, row: ModelRow, needs: Iterable[str] = ()) -> RowContext:
        return RowContext(row, self._plan.suite, self._resources, needs, self._store.result)

    # -- jobs -------------------------------------------------------------------------------------------------

    def run_group(self, jobs: Sequence[Job]) -> None:
        """Run the jobs of one row in a context of their own, which is gone afterwards."""
        missing = [(job, self._missing(job)) for job in jobs]
        needs = {need for job, cells in missing for need in job.needs(cells)}
        context = self._context(jobs[0].row, needs)
        for together in _sharing(jobs):
            for job in together:
                self._skip_impossible(job)
                self._run_job(job, context)
            context.forget(together[0].shared)
        if taken := context.features_taken():
            self._reporter.note(f"{context.row.name}: features are the {taken}.")
        if (probe := context.probe()) is not None:
            self._store.put_arrays(context.row.key, {PROBE: probe.numpy()})

    def _run_job(self, job: Job, context: RowContext) -> None:
        """Try until every cell has a result; where memory runs out, again with batches of half the size."""
        missing = self._missing(job)
        if missing:
            self._reporter.job(job, len(missing))
        context.batch_size = self._batch_sizes.get(job.label, self._plan.suite.batch_size)
        together = [cell for cell in missing if cell.key not in self._alone]
        for cells in ([together] if together else []) + [[cell] for cell in missing if cell.key in self._alone]:
            self._run_cells(job, cells, context)
        context.batch_size = self._plan.suite.batch_size

    def _run_cells(self, job: Job, missing: Sequence[PlannedCell], context: RowContext) -> None:
        wanted = {cell.key for cell in missing}
        while missing and (error := self._attempt(job, missing, context)) is not None:
            missing = [cell for cell in self._missing(job) if cell.key in wanted]
            if not out_of_memory(error) or context.batch_size == 1:
                self._fail(job, missing, error)
                break
            context.batch_size = self._batch_sizes[job.label] = context.batch_size // 2
            self._reporter.note(f"{job.label}: out of memory, trying again with batches of {context.batch_size}.")

    def _attempt(self, job: Job, missing: Sequence[PlannedCell], context: RowContext) -> BaseException | None:
        """Run a job and store its cells as they finish; returns what stopped it, if anything did."""
        limit, started, left = self._plan.suite.timeout, time.perf_counter(), {cell.key for cell in missing}
        try:
            if limit is not None or isinstance(self._store, JournalStore):
                for row in (job.row, *job.others):
                    context.module_of(row)  # training has no part in the limit of a job
            context.remarks.clear()
            require_unseen(job.row.dataset, context)
            always = [*context.remarks]
            self._reporter.computing(job, missing)
            with time_limit(limit), contextlib.closing(context.guarded(job, missing)) as finished:
                for key, result in finished:
                    now = time.perf_counter()
                    if result.status == "ok" and context.remarks:
                        result = replace(result, reason=" ".join(filter(None, (result.reason, *context.remarks))))
                    context.remarks[:] = always
                    with alarm_held():
                        self._put(job.row, key, replace(result, seconds=result.seconds or now - started))
                    left.discard(key)
                    started = now
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also the SystemExit of a component that ends its program
            return error
        if left:
            sentence = f"{job.label}: the evaluator {job.evaluator!r} left {len(left)} cells without a result."
            return GauntletError(sentence)
        return None

    def _fail(self, job: Job, missing: Iterable[PlannedCell], error: BaseException) -> None:
        result = failure(error, job.label, limit=self._plan.suite.timeout)
        for cell in missing:
            self._put(job.row, cell.key, result)

    def _skip_impossible(self, job: Job) -> None:
        for cell in job.cells:
            if reason := job.obstacle(cell):
                self._put(job.row, cell.key, CellResult(status="skipped", reason=reason))

    # -- the store --------------------------------------------------------------------------------------------

    def _missing(self, job: Job) -> list[PlannedCell]:
        """Cells that are neither in the store nor impossible (those are recorded by ``_skip_impossible``)."""
        finished = self._finished(job.cells) | self._avoided
        return [cell for cell in job.cells if cell.key not in finished and not job.obstacle(cell)]

    def _finished(self, cells: Iterable[PlannedCell]) -> set[str]:
        return self._store.settled(cell.key for cell in cells)

    def _put(self, row: ModelRow, key: str, result: CellResult) -> None:
        self._store.put(self._run_id, key, replace(result, device=str(self._device)))
        if result.examples:
            write_examples(self._store.path.parent, (row.model.label, row.dataset.label), key, result.examples)
        self._count(result.status)
        self._reporter.cell(key, result)

    def _count(self, status: str, number: int = 1) -> None:
        if number:
            self.counts[status] = self.counts.get(status, 0) + number

    # -- what is told -----------------------------------------------------------------------------------------

    def _tell_notes(self) -> None:
        for note in self._plan.notes:
            self._reporter.note(note)

    def _keep_history(self, key: str, label: str, rows: list[dict[str, Any]]) -> None:
        """Once each, under the first label: a row's own rather than that of a member of an ensemble."""
        if key not in self._told:
            self._told.add(key)
            for sink in self._sinks:
                sink(key, label, rows)


def _sharing(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that share something, together where the first of them stood: what they share is then soon forgotten."""
    groups: dict[str | int, list[Job]] = {}
    for position, job in enumerate(jobs):
        groups.setdefault(job.shared or position, []).append(job)
    return list(groups.values())
