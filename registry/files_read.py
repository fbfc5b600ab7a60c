"""Files that plug-ins read while they are imported: their content decides results as source does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .source_code import PACKAGE, is_installed

#: By the file of the module that read them.
_read: dict[Path, set[Path]] = {}
_depth = 0
_hooked = False


@contextlib.contextmanager
def noting_reads() -> Iterator[None]:
    """Note, until the end of the block, which module opens which file."""
    global _depth, _hooked
    if not _hooked:
        sys.addaudithook(_note)  # for good: Python has no way to remove one
        _hooked = True
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def files_read(module: Path) -> set[Path]:
    """The files that a module read when it was imported, as far as they were noted."""
    return _read.get(module, set())


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _depth and event == "open" and isinstance(arguments[0], str) and not _is_source(arguments[0]):
        with contextlib.suppress(OSError, ValueError):
            path, reader = Path(arguments[0]).resolve(), _reader()
            if reader and path.is_file() and not is_installed(path) and not _is_hidden(path):
                _read.setdefault(reader, set()).add(path)


def _is_source(name: str) -> bool:
    return name.endswith((".py", ".pyc", ".pyi")) or ".pyc." in name


def _is_hidden(path: Path) -> bool:
    """Caches and settings of libraries (``~/.cache/...``), and what the system makes up (``/proc``)."""
    return any(part.startswith(".") for part in path.parts) or path.parts[1:2] in {("proc",), ("sys",), ("dev",)}


def _reader() -> Path | None:
    """The innermost module in the making that is of no installed package."""
    frame = sys._getframe(2)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if (
            frame.f_code.co_name == "<module>"
            and not is_installed(file)
            and not file.is_relative_to(PACKAGE / "registry")
        ):
            return file.resolve()
        frame = frame.f_back  # type: ignore[assignment]
    return None
