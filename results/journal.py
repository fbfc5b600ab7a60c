"""Journals: what a worker finished, in a file of its own that only grows, until it is collected into the store.

A record is a mark, its length, a digest, and JSON with the bytes of arrays behind it. What a killed process or a power
cut leaves of the last one is not read; of one that is damaged neither, and those after it are.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from .database import pack, unpack
from .records import CellResult, Measurement
from .store import Store

_HEAD = struct.Struct(">4sQ16s")
_MARK = b"GJ1\n"
_TEXTS = ("status", "reason", "traceback", "seconds", "device", "error")

#: A record: what it is and of what, and its arrays.
Record = tuple[dict[str, Any], dict[str, np.ndarray]]


class Journal:
    """A file that records are added to, by one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def add(self, arrays: Mapping[str, np.ndarray] | None = None, **facts: Any) -> None:
        """Append a record; when this returns, the death of the process does not lose it."""
        packed = [(name, *pack(name, array)[:3]) for name, array in (arrays or {}).items()]
        heads = [(name, dtype, shape, len(data)) for name, dtype, shape, data in packed]
        text = json.dumps({**facts, "arrays": heads}, default=str).encode()
        body = b"".join([len(text).to_bytes(8, "big"), text, *(data for *_, data in packed)])
        self._file.write(_HEAD.pack(_MARK, len(body), _digest(body)) + body)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JournalReader:
    """Reads what is new in a journal that somebody may be writing."""

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def new(self) -> Iterator[Record]:
        """Whole records behind those that were read before."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                mark, length, wanted = _HEAD.unpack(head)
                if mark != _MARK or self._offset + _HEAD.size + length > self.path.stat().st_size:
                    return
                body = file.read(length)
                self._offset += _HEAD.size + length
                if _digest(body) == wanted:
                    yield _taken_apart(body)


def result_facts(result: CellResult) -> dict[str, Any]:
    """A result without its arrays, for :meth:`Journal.add`."""
    return {**{name: getattr(result, name) for name in _TEXTS}, "measurements": [*map(astuple, result.measurements)]}


def result_of(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> CellResult:
    """The result that :func:`result_facts` told of."""
    measurements = tuple(Measurement(*one) for one in facts["measurements"])
    return CellResult(measurements=measurements, arrays=arrays, **{name: facts[name] for name in _TEXTS})


def collect(records: Iterable[Record], store: Store, run_id: str) -> Iterator[Record]:
    """Put what records tell into the store, and pass them on; a second time changes nothing."""
    for facts, arrays in records:
        if facts["kind"] == "cell":
            store.put(run_id, facts["key"], result_of(facts["result"], arrays))
        elif facts["kind"] == "arrays":
            store.put_arrays(facts["key"], arrays)
        elif facts["kind"] == "history":
            store.put_history(facts["key"], facts["label"], facts["rows"])
        yield facts, arrays


class JournalStore:
    """What a worker takes for the store: it reads the store and all journals of its run, and writes its own journal."""

    has_file = True

    def __init__(self, store: Store, journal: Journal) -> None:
        self.path, self._store, self.journal = store.path, store, journal
        self._readers: dict[Path, JournalReader] = {}
        self._results: dict[str, CellResult] = {}
        self.suspects: set[str] = set()

    def catch_up(self) -> None:
        """Read what other workers have journaled since, and which cells ended a process."""
        for path in sorted(self.journal.path.parent.glob("*.journal")):
            for facts, arrays in self._readers.setdefault(path, JournalReader(path)).new():
                if facts["kind"] == "cell":
                    self._results[facts["key"]] = result_of(facts["result"], arrays)
                elif facts["kind"] == "suspects":
                    self.suspects |= set(facts["keys"])

    def settled(self, keys: Iterable[str]) -> set[str]:
        """Those that need not be computed in this run: they are ok in the store, or any worker has a result."""
        keys = list(keys)
        return self._store.settled(keys) | {key for key in keys if key in self._results}

    def result(self, key: str) -> CellResult | None:
        """The result of a key."""
        return self._results.get(key) or self._store.result(key)

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """Arrays under a key."""
        return self._store.arrays(key)

    def put(self, run_id: str, key: str, result: CellResult) -> None:
        """Journal a result."""
        self._results[key] = result
        self.journal.add(result.arrays, kind="cell", key=key, result=result_facts(result))

    def put_arrays(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Journal arrays."""
        self.journal.add(arrays, kind="arrays", key=key)

    def put_history(self, key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Journal the history of a training."""
        self.journal.add(kind="history", key=key, label=label, rows=[dict(row) for row in rows])


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()


def _taken_apart(body: bytes) -> Record:
    start = 8 + int.from_bytes(body[:8], "big")
    facts, arrays = json.loads(body[8:start]), {}
    for name, dtype, shape, length in facts.pop("arrays"):
        arrays[name] = unpack(dtype, shape, body[start : start + length])
        start += length
    return facts, arrays
