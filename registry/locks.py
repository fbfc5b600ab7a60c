"""One at a time, over processes and machines that see the same files: a lock that ends with who holds it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: processes do not wait for one another there, and work twice
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: Path, note: Callable[[str], None] = lambda text: None, what: str = "") -> Iterator[bool]:
    """Hold the lock on a file that need not exist, and is gone afterwards; says whether it had to be waited for.

    The system takes it back from a process that ends, however it ends: there are no stale locks. Where the folder
    cannot be written nothing is locked, as nothing is kept there either.

    Args:
        path: The file.
        note: Told once where another process holds the lock, which is then waited for.
        what: Names in that message what is locked.
    """
    handle = _acquired(path, wait=False)
    if waited := handle is None:
        note(f"Waiting for {_holder(path)}, which makes {what or path.name} too.")
        handle = _acquired(path, wait=True)
    try:
        yield waited
    finally:
        _release(path, handle)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold the lock on a file if nobody else does; says whether it is held."""
    handle = _acquired(path, wait=False)
    try:
        yield handle is not None
    finally:
        _release(path, handle)


def _acquired(path: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock; -1 where there are no locks; None where another process holds it."""
    while fcntl is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return -1
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:  # a file system without locks
            os.close(handle)
            return -1
        except BaseException:
            os.close(handle)
            raise
        if _is_still(path, handle):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        os.close(handle)  # whoever held it before has taken the file away
    return -1


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False


def _release(path: Path, handle: int | None) -> None:
    if handle is None or handle == -1:
        return
    path.unlink(missing_ok=True)
    os.close(handle)


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except (OSError, ValueError):
        return "another process"
