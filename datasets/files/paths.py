"""A path as the name of a data set: `datasets: [./photos]` is the folder, `lists/test.txt` the list."""

from __future__ import annotations

from dataclasses import replace

from ...registry import DATASETS, Entry, GauntletError
from ..source import DataSource
from .places import kind_of, names_path, place


def find_path(name: str) -> Entry | None:
    """The entry of a path: its kind of data set, which has the path already; None where the name is none.

    Raises:
        GauntletError: It is meant as a path, and nothing is there, or no kind of data set.
    """
    source = DataSource.default()
    try:
        path = place(name, source)
    except (GauntletError, OSError, ValueError):
        if names_path(name):
            raise
        return None
    if not names_path(name) and not path.is_dir():
        return None
    kind, given = kind_of(path)
    entry = DATASETS.get(kind)
    known = [replace(one, default=given[one.name]) if one.name in given else one for one in entry.parameters]
    return replace(entry, parameters=tuple(known))
