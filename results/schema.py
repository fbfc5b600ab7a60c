"""The store's tables in SQL, and how the file of an earlier version comes to them."""

from __future__ import annotations

import functools
import json
import sqlite3
from typing import Any

SCHEMA_VERSION = 3

IDENTITY_INDEX = """CREATE UNIQUE INDEX run_cells_identity ON run_cells (
    run_id, evaluator, model, dataset, seed, detector, attack, ifnull(epsilon, -1), ood_dataset,
    corruption, ifnull(severity, -1), role)"""
DECLARATIONS = "CREATE TABLE declarations (run_id TEXT PRIMARY KEY, declarations TEXT NOT NULL)"
SCHEMA = f"""
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT UNIQUE NOT NULL, suite TEXT NOT NULL,
    suite_text TEXT NOT NULL, provenance TEXT NOT NULL, status TEXT NOT NULL DEFAULT '',
    started_at TEXT NOT NULL, ended_at TEXT NOT NULL DEFAULT '');
CREATE TABLE run_cells (
    run_id TEXT NOT NULL REFERENCES runs (run_id), position INTEGER NOT NULL, key TEXT NOT NULL,
    evaluator TEXT NOT NULL, model TEXT NOT NULL, dataset TEXT NOT NULL, seed INTEGER NOT NULL,
    detector TEXT NOT NULL, attack TEXT NOT NULL, epsilon REAL, ood_dataset TEXT NOT NULL,
    corruption TEXT NOT NULL, severity INTEGER,
    role TEXT NOT NULL,
    architecture TEXT NOT NULL, recipe TEXT NOT NULL, norm TEXT NOT NULL, ood_group TEXT NOT NULL,
    params TEXT NOT NULL, PRIMARY KEY (run_id, position)) WITHOUT ROWID;
{IDENTITY_INDEX};
CREATE TABLE cells (
    key TEXT PRIMARY KEY, run_id TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    traceback TEXT NOT NULL, seconds REAL NOT NULL, device TEXT NOT NULL, created_at TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '');
CREATE TABLE measurements (
    key TEXT NOT NULL, position INTEGER NOT NULL, metric TEXT NOT NULL, class_name TEXT NOT NULL,
    value REAL, ci_low REAL, ci_high REAL, n INTEGER, PRIMARY KEY (key, position)) WITHOUT ROWID;
CREATE TABLE arrays (
    key TEXT NOT NULL, name TEXT NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
    checksum TEXT, PRIMARY KEY (key, name));
CREATE TABLE histories (key TEXT PRIMARY KEY, label TEXT NOT NULL, history TEXT NOT NULL);
{DECLARATIONS};
"""

#: Version 1 had no roles; what a cell is stood in its params, and of held-out classes in the dataset's name.
_TO_VERSION_2 = (
    "ALTER TABLE run_cells ADD COLUMN role TEXT NOT NULL DEFAULT 'measured'",
    "UPDATE run_cells SET role = old_role(evaluator, dataset, ood_group, params), "
    "params = old_params(dataset, ood_group, params)",
    "DROP INDEX run_cells_identity",
    IDENTITY_INDEX,
    DECLARATIONS,
    "ALTER TABLE cells ADD COLUMN error TEXT NOT NULL DEFAULT ''",
    "PRAGMA user_version = 2",
)
#: Arrays of version 2 had no checksum; theirs stays NULL.
_TO_VERSION_3 = ("ALTER TABLE arrays ADD COLUMN checksum TEXT", "PRAGMA user_version = 3")


def migrated(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection with the present schema: its file is brought to it, or a copy in memory where it is read-only."""
    if _version(connection) == SCHEMA_VERSION:
        return connection
    try:
        _migrate(connection)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise
        copy = sqlite3.connect(":memory:", isolation_level=None)
        connection.backup(copy)
        connection.close()
        _migrate(copy)
        return copy
    return connection


def old_role(evaluator: str, dataset: str, ood_group: str, params: str) -> str:
    """The role of a cell that was recorded before there were roles."""
    known = _parsed(params)
    attack = known.get("attack")
    if evaluator == "checks":
        return "check"
    if evaluator == "attack" and isinstance(attack, dict) and attack.get("name") == "worst-case" and "of" in attack:
        return "worst-case"
    if (evaluator == "ood" and isinstance(known.get("ood"), list)) or (evaluator == "corruption" and "mean" in known):
        return "mean"
    return "held-out" if _held_out(dataset, ood_group, params) else "measured"


def old_params(dataset: str, ood_group: str, params: str) -> str:
    """The params of such a cell, with the dataset and the class that it is about where that was left out in turn."""
    held_out = _held_out(dataset, ood_group, params)
    return json.dumps({**_parsed(params), "held_out": held_out}, sort_keys=True) if held_out else params


def _held_out(dataset: str, ood_group: str, params: str) -> dict[str, str] | None:
    """Dataset of origin and class; version 1 called them ``NAME without CLASS``, and their group ``held-out``."""
    described = _parsed(params).get("dataset")
    classes = described.get("hold_out") if isinstance(described, dict) and ood_group == "held-out" else None
    if not isinstance(classes, list) or len(classes) != 1 or not dataset.endswith(f" without {classes[0]}"):
        return None
    return {"of": dataset.removesuffix(f" without {classes[0]}"), "class": str(classes[0])}


def _migrate(connection: sqlite3.Connection) -> None:
    connection.create_function("old_role", 4, old_role, deterministic=True)
    connection.create_function("old_params", 3, old_params, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        steps = (_TO_VERSION_2, _TO_VERSION_3)[_version(connection) - 1 :]  # another process may have done it since
        for statement in (statement for step in steps for statement in step):
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@functools.lru_cache(maxsize=4096)
def _parsed(params: str) -> dict[str, Any]:
    try:
        known = json.loads(params or "{}")
    except json.JSONDecodeError:
        return {}
    return known if isinstance(known, dict) else {}
