"""Content hashes of many files; a file whose path, size and time are as before is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...registry import GauntletError
from ...registry.safe_files import write_whole

#: A file changed this recently (ns) may change again within the clock's resolution: its hash is not kept.
_SETTLED = 2_000_000_000
_WORKERS = min(os.cpu_count() or 1, 16)


def content_of(root: Path, names: Sequence[str], cache: Path) -> list[tuple[str, int, str]]:
    """Name, size in bytes and hash of the content of each file below ``root``, in order.

    Args:
        root: Where the names start.
        names: Relative paths.
        cache: Folder that keeps the hashes between runs, where it can be written.

    Raises:
        GauntletError: Files are absent or cannot be read; the message says how many, and names three.
    """
    kept = cache / "content-hashes" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]}.json"
    known = _read(kept)
    versions = _versions(root, names)
    stale = [name for name, version in zip(names, versions, strict=True) if known.get(name, ())[:2] != version]
    with ThreadPoolExecutor(_WORKERS) as pool:
        fresh = dict(zip(stale, pool.map(lambda name: _hash(root / name), stale), strict=True))
    now = time.time_ns()
    result, changed = [], False
    for name, version in zip(names, versions, strict=True):
        hashed = fresh.get(name) or known[name][2]
        result.append((name, version[0], hashed))
        if name in fresh and now - version[1] > _SETTLED:
            known[name], changed = [*version, hashed], True
    if changed:
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, lambda path: path.write_text(json.dumps(known), encoding="utf-8"))
    return result


def _versions(root: Path, names: Sequence[str]) -> list[list[int]]:
    """Size and modification time of each file."""
    found, absent, start = [], [], f"{root}/"
    for name in names:
        try:
            status = os.stat(start + name)  # noqa: PTH116  a Path for each of a million names takes seconds
            found.append([status.st_size, status.st_mtime_ns])
        except OSError:
            absent.append(name)
    if absent:
        raise GauntletError(f"{absent_files(absent, len(names))} {root}.")
    return found


def absent_files(absent: Sequence[str], total: int) -> str:
    """The beginning of a sentence about files that are not below some folder."""
    return f"{len(absent)} of {total} files ({', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}) are not below"


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise GauntletError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read(path: Path) -> dict[str, list]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {name: value for name, value in known.items() if isinstance(value, list) and len(value) == 3}
    except (OSError, ValueError, AttributeError):  # absent or damaged: it is only a cache
        return {}
