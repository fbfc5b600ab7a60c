"""What a run tells while it goes on; this one says nothing, the command line's shows bars."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..results.records import CellResult
    from .plan import Job, Plan


class Reporter:
    """Receives the events of a run; subclasses show them."""

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

    def training(self, model: str, done: int, total: int, figures: dict[str, Any]) -> None:
        """A batch of a training is done."""

    def cell(self, key: str, result: CellResult) -> None:
        """A cell has its result."""

    def note(self, text: str) -> None:
        """Something the user should read."""
