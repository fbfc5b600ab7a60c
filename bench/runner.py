"""Runs suites: plan, execute, write results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..datasets import DataSource
from ..registry import REGISTRIES, load_entry_points, load_plugin
from ..registry.folders import cache_folder, data_root
from ..results.frame import load_results, write_csv
from ..results.results import Results
from ..results.store import Store
from ..results.tables import write_tables
from ..results.trackers import open_logger
from .device import pick_device
from .evaluators import build_evaluator
from .execution import Execution, Reporter
from .plan import Plan, make_plan
from .provenance import provenance
from .suite import load_suite
from .worker import WorkOrder, identity_of
from .workers import FOLDER, Workers, collect_leftovers, number_of_workers


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: Its id in the store.
        out: The output folder.
        counts: Number of cells by status; ``cached`` ones were in the store already.
        problems: Plug-ins of installed packages that did not load, one sentence each.
        interrupted: Whether it was stopped by the user.
        reused: For each row with stored cells, why these were used.
    """

    run_id: str
    out: Path
    counts: Mapping[str, int]
    problems: tuple[str, ...] = ()
    interrupted: bool = False
    reused: Mapping[str, str] = field(default_factory=dict)

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
) -> Results:
    """Run a suite (a YAML file, the name of a built-in one, or a mapping) and return its results.

    They are the tidy data frame, which also makes tables and plots; see :class:`gauntlet.results.results.Results`.

    Example:
        >>> import gauntlet
        >>> frame = gauntlet.run("quickstart")  # doctest: +SKIP

    Raises:
        GauntletError: The suite is wrong or nothing can be stored; failing cells do not raise, they are rows.
    """
    outcome = run_suite(suite, out=out, device=device, data=data, download=download, plugins=plugins, profile=profile)
    with Store.open(outcome.out / "store.sqlite", create=False) as store:
        return Results.of(store, outcome.run_id)


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
    given = [load_plugin(name, REGISTRIES.values()) for name in plugins]
    source = DataSource(root=data_root(data), cache=cache_folder(), download=download)
    return make_plan(load_suite(suite, profile=profile, plugins=given), source), problems


def plan_of(order: WorkOrder) -> Plan:
    """The plan of a run, made again in another process."""
    options = {name: getattr(order, name) for name in ("data", "plugins", "profile", "download")}
    return prepare(order.suite, **options)[0]


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
    force: str = "",
    store: Store | None = None,
    notes: Sequence[str] = (),
    workers: str | int | None = None,
    isolate: bool = False,
    limit_time: float | None = None,
    limit_memory: float | None = None,
) -> Outcome:
    """Plan, train what is missing, evaluate, write `results.csv` and the tables; see :func:`run`.

    ``force`` is a glob: cells whose model, detector, attack or evaluator it picks are computed again.
    Without ``evaluate`` the models are trained, and no cells are recorded and nothing is written but their histories.
    With a ``store`` results go there, and no files are written; ``notes`` are kept with the run.
    With ``workers`` (a number, or ``auto``) so many processes share the work. In such a process, which ``isolate`` and
    the limits also ask for, a cell that ends it, or passes ``limit_time`` (seconds) or ``limit_memory`` (GiB), is lost
    alone.
    """
    folder = Path(out)
    where = pick_device(device)
    plan, problems = prepare(suite, data=data, download=download, plugins=plugins, profile=profile)
    reporter = reporter or Reporter()
    sinks = [] if logger is None else [open_logger(logger, folder)]
    run_id, interrupted = "", False
    given = store
    with Store.open(folder / "store.sqlite") if given is None else contextlib.nullcontext(given) as store:
        if given is None:
            collect_leftovers(folder, store)
        if evaluate:
            known = {**provenance(where), **({"notes": list(notes)} if notes else {})}
            run_id = store.begin_run(plan.suite.name, plan.suite.text, known)
            store.plan(run_id, plan.cells)
            store.declare(run_id, [build_evaluator(name).declaration for name in plan.suite.evaluators])
        execution = Execution(plan, store, run_id, where, reporter, sinks, force)
        counts = execution.counts
        try:
            with reporter:
                if not evaluate:
                    execution.train()
                elif given is None and (workers or isolate or limit_time or limit_memory):
                    order = WorkOrder(
                        suite=_suite_file(suite, plan, folder / FOLDER / run_id),
                        run_id=run_id,
                        store=str(store.path.resolve()),
                        device=device,
                        identity=identity_of(plan),
                        profile=profile,
                        data=None if data is None else str(Path(data).resolve()),
                        plugins=tuple(_absolute(plugin) for plugin in plugins),
                        download=download,
                        limit_time=limit_time,
                        limit_memory=limit_memory,
                    )
                    execution.verify()
                    crew = Workers(order, number_of_workers(str(workers or 1), plan), plan, store, reporter)
                    counts = crew.counts
                    counts.update(execution.counts)
                    crew.run()
                else:
                    execution.run()
        except KeyboardInterrupt:
            interrupted = True
        if evaluate:
            store.end_run(run_id, "interrupted" if interrupted else "finished")
    if evaluate and given is None:
        write_results(folder, run_id)
    return Outcome(run_id, folder, counts, tuple(problems), interrupted, execution.reused)


def _suite_file(suite: str | Path | Mapping[str, Any], plan: Plan, folder: Path) -> str:
    """A suite as another process finds it."""
    if not isinstance(suite, Mapping):
        return _absolute(str(suite))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.yaml").write_text(plan.suite.text, encoding="utf-8")
    return str((folder / "suite.yaml").resolve())


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def write_results(folder: Path, run_id: str) -> list[Path]:
    """Write `results.csv` and the tables of a run, and of no other that shares the store; returns the files."""
    frame = load_results(folder, run=run_id)
    path = folder / "results.csv"
    write_csv(frame, path)
    with Store.open(folder / "store.sqlite") as store:
        declared = store.declarations([run_id]).values()
    return [path, *write_tables(frame, folder, declared)]
