"""Outputs on disk: what a sweep yielded, memory-mapped, so that a new detector costs no forward pass."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

#: Bytes that the cache may take; the folders used least recently go first.
LIMIT = 8 * 2**30


class OutputCache:
    """Tensors by key and name: a folder a key, in it a `.safetensors` file a name and `facts.json`.

    Every file appears in one rename, so several processes may share the folder. Deleting any of it is always safe,
    and a folder that cannot be written only costs the passes that it would have saved.

    Args:
        folder: Where the folders live (made when something is kept).
        limit: Bytes that they may take together.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit

    def facts(self, key: str) -> dict[str, Any]:
        """What was said about the outputs of ``key``, ``{}`` if nothing is kept."""
        try:
            return json.loads((self.folder / key / "facts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def load(self, key: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Those of ``names`` that are kept, memory-mapped on the CPU."""
        found = {}
        for name in names:
            try:
                found[name] = load_file(self._file(key, name))["values"]
            except (OSError, SafetensorError, KeyError):
                continue
        if found:
            self._touch(key)
        return found

    def keep(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep tensors and facts of ``key``, then evict what was used least recently if all takes too much."""
        if sum(value.numel() * value.element_size() for value in tensors.values()) > self.limit // 2:
            return
        try:
            (self.folder / key).mkdir(parents=True, exist_ok=True)
            for name, value in tensors.items():
                self._write(key, self._file(key, name), lambda path, value=value: _save(value, path))
            text = json.dumps(facts)
            self._write(key, self.folder / key / "facts.json", lambda path: path.write_text(text, encoding="utf-8"))
            self._evict(spare=key)
        except OSError:
            return

    def _file(self, key: str, name: str) -> Path:
        return self.folder / key / f"{quote(name, safe='')}.safetensors"

    def _write(self, key: str, target: Path, write: Any) -> None:
        handle, draft = tempfile.mkstemp(dir=self.folder / key, prefix=".draft-")
        os.close(handle)
        try:
            write(Path(draft))
            Path(draft).replace(target)
        finally:
            Path(draft).unlink(missing_ok=True)

    def _touch(self, key: str) -> None:
        try:
            os.utime(self.folder / key)
        except OSError:
            return

    def _evict(self, spare: str) -> None:
        folders = sorted((path for path in self.folder.iterdir() if path.is_dir()), key=_last_use, reverse=True)
        total = 0
        for path in sorted(folders, key=lambda path: path.name != spare):  # a stable sort: the newest stays first
            total += _size(path)
            if total > self.limit:
                shutil.rmtree(path, ignore_errors=True)


def _save(value: Tensor, path: Path) -> None:
    save_file({"values": value.detach().to("cpu").contiguous()}, path)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return sum(file.stat().st_size for file in path.iterdir())
    except OSError:
        return 0
