"""One worker of a run: claims groups of jobs, one after the other, and journals every finished cell."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry import GauntletError, digest
from ..registry.locks import claimed
from ..registry.safe_files import reading, write_whole
from ..results.journal import Journal, JournalStore
from ..results.records import PlannedCell
from ..results.store import Store
from .device import pick_device
from .execution import Execution, Reporter
from .plan import Plan, groups

if TYPE_CHECKING:
    from .jobs import Job

PLAN = "plan.json"
_TRAINING_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class WorkOrder:
    """What a worker must know to make the plan of its run again; the file `plan.json` of the run's folder.

    Attributes:
        suite: File or name.
        identity: Digest of the keys of all cells: a worker whose sources or data differ has another.
    """

    suite: str
    run_id: str
    store: str
    device: str
    identity: str
    profile: str | None = None
    data: str | None = None
    plugins: tuple[str, ...] = ()
    download: bool = False
    limit_time: float | None = None
    limit_memory: float | None = None

    def write(self, folder: Path) -> Path:
        """Write the file of the order."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1)
        write_whole(folder / PLAN, lambda path: path.write_text(text, encoding="utf-8"))
        return folder / PLAN

    @classmethod
    def read(cls, path: Path) -> WorkOrder:
        """Read it.

        Raises:
            GauntletError: It is none.
        """
        with reading(path, "is not the plan of a run ({error}); `gauntlet run SUITE --workers 2` writes one"):
            known = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**known, "plugins": tuple(known["plugins"])})


def identity_of(plan: Plan) -> str:
    """Digest of what a plan computes."""
    return digest("plan/1", [cell.key for cell in plan.cells])


def work(path: Path, make: Callable[[WorkOrder], Plan], parent: int | None = None) -> None:
    """Compute what nobody else does of the plan in a file, until nothing is left to claim.

    Args:
        path: The file `plan.json`.
        make: Makes the plan of an order.
        parent: The process without which the work is pointless, if any.

    Raises:
        GauntletError: The plan cannot be made here, or is another here.
    """
    order = WorkOrder.read(path)
    plan = make(order)
    if identity_of(plan) != order.identity:
        raise GauntletError(f"{path}: the plan is another here: suite, sources, plug-ins or data differ.")
    if order.limit_time is not None:
        plan = limited(plan, order.limit_time)
    _limit_memory(order.limit_memory)
    journal = Journal(path.parent / f"{os.getpid()}-{secrets.token_hex(4)}.journal")
    with Store.open(order.store, create=False) as store:
        own = JournalStore(store, journal)
        reporter = _JournalReporter(journal)
        execution = Execution(plan, own, order.run_id, pick_device(order.device), reporter, alone=own.suspects)
        for number, jobs in enumerate(groups(plan)):
            with claimed(path.parent / f"group-{number}.lock") as mine:
                if not mine or (parent is not None and os.getppid() != parent):
                    continue
                own.catch_up()
                keys = [cell.key for job in jobs for cell in job.cells]
                if len(own.settled(keys)) < len(set(keys)):
                    journal.add(kind="group", number=number)
                    execution.run_group(jobs)
    journal.close()


def limited(plan: Plan, seconds: float) -> Plan:
    """The plan with a time limit for each of its jobs."""
    specs = plan.suite.model_specs
    suite = plan.suite.model_copy(update={"timeout": seconds})
    suite.__dict__["model_specs"] = specs
    return replace(plan, suite=suite)


class _JournalReporter(Reporter):
    """Writes into the journal what the process that shows progress should know."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._shown = journal, 0.0

    def job(self, job: Job, cells: int) -> None:
        """A job begins; its models may have to be trained first."""
        self._journal.add(kind="job", evaluator=job.evaluator, label=job.label, cells=cells, first=job.cells[0].key)

    def computing(self, job: Job, cells: Sequence[PlannedCell]) -> None:
        """The models are there; a time limit counts from here."""
        self._journal.add(kind="computing", label=job.label, keys=[cell.key for cell in cells])

    def training(self, model: str, done: int, total: int, figures: dict[str, Any]) -> None:
        """Now and then, and the end."""
        if done < total and time.monotonic() - self._shown < _TRAINING_EVERY:
            return
        self._shown = time.monotonic()
        numbers = {name: float(value) for name, value in figures.items()}
        self._journal.add(kind="training", model=model, done=done, total=total, figures=numbers)

    def note(self, text: str) -> None:
        """Passed on."""
        self._journal.add(kind="note", text=text)


def _limit_memory(gigabytes: float | None) -> None:
    """Let allocations beyond a limit fail, where the system can: what asks for more than there is fails alone."""
    try:
        import resource
    except ImportError:  # Windows
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    wanted = total if gigabytes is None else int(gigabytes * 2**30) + _data_bytes()
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _data_bytes() -> int:
    """What the process has taken already."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData")), 0)
