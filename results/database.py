"""The SQLite file behind the store: schema, opening, and errors in words."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..registry import GauntletError
from ..registry.safe_files import checksum
from .records import Measurement
from .schema import SCHEMA, SCHEMA_VERSION, migrated

APPLICATION_ID = 0x474E544C  # "GNTL", tells our files from other programs'
BUSY_SECONDS = 60.0


def connect(path: Path, *, create: bool, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open the store file, making it (and its folder) first where ``create`` allows.

    Raises:
        GauntletError: The file is absent, not writable, not a store, of a newer version, or locked too long.
    """
    if not create and not path.is_file():
        raise GauntletError(f"There is no store at {path}; `gauntlet run` writes one, `--out` names another folder.")
    with explained(path):
        if create:
            _make_folder(path.parent)
        connection = sqlite3.connect(_address(path, create), timeout=timeout, isolation_level=None, uri=True)
    try:
        with explained(path):
            _prepare(connection, path, create=create, deadline=time.monotonic() + timeout)
            connection = migrated(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def in_memory() -> sqlite3.Connection:
    """An empty store that is gone when it is closed."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _make_schema(connection, Path(":memory:"))
    return connection


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one sentence that names the file and what to do.

    Raises:
        GauntletError: SQLite failed; the message says what helps.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte; the rest refines it
        if isinstance(error, OSError):
            code = sqlite3.SQLITE_CANTOPEN
        if isinstance(error, sqlite3.ProgrammingError):
            raise
        if code not in _WORDS:
            raise GauntletError(DAMAGED.format(path=path, error=error)) from error
        raise GauntletError(_WORDS[code].format(path=path, folder=path.parent)) from error


DAMAGED = "The store {path} is damaged ({error}); move it away or restore a copy of it."
_NOT_WRITABLE = "The store {path} cannot be written; make {folder} a writable folder or choose another with `--out`."
_WORDS = {
    sqlite3.SQLITE_CANTOPEN: _NOT_WRITABLE,
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
    sqlite3.SQLITE_NOTADB: "{path} is not a Gauntlet store (not an SQLite file at all); move it away or choose "
    "another folder with `--out`.",
    sqlite3.SQLITE_CORRUPT: "The store {path} is damaged; move it away or restore a copy of it.",
    sqlite3.SQLITE_FULL: "The disk that holds {path} is full; all finished cells are safe in the store, so free "
    "some space and run again to go on from here.",
    sqlite3.SQLITE_IOERR: "Reading or writing {path} failed (disk full, quota reached, or a fault of the disk); "
    "what was committed before is safe, so put that right and run again to go on from here.",
    sqlite3.SQLITE_BUSY: "The store {path} is locked by another process for too long; wait for that process to "
    "finish or end it, then run again.",
}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise GauntletError(f"{folder} is a file, not a folder; choose another output folder with `--out`.") from None


def _address(path: Path, create: bool) -> str:
    """URI of the file; a store that is only read may lie on a read-only disk.

    There SQLite cannot make the WAL's side files; ``immutable`` does without them, and is right as long as nobody
    can write, which is so where no WAL is left over.
    """
    uri = path.absolute().as_uri()
    if create:
        return f"{uri}?mode=rwc"
    frozen = not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    return f"{uri}?mode=ro&immutable=1" if frozen else f"{uri}?mode=rw"


def _prepare(connection: sqlite3.Connection, path: Path, *, create: bool, deadline: float) -> None:
    if not _check(connection, path):
        if not create:
            raise GauntletError(f"{path} is empty, not a Gauntlet store; `gauntlet run` writes one.")
        _use_wal(connection, deadline)
        _make_schema(connection, path)
    # With a WAL, NORMAL loses nothing that was committed when a process is killed; only a power cut may take the
    # last cells, and the next run computes those again. FULL would wait for the disk after every cell.
    connection.execute("PRAGMA synchronous = NORMAL")


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Switch to WAL; where several processes do so at once SQLite refuses without waiting, so wait here."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _make_schema(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _check(connection, path):  # another process may have made it since
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file holds our schema; an empty file does not, and anything else is an error."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables and not application:
        return False
    if application != APPLICATION_ID:
        raise GauntletError(
            f"{path} is an SQLite file of another program; move it away or choose another folder with `--out`."
        )
    if version > SCHEMA_VERSION:
        raise GauntletError(
            f"The store {path} was made by a newer version of Gauntlet (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); upgrade gauntlet-bench or choose another folder with `--out`."
        )
    return True


def pack(name: str, array: Any) -> tuple[str, str, bytes, str]:
    """Type, shape, bytes and checksum of an array, so that it comes back bit for bit without pickle.

    Raises:
        GauntletError: The array holds neither numbers nor flags.
    """
    array = np.asarray(array)
    if array.dtype.hasobject or array.dtype.names:
        raise GauntletError(f"The array {name!r} has dtype {array.dtype}; the store keeps plain numbers and text only.")
    held = array.dtype.str, json.dumps(array.shape), array.tobytes()
    return *held, array_checksum(name, *held)


def unpack(dtype: str, shape: str, data: bytes) -> np.ndarray:
    """The array that :func:`pack` took apart, writable."""
    return np.frombuffer(data, dtype=np.dtype(dtype)).reshape(json.loads(shape)).copy()


def array_checksum(name: str, dtype: str, shape: str, data: bytes) -> str:
    """Of an array as :func:`pack` takes it apart."""
    return checksum([(name, dtype, tuple(json.loads(shape)), data)])


def is_whole(name: str, dtype: str, shape: str, data: bytes, expected: str | None) -> bool:
    """Whether an array is what was written; those of earlier versions have no checksum."""
    try:
        return expected is None or expected == array_checksum(name, dtype, shape, data)
    except (TypeError, ValueError):  # damaged shape
        return False


def unpack_all(rows: Iterable[tuple[Any, ...]], path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from rows of the store at ``path`` (name, type, shape, bytes, checksum).

    Raises:
        GauntletError: One is not what was written.
    """
    found = {}
    for name, dtype, shape, data, expected in rows:
        if not is_whole(name, dtype, shape, data, expected):
            raise GauntletError(f"{path}: the stored array {name!r} is damaged; run the suite again to remake it.")
        found[name] = unpack(dtype, shape, data)
    return found


def bindable(one: Measurement) -> tuple[Any, ...]:
    """A measurement in types that SQLite takes; numpy's are none."""
    numbers = (None if value is None else float(value) for value in (one.value, one.ci_low, one.ci_high))
    return (one.metric, one.class_name, *numbers, None if one.n is None else int(one.n))
