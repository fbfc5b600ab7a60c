"""Suites, the plan, the evaluators, the runner and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation import evaluate
    from .runner import run

__all__ = ["evaluate", "run"]


def __getattr__(name: str) -> Any:
    if name == "run":
        from .runner import run

        return run
    if name == "evaluate":
        from .evaluation import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
