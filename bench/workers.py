"""Worker processes of a run on one machine: started, watched, and their journals collected into the store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..registry import GauntletError
from ..registry.locks import claimed, locked
from ..results.journal import Journal, JournalReader, Record, collect, result_facts
from ..results.records import CRASH, CellResult
from ..results.store import Store
from .execution import Reporter
from .plan import Plan, groups
from .worker import WorkOrder

FOLDER = "workers"
LOCK = "run.lock"
_POLL = 0.05  # seconds
_GRACE = 5.0  # seconds after its limit in which a job may end by itself


@dataclass
class _Worker:
    """A process, its journal, and what it is computing."""

    process: subprocess.Popen[bytes]
    reader: JournalReader | None = None
    group: int | None = None
    job: str = ""
    pending: list[str] | None = None  # None: no model yet
    since: float = field(default_factory=time.monotonic)
    killed: CellResult | None = None


class Workers:
    """Runs a plan with worker processes: one that dies loses the cell that it was computing, and is replaced.

    Args:
        order: What each of them is told.
        number: How many work at a time.
        plan: What is computed.
        store: Where results go.
        reporter: Is told what happens.

    Attributes:
        counts: Number of cells by status.
    """

    def __init__(self, order: WorkOrder, number: int, plan: Plan, store: Store, reporter: Reporter) -> None:
        self._file = order.write(store.path.parent.resolve() / FOLDER / order.run_id)
        self._number, self._store, self._run_id, self._reporter = number, store, order.run_id, reporter
        self._limit = order.limit_time or plan.suite.timeout
        self._groups = groups(plan)
        self._jobs = {cell.key: job for job in plan.jobs for cell in job.cells}
        self._cells = {cell.key: cell for cell in plan.cells}
        self._own = Journal(self._file.parent / "run.journal")
        self._told: set[str] = set()
        self._fruitless = 0
        self.counts: Counter[str] = Counter()
        self._suspect(store.crashed(self._jobs))

    def _suspect(self, keys: set[str]) -> None:
        """Have these cells computed each for itself."""
        if keys:
            self._own.add(kind="suspects", keys=sorted(keys))

    def run(self) -> None:
        """Work until nothing is left, or the user stops it.

        Raises:
            GauntletError: Workers die again and again without computing anything.
        """
        with locked(self._file.parent / LOCK):
            working = [self._start() for _ in range(min(self._number, len(self._groups)))]
            try:
                while working:
                    time.sleep(_POLL)
                    working = [after for worker in working for after in self._watch(worker)]
            finally:
                for worker in working:
                    self._stop(worker)
                self._own.close()
        shutil.rmtree(self._file.parent, ignore_errors=True)

    def _start(self) -> _Worker:
        threads = str(max(1, (os.cpu_count() or 1) // self._number))
        given = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **os.environ}
        given["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-P", "-m", "gauntlet", "worker", str(self._file), "--parent", str(os.getpid())]
        with (self._file.parent / "errors.txt").open("ab") as errors:
            return _Worker(subprocess.Popen(command, env=given, stdout=errors, stderr=errors, start_new_session=True))

    def _watch(self, worker: _Worker) -> Iterator[_Worker]:
        """Collect what a worker has journaled; gives it or the one that takes its place."""
        ended = worker.process.poll() is not None
        self._collect(worker)
        if not ended:
            if self._limit is not None and worker.pending and time.monotonic() - worker.since > self._limit + _GRACE:
                reason = f"{self._name(worker)} passed its time limit of {self._limit:g} s, and its process was ended."
                worker.killed = CellResult(status="timeout", reason=reason, error=CRASH)
                worker.process.kill()
                worker.process.wait()
            yield worker
        elif worker.process.returncode:
            self._bury(worker)
            yield self._start()

    def _collect(self, worker: _Worker) -> None:
        if worker.reader is None:
            found = next(self._file.parent.glob(f"{worker.process.pid}-*.journal"), None)
            if found is None:
                return
            worker.reader = JournalReader(found)
        for record in collect(worker.reader.new(), self._store, self._run_id):
            self._tell(worker, record)

    def _tell(self, worker: _Worker, record: Record) -> None:
        facts, _ = record
        match facts["kind"]:
            case "group":
                worker.group, worker.pending = facts["number"], None
            case "job":
                worker.job, worker.pending = facts["label"], None
                self._reporter.job(self._jobs[facts["first"]], facts["cells"])
            case "computing":
                worker.pending, worker.since = facts["keys"], time.monotonic()
            case "cell":
                self._done(facts["key"], CellResult(status=facts["result"]["status"], reason=facts["result"]["reason"]))
                if worker.pending and facts["key"] in worker.pending:
                    worker.pending.remove(facts["key"])
                self._fruitless = 0
            case "training":
                self._reporter.training(facts["model"], facts["done"], facts["total"], facts["figures"])
            case "note":
                self._reporter.note(facts["text"])

    def _done(self, key: str, result: CellResult) -> None:
        if key not in self._told:
            self._told.add(key)
            self.counts[result.status] += 1
            self._reporter.cell(key, result)

    def _bury(self, worker: _Worker) -> None:
        """Record what a worker that died was computing: one cell has failed, several are tried one by one."""
        result = worker.killed or _how_it_ended(worker.process.returncode, self._name(worker))
        if worker.pending:
            if len(worker.pending) > 1:
                self._reporter.note(f"{result.reason} Its {len(worker.pending)} cells are tried one by one.")
                self._suspect(set(worker.pending))
                return
            self._fail(worker.pending, result)
        elif worker.group is not None and worker.pending is None:
            cells = [cell.key for job in self._groups[worker.group] for cell in job.cells]
            reason = f"The model could not be made: {result.reason}"
            self._fail([key for key in cells if key not in self._store.settled(cells)], result, reason)
        else:
            self._fruitless += 1
            if self._fruitless > 2:
                raise GauntletError(f"Workers end before they compute anything: {self._last_words()}")

    def _name(self, worker: _Worker) -> str:
        """What a worker is computing: of a job with many detectors or attacks the one whose cell is left."""
        if worker.pending is None or len(worker.pending) != 1:
            return worker.job
        where = self._cells[worker.pending[0]].identity
        return where.detector or where.attack or worker.job

    def _fail(self, keys: list[str], result: CellResult, reason: str = "") -> None:
        told = CellResult(status=result.status, reason=reason or result.reason, error=CRASH)
        for key in keys:
            self._own.add(kind="cell", key=key, result=result_facts(told))
            self._store.put(self._run_id, key, told)
            self._done(key, told)

    def _stop(self, worker: _Worker) -> None:
        """End a worker; what it has journaled is kept."""
        worker.process.terminate()
        try:
            worker.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        self._collect(worker)

    def _last_words(self) -> str:
        text = (self._file.parent / "errors.txt").read_text(encoding="utf-8", errors="replace").strip()
        return text.splitlines()[-1] if text else "nothing was said."


def collect_leftovers(out: Path, store: Store) -> int:
    """Collect the journals that runs left which were killed; returns how many cells they hold."""
    cells = 0
    for folder in sorted(path for path in (out / FOLDER).glob("*") if path.is_dir()):
        with claimed(folder / LOCK) as mine:
            for path in sorted(folder.glob("*.journal")):
                found = collect(JournalReader(path).new(), store, folder.name)
                cells += sum(facts["kind"] == "cell" for facts, _ in found)
            if mine:  # nobody is at work there
                shutil.rmtree(folder, ignore_errors=True)
    return cells


def _how_it_ended(code: int, job: str) -> CellResult:
    if code == -signal.SIGKILL:
        reason = f"{job}: its process was killed, most likely by the system for want of memory."
        return CellResult(status="out-of-memory", reason=reason, error=CRASH)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return CellResult(status="failed", reason=f"{job}: its process {how}.", error=CRASH)


def number_of_workers(wanted: str, plan: Plan) -> int:
    """How many processes ``auto`` or a number is: at most one for a core and for a group.

    Raises:
        GauntletError: It is neither.
    """
    if wanted == "auto":
        return max(1, min(os.cpu_count() or 1, len(groups(plan))))
    if not wanted.isdigit() or not 0 < int(wanted) <= 1024:
        raise GauntletError(f"--workers {wanted!r}: give a number from 1 to 1024, or auto.")
    return int(wanted)
