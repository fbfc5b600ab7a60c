"""What happens when a job does not end well: it fails alone, with a reason that can be read."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Iterator
from types import FrameType

import torch

from ..registry import GauntletError, NotAvailable
from ..results.records import CellResult


class JobTimeout(BaseException):
    """A job passed its time limit. Not an ``Exception``, so that no component swallows it."""


def failure(error: BaseException, label: str, *, limit: float | None = None) -> CellResult:
    """The record of a cell whose computation raised ``error``; ``label`` names the component.

    What users can put right reads as one sentence; anything else names its class. Both keep class and traceback.
    """
    if isinstance(error, NotAvailable):
        return CellResult(status="skipped", reason=str(error))
    if isinstance(error, JobTimeout):
        return CellResult(status="timeout", reason=f"{label} passed its time limit of {limit:g} s.")
    kind, trace = type(error).__name__, "".join(traceback.format_exception(error))
    if out_of_memory(error):
        reason = f"{label} ran out of memory with one image."
        return CellResult(status="out-of-memory", reason=reason, traceback=trace, error=kind)
    reason = str(error) if isinstance(error, GauntletError) else f"{label}: {kind}: {error}"
    return CellResult(status="failed", reason=" ".join(reason.split()), traceback=trace, error=kind)


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the GPU or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise :class:`JobTimeout` inside the block after so many seconds.

    The alarm interrupts Python code, also between the operations of a long loop. It needs the main thread of a
    system with SIGALRM; elsewhere there is no limit.
    """
    if seconds is None or not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise JobTimeout

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def alarm_held() -> Iterator[None]:
    """Let the alarm of :func:`time_limit` ring only after the block, so that it breaks no write."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
