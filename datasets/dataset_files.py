"""Which files a dataset is read from, which of them are absent, and how to get those."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..registry import Entry
from .source import DataSource


@dataclass
class DatasetFiles:
    """The files of one dataset with fixed parameters.

    Attributes:
        entry: Its ``files`` fact lists the paths of a split, its ``download`` fact fetches them, and
            its ``describe`` fact may add to result rows what only they tell.
        parameters: All parameters of the factory; those that ``files`` names are passed to it.
        source: Where files come from.
    """

    entry: Entry
    parameters: Mapping[str, Any]
    source: DataSource
    _failure: str | None = field(default=None, init=False)

    def files(self, splits: Iterable[str]) -> list[Path]:
        """The files that these splits (of the factory) are read from, whether they exist or not."""
        list_files = self.entry.meta.get("files")
        if list_files is None:
            return []
        extra = _accepted(list_files, self.parameters)
        return [Path(path) for split in splits for path in list_files(split, self.source, **extra)]

    def facts(self) -> dict[str, Any]:
        """What its ``describe`` fact says of the files that are here, for result rows."""
        describe = self.entry.meta.get("describe")
        return {} if describe is None else describe(self.source, **_accepted(describe, self.parameters))

    def missing(self, splits: tuple[str, ...]) -> str | None:
        """One sentence on the files that are absent, after a download where that is allowed; ``None`` if all exist."""
        absent = self._absent(splits)
        if absent and self.source.download and "download" in self.entry.meta and self._failure is None:
            self._download(splits)
            absent = self._absent(splits)
        return self._sentence(splits, absent) if absent else None

    def _absent(self, splits: Iterable[str]) -> list[Path]:
        return [path for path in self.files(splits) if not path.exists()]

    def _download(self, splits: Iterable[str]) -> None:
        download = self.entry.meta["download"]
        try:
            for split in splits:
                download(split, self.source, **_accepted(download, self.parameters))
        except (OSError, RuntimeError) as error:  # no network, a full disk, a wrong checksum
            self._failure = str(error).strip().rstrip(".")

    def _sentence(self, splits: tuple[str, ...], absent: list[Path]) -> str:
        folder = Path(os.path.commonpath([path.parent for path in absent]))
        names = ", ".join(str(path.relative_to(folder)) for path in absent)
        start = f"Dataset {self.entry.name!r} ({' and '.join(splits)}) needs {names} in {folder}"
        if self._failure is not None:
            return f"{start}, and the download failed: {self._failure}."
        if "download" in self.entry.meta:
            return f"{start}: put them there, or pass --download to let torchvision fetch them."
        return f"{start}: put them there{self.entry.meta.get('home', '')}."


def _accepted(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that ``function`` has a parameter for."""
    known = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
        return dict(values)
    names = {parameter.name for parameter in known}
    return {name: value for name, value in values.items() if name in names}
