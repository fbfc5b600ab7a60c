"""Runs a plan: every missing cell is computed once, stored at once, and fails alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..datasets import DataSource
from ..registry import REGISTRIES, GauntletError, load_entry_points, load_plugin
from ..results.examples import write_examples
from ..results.frame import load_results, write_csv
from ..results.records import CellResult, PlannedCell
from ..results.store import Store
from ..results.tables import write_tables
from .evaluators import EVALUATORS
from .failures import JobTimeout, alarm_held, failure, out_of_memory, time_limit
from .loggers import Sink, open_logger
from .paths import cache_folder, data_root, pick_device
from .plan import Job, Plan, make_plan
from .provenance import provenance
from .reporter import Reporter
from .suite import load_suite
from .workbench import Workbench, checkpoint_store, output_cache

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: Its id in the store.
        out: The output folder.
        counts: Number of cells by status; ``cached`` ones were in the store already.
        problems: Plug-ins of installed packages that did not load, one sentence each.
        interrupted: Whether it was stopped by the user.
    """

    run_id: str
    out: Path
    counts: Mapping[str, int]
    problems: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether every cell is ok or skipped and every plug-in loaded."""
        return not self.interrupted and not self.problems and set(self.counts) <= {"ok", "cached", "skipped"}


def run(
    suite: str | Path | Mapping[str, Any],
    *,
    out: str | Path = "gauntlet-out",
    device: str = "auto",
    data: str | Path | None = None,
    download: bool = False,
    plugins: Iterable[str] = (),
    profile: str | None = None,
) -> pd.DataFrame:
    """Run a suite (a YAML file, the name of a built-in one, or a mapping) and return its tidy results.

    Example:
        >>> import gauntlet
        >>> frame = gauntlet.run("quickstart")  # doctest: +SKIP

    Raises:
        GauntletError: The suite is wrong or nothing can be stored; failing cells do not raise, they are rows.
    """
    outcome = run_suite(suite, out=out, device=device, data=data, download=download, plugins=plugins, profile=profile)
    return load_results(outcome.out, run=outcome.run_id)


def prepare(
    suite: str | Path | Mapping[str, Any],
    *,
    data: str | Path | None = None,
    download: bool = False,
    plugins: Iterable[str] = (),
    profile: str | None = None,
) -> tuple[Plan, list[str]]:
    """Load plug-ins and suite and expand the plan; returns it with the sentences about installed plug-ins that failed.

    Raises:
        GauntletError: One of ``plugins`` cannot be loaded, or the suite is wrong.
    """
    problems = load_entry_points(REGISTRIES.values())
    for name in plugins:
        load_plugin(name, REGISTRIES.values())
    source = DataSource(root=data_root(data), cache=cache_folder(), download=download)
    return make_plan(load_suite(suite, profile=profile), source), problems


def run_suite(
    suite: str | Path | Mapping[str, Any],
    *,
    out: str | Path = "gauntlet-out",
    device: str = "auto",
    data: str | Path | None = None,
    download: bool = False,
    plugins: Iterable[str] = (),
    profile: str | None = None,
    logger: str | None = None,
    reporter: Reporter | None = None,
    evaluate: bool = True,
) -> Outcome:
    """Plan, train what is missing, evaluate, write `results.csv` and the tables; see :func:`run`.

    Without ``evaluate`` the models are trained, and no cells are recorded and nothing is written but their histories.
    """
    folder = Path(out)
    where = pick_device(device)
    plan, problems = prepare(suite, data=data, download=download, plugins=plugins, profile=profile)
    reporter = reporter or Reporter()
    sinks = [] if logger is None else [open_logger(logger, folder)]
    run_id, interrupted = "", False
    with Store.open(folder / "store.sqlite") as store:
        if evaluate:
            run_id = store.begin_run(plan.suite.name, plan.suite.text, provenance(where))
            store.plan(run_id, plan.cells)
        execution = Execution(plan, store, run_id, where, reporter, sinks)
        try:
            with reporter:
                execution.run() if evaluate else execution.train()
        except KeyboardInterrupt:
            interrupted = True
        if evaluate:
            store.end_run(run_id, "interrupted" if interrupted else "finished")
    if evaluate:
        write_results(folder, run_id)
    return Outcome(run_id, folder, execution.counts, tuple(problems), interrupted)


def write_results(folder: Path, run_id: str) -> list[Path]:
    """Write `results.csv` and the tables of a run, and of no other that shares the store; returns the files."""
    frame = load_results(folder, run=run_id)
    path = folder / "results.csv"
    write_csv(frame, path)
    return [path, *write_tables(frame, folder)]


class Execution:
    """One pass over the jobs of a plan.

    Args:
        plan: What to compute.
        store: Where results go; cells that are there with status ok are not computed again.
        run_id: The run they belong to.
        device: Where to compute.
        reporter: Is told what happens.
        sinks: Told of every training, beside the store.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        run_id: str,
        device: torch.device,
        reporter: Reporter,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._plan, self._store, self._run_id, self._device = plan, store, run_id, device
        self._reporter = reporter
        self._sinks = (store.put_history, *sinks)
        self._told: set[str] = set()
        self.counts: dict[str, int] = {}
        self._bench = Workbench(
            plan.suite,
            device,
            checkpoint_store(cache_folder()),
            output_cache(cache_folder()),
            on_training=reporter.training,
            on_history=self._keep_history,
            stored=store.result,
        )

    def run(self) -> None:
        """Compute every missing cell, row by row."""
        done = self._finished(self._plan.cells)
        self._count("cached", sum(cell.key in done for cell in self._plan.cells))
        self._reporter.start(self._plan, len(done))
        self._tell_notes()
        for _, jobs in itertools.groupby(self._plan.jobs, key=lambda job: id(job.row)):
            self._run_row(list(jobs))

    def _keep_history(self, key: str, label: str, rows: list[dict[str, Any]]) -> None:
        """Once each, under the first label: a row's own rather than that of a member of an ensemble."""
        if key in self._told:
            return
        self._told.add(key)
        for sink in self._sinks:
            sink(key, label, rows)

    def _tell_notes(self) -> None:
        for note in self._plan.notes:
            self._reporter.note(note)

    def train(self) -> None:
        """Train the models of every row, without evaluating them."""
        self._tell_notes()
        rows = {(row.key, row.name): row for job in self._plan.jobs for row in (job.row, *job.others)}
        for row in rows.values():
            self._bench.open_row(row, ())
            if row.blocked:
                self._reporter.note(f"{row.name}: {row.blocked}")
                continue
            try:
                self._bench.module()
            except Exception as error:  # of any kind: the model may be the user's own
                self._count("failed")
                self._reporter.note(f"{row.name}: {failure(error, row.model.label).reason}")
            else:
                self._count("ok")

    def _run_row(self, jobs: list[Job]) -> None:
        missing = {id(job): self._missing(job) for job in jobs}
        needs = {need for job in jobs for need in EVALUATORS[job.evaluator].needs(job, missing[id(job)])}
        self._bench.open_row(jobs[0].row, needs)
        for job in jobs:
            self._run_job(job)

    def _missing(self, job: Job) -> frozenset[str]:
        """Keys that are neither in the store nor blocked (those are recorded as skipped by ``_skip_blocked``)."""
        done = self._finished(job.cells)
        return frozenset(
            cell.key
            for cell in job.cells
            if cell.key not in done and not (job.row.blocked or job.blocked.get(cell.key))
        )

    def _finished(self, cells: Iterable[PlannedCell]) -> set[str]:
        statuses = self._store.statuses([cell.key for cell in cells])
        return {key for key, status in statuses.items() if status == "ok"}

    def _run_job(self, job: Job) -> None:
        self._skip_blocked(job)
        missing = self._missing(job)
        if not missing:
            return
        self._reporter.job(job, len(missing))
        batch_size = self._bench.batch_size
        try:
            while missing:
                error = self._attempt(job, missing)
                missing = self._missing(job) if error is not None else frozenset()
                if error is None:
                    break
                if out_of_memory(error) and self._bench.batch_size > 1:
                    self._bench.batch_size //= 2
                    self._reporter.note(
                        f"{job.label}: out of memory, trying again with batches of {self._bench.batch_size}."
                    )
                    continue
                self._fail(job, missing, error)
                break
        finally:
            self._bench.batch_size = batch_size

    def _attempt(self, job: Job, missing: frozenset[str]) -> BaseException | None:
        """Run a job and store its cells as they finish; returns what stopped it, if anything did."""
        started = time.perf_counter()
        left = set(missing)
        try:
            if self._plan.suite.timeout is not None:
                for row in (job.row, *job.others):
                    self._bench.module_of(row)  # training has no part in the limit of a job
            with time_limit(self._plan.suite.timeout):
                for key, result in EVALUATORS[job.evaluator].run(job, missing, self._bench):
                    now = time.perf_counter()
                    with alarm_held():
                        self._put(key, replace(result, seconds=result.seconds or now - started))
                    left.discard(key)
                    started = now
        except (Exception, JobTimeout) as error:
            return error
        if left:
            return GauntletError(
                f"{job.label}: the evaluator {job.evaluator!r} left {len(left)} cells without a result."
            )
        return None

    def _fail(self, job: Job, missing: Iterable[str], error: BaseException) -> None:
        result = failure(error, job.label, limit=self._plan.suite.timeout)
        for key in missing:
            self._put(key, result)

    def _skip_blocked(self, job: Job) -> None:
        for cell in job.cells:
            if reason := job.row.blocked or job.blocked.get(cell.key, ""):
                self._put(cell.key, CellResult(status="skipped", reason=reason))

    def _put(self, key: str, result: CellResult) -> None:
        self._store.put(self._run_id, key, replace(result, device=str(self._device)))
        if result.examples:
            row = self._bench.row
            write_examples(self._store.path.parent, (row.model.label, row.dataset.label), key, result.examples)
        self._count(result.status)
        self._reporter.cell(key, result)

    def _count(self, status: str, number: int = 1) -> None:
        if number:
            self.counts[status] = self.counts.get(status, 0) + number
