"""What an evaluator is to tables, plots and the page, as plain data: bench writes it into the store with each run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .metrics import Metric


@dataclass(frozen=True)
class TableSpec:
    """A table: which rows of the tidy frame, laid out how. Several of one name are tables of one preset.

    Attributes:
        name: Of the preset, as in ``gauntlet table NAME``.
        title: One for each ID dataset, with ``{dataset}`` in it; also ``{metric}`` (its title), ``{in_percent}``
            (`` in %`` of shares), ``{percent}`` (`` (%)``) and ``{against}`` (`` against SET`` of a single OOD set).
        evaluator: Whose cells.
        metrics: What stands in the cells; several where ``metric`` is among the rows or columns.
        rows: Columns of the frame for the row headers; one like ``model?`` only where its values vary.
        columns: The same for the column headers.
        where: What rows must hold: column -> value, ``None`` for a gap, ``{"not": value}`` for any other.
        measured: Only those of the metrics that some cell has; no table where none has one and all cells are ok.
        absent: What the note on gaps says; ``reasons``: what cells say that lack one of the metrics.
        options: Of :func:`~gauntlet.results.layout.pivot`, unless the reader wants others.
        transform: Name of the function that prepares the rows (:data:`~gauntlet.results.presets.TRANSFORMS`).
        reads: Metrics beside ``metrics`` that it reads.
    """

    name: str
    title: str
    evaluator: str
    metrics: tuple[str, ...]
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    measured: bool = False
    absent: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    transform: str = ""
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluatorDeclaration:
    """An evaluator: its heading, its place among others, its metrics, its tables and the kinds of its plots."""

    name: str
    title: str
    order: int = 0
    metrics: tuple[Metric, ...] = ()
    tables: tuple[TableSpec, ...] = ()
    plots: tuple[str, ...] = ()


def as_json(declarations: Iterable[EvaluatorDeclaration]) -> str:
    """Declarations as text for the store."""
    return json.dumps([asdict(one) for one in declarations], sort_keys=True)


def from_json(text: str) -> list[EvaluatorDeclaration]:
    """What :func:`as_json` wrote, also by a version with fewer or more fields."""
    return [
        _made(
            EvaluatorDeclaration,
            {
                **known,
                "metrics": [_made(Metric, metric) for metric in known.get("metrics", ())],
                "tables": [_made(TableSpec, table) for table in known.get("tables", ())],
            },
        )
        for known in json.loads(text)
    ]


def _made(kind: Any, known: Mapping[str, Any]) -> Any:
    names = {one.name for one in fields(kind)}
    return kind(**{name: _frozen(value) for name, value in known.items() if name in names})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
