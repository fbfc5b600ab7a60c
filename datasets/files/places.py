"""Where the paths of a suite lead, and what a path without a word beside it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...registry import GauntletError
from ..source import DataSource


def place(path: str, source: DataSource) -> Path:
    """A path as it is, from the working directory, or else below the data root.

    Raises:
        GauntletError: Neither exists.
    """
    given = Path(path).expanduser()
    for candidate in (given, source.root / given):
        if candidate.exists():
            return candidate.absolute()
    tried = str(given) if given.is_absolute() else f"{given.absolute()} and {source.root / given}"
    raise GauntletError(f"There is no file or folder {path!r} (looked at {tried}).")


def names_path(text: str) -> bool:
    """Whether a name is meant as a path: it starts or ends as one, or has the ending of a file that is a data set."""
    return (
        text.startswith((".", "/", "~", "\\\\"))
        or text.endswith(("/", os.sep))
        or Path(text).suffix.lower() in KINDS
        or text[1:3] in (":\\", ":/")
    )


#: The kind of data set that a file with an ending is.
KINDS: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "image-list",
    ".lst": "image-list",
    ".npz": "npz",
    ".npy": "npy",
    ".safetensors": "safetensors",
}


def kind_of(path: Path) -> tuple[str, dict[str, Any]]:
    """The kind of data set that a path is, with the parameter that says where.

    Raises:
        GauntletError: It is a file of no kind.
    """
    if path.is_dir():
        return "image-folder", {"path": str(path)}
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise GauntletError(f"{path} is neither a folder of images nor a file that is a data set ({', '.join(KINDS)}).")
    return kind, {"path": str(path)}
