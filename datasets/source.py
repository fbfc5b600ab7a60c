"""Where files come from, and their md5 sums, computed once per version of a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..registry import GauntletError
from ..registry.folders import cache_folder, data_root

#: A file changed this recently (ns) may change again within the clock's resolution: its sum is not kept.
_SETTLED = 2_000_000_000


@dataclass(frozen=True)
class DataSource:
    """The folder with the data, the folder for what is derived from it, and whether downloads are allowed.

    Attributes:
        root: Data root in torchvision's layout; may be read-only, may be absent.
        cache: Folder for the md5 sums; sums are recomputed each time where it cannot be written.
        download: Let torchvision download absent files into ``root``.
    """

    root: Path
    cache: Path
    download: bool = False

    @classmethod
    def default(cls) -> DataSource:
        """The folders that the environment names (``GAUNTLET_DATA``, ``GAUNTLET_CACHE``)."""
        return cls(data_root(), cache_folder())

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser())
        object.__setattr__(self, "cache", Path(self.cache).expanduser())

    def either(self, *candidates: str) -> Path:
        """The first candidate (relative to the root) that exists, else the last one."""
        paths = [self.root / candidate for candidate in candidates]
        return next((path for path in paths if path.exists()), paths[-1])

    def md5(self, path: Path) -> str:
        """md5 of one file."""
        return self.md5s([path])[0]

    def md5s(self, paths: Iterable[Path]) -> list[str]:
        """md5 of each file; an unchanged file (path, size, modification time) is not read again."""
        known = self._read_sums()
        sums: list[str] = []
        fresh = False
        for path in paths:
            key, status = str(path.resolve()), path.stat()
            version = [status.st_size, status.st_mtime_ns]
            if known.get(key, [])[:2] == version:
                sums.append(known[key][2])
                continue
            sums.append(_md5(path))
            if time.time_ns() - status.st_mtime_ns > _SETTLED:
                known[key] = [*version, sums[-1]]
                fresh = True
        if fresh:
            self._write_sums(known)
        return sums

    @property
    def _sums_file(self) -> Path:
        return self.cache / "md5.json"

    def _read_sums(self) -> dict[str, list]:
        try:
            sums = json.loads(self._sums_file.read_text(encoding="utf-8"))
            return {key: value for key, value in sums.items() if isinstance(value, list) and len(value) == 3}
        except (OSError, ValueError, AttributeError):  # absent or damaged: it is only a cache
            return {}

    def _write_sums(self, sums: dict[str, list]) -> None:
        with contextlib.suppress(OSError):
            self.cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.cache, suffix=".tmp", delete=False, encoding="utf-8"
            ) as file:
                json.dump(sums, file)
            os.replace(file.name, self._sums_file)  # noqa: PTH105  whole or not at all


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise GauntletError(f"{path} cannot be read: {error.strerror or error}.") from None
