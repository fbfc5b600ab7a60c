"""Progress in the terminal: bars where there is one, a line a job where output goes to a file."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..registry import harmless
from .execution import Reporter

if TYPE_CHECKING:
    from ..results.records import CellResult
    from .jobs import Job
    from .plan import Plan

_REFRESH = 0.2  # seconds between updates of a training bar: reading a loss from a GPU waits for it


class ConsoleReporter(Reporter):
    """Shows cells done, the job at hand, and trainings with loss and accuracy."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._cells: TaskID | None = None
        self._trainings: dict[str, TaskID] = {}
        self._shown = 0.0
        self._said: set[str] = set()

    def __enter__(self) -> ConsoleReporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, plan: Plan, cached: int) -> None:
        """Say what is ahead."""
        total = len(plan.cells)
        done = f", {cached} of them in the store already" if cached else ""
        self._print(f"[bold]{_shown(plan.suite.name)}[/bold]: {total} cells in {len(plan.jobs)} jobs{done}")
        self._cells = self._progress.add_task("cells", total=total, completed=cached, figures="")

    def job(self, job: Job, cells: int) -> None:
        """Name the job."""
        what = job.evaluator if job.label == job.evaluator else f"{job.evaluator} {job.label}"
        text = f"{job.row.name}: {what}"
        self._said.clear()
        if self._cells is not None:
            self._progress.update(self._cells, description=_shown(text))
        if not self._console.is_terminal:
            self._print(f"  {_shown(text)} ({cells} cells)")

    def training(self, model: str, done: int, total: int, figures: dict[str, Any]) -> None:
        """Advance the bar of a training; its end leaves one line."""
        if model not in self._trainings:
            self._trainings[model] = self._progress.add_task(f"training {_shown(model)}", total=total, figures="")
        if done < total and time.monotonic() - self._shown < _REFRESH:
            return
        self._shown = time.monotonic()
        text = f"epoch {figures['epoch']}, loss {float(figures['loss']):.4f}"
        if "accuracy" in figures:
            text += f", accuracy {float(figures['accuracy']):.2%}"
        if "speed" in figures:
            text += f", {figures['speed']:,.0f} images/s"
        self._progress.update(self._trainings[model], completed=done, figures=text)
        if done == total:
            self._progress.remove_task(self._trainings.pop(model))
            self._print(f"  trained {_shown(model)}: {text}")

    def cell(self, key: str, result: CellResult) -> None:
        """Advance; where cells are not ok, say why, once a job for each reason."""
        if self._cells is not None:
            self._progress.advance(self._cells)
        if result.status not in ("ok", "skipped") and result.reason not in self._said:
            self._said.add(result.reason)
            self._print(f"  [red]{result.status}[/red]: {_shown(result.reason)}")

    def note(self, text: str) -> None:
        """Print it above the bars."""
        self._print(f"  [yellow]{_shown(text)}[/yellow]")

    def _print(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, soft_wrap=True)


def _shown(text: str) -> str:
    """A text of anybody's, without meaning to rich or to the terminal."""
    return escape(harmless(text))
