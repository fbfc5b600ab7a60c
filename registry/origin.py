"""Where something was registered, and whether the same code was run again."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .entry import Entry


@dataclass(frozen=True)
class Origin:
    """The namespace that the code ran in (its id), file and line."""

    scope: int = 0
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def caller() -> tuple[str, Origin]:
    """Module and place of the code that registers something."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    origin = Origin(id(frame.f_globals), frame.f_code.co_filename, frame.f_lineno)
    return str(frame.f_globals.get("__name__", "")), origin


def redefined(old: Entry, new: Entry) -> bool:
    """Whether the code of ``old`` was run again, perhaps edited: a notebook cell, `%run`, or a reloaded module."""
    module = getattr(new.factory, "__module__", "")
    if module != getattr(old.factory, "__module__", ""):
        return False
    if module in getattr(importlib, "_RELOADING", ()):
        return True
    # Cells share their names and have a file each; a script run again has the file, and names of its own.
    elsewhere = old.origin.scope != new.origin.scope or old.origin.file != new.origin.file
    return module == "__main__" and (elsewhere or old.origin == new.origin)
