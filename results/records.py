"""What the runner hands to the store: planned cells, their identity, and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ..registry import GauntletError, nearest

STATUSES = ("ok", "skipped", "failed", "timeout", "out-of-memory")
ROLES = ("measured", "mean", "worst-case", "held-out", "check")  # what a cell is among the others
REPORTED = "reported"  # reason of what others published
CRASH = "ProcessEnded"  # in place of an exception, of a cell whose computation ended its process
MISSING = "missing"  # shown for a planned cell without a record; never stored


@dataclass(frozen=True)
class Identity:
    """The coordinates of a cell in words; tables, baselines and the drift check match by them.

    Attributes:
        evaluator: ``accuracy``, ``attack``, ``ood``, ``calibration``, ...
        model: Label of the model, unique in its suite.
        dataset: Label of the in-distribution dataset.
        seed: Seed of training and evaluation.
        detector: Label of the OOD detector, or empty.
        attack: Label of the attack, or empty.
        epsilon: Lp radius, in units in which pixels span [0, 1]; ``None`` where there is no budget.
        ood_dataset: Label of the OOD set, or empty.
        corruption: Name of the corruption, or empty.
        severity: Severity of the corruption, or ``None``.
        role: One of :data:`ROLES`: ``measured``; a ``mean`` over other cells; the ``worst-case`` of several attacks;
            about the one class that the dataset leaves out in turn (``held-out``); a sanity ``check``.
    """

    evaluator: str
    model: str
    dataset: str
    seed: int = 0
    detector: str = ""
    attack: str = ""
    epsilon: float | None = None
    ood_dataset: str = ""
    corruption: str = ""
    severity: int | None = None
    role: str = "measured"

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise GauntletError(f"A cell cannot have the role {self.role!r}; {nearest(self.role, ROLES)}")

    def __str__(self) -> str:
        return describe({name: getattr(self, name) for name in IDENTITY_COLUMNS})


@dataclass(frozen=True)
class Facts:
    """Coordinates that describe a cell but do not identify it."""

    architecture: str = ""
    recipe: str = ""
    norm: str = ""
    ood_group: str = ""


@dataclass(frozen=True)
class Measurement:
    """One metric of one cell: its value, its 95 % interval and the number of samples behind it.

    ``class_name`` is empty for the value over all classes. ``None`` where there is no interval or no count.
    """

    metric: str
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    class_name: str = ""


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a run: what it is (identity), what decides its reuse (key), and what describes it."""

    identity: Identity
    key: str
    facts: Facts = Facts()
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CellResult:
    """What came out of a cell.

    Attributes:
        status: One of :data:`STATUSES`.
        reason: Why it is not ok, in one sentence.
        traceback: Of a failed cell.
        error: Of a failed cell, the class of the exception that was raised.
        measurements: The tidy values.
        arrays: Per-sample arrays by name (prediction, success, norm, score), any shape, no object dtype.
        examples: Image examples by name, where the suite asks for them; they go to a file beside the store.
        seconds: Time the cell took.
        device: Where it was computed.
        facts: What shows only on computing it, for the column ``params``.
    """

    status: str = "ok"
    reason: str = ""
    traceback: str = ""
    measurements: tuple[Measurement, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = ""
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    error: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise GauntletError(f"A cell cannot have the status {self.status!r}; {nearest(self.status, STATUSES)}")


@dataclass(frozen=True)
class RunRecord:
    """One run of a suite: its text, where it ran (provenance), and how it ended (empty while it runs)."""

    run_id: str
    suite: str
    suite_text: str
    provenance: Mapping[str, Any]
    status: str
    started_at: str
    ended_at: str
    cells: int


IDENTITY_COLUMNS = tuple(column.name for column in fields(Identity))
LABEL_COLUMNS = tuple(name for name in IDENTITY_COLUMNS if name != "role")  # what names a cell to people
FACT_COLUMNS = tuple(column.name for column in fields(Facts))


def coordinates(cell: PlannedCell) -> tuple[Any, ...]:
    """Identity and facts of a cell, in the order of :data:`IDENTITY_COLUMNS` and :data:`FACT_COLUMNS`."""
    identity, facts = vars(cell.identity), vars(cell.facts)
    return (*(identity[name] for name in IDENTITY_COLUMNS), *(facts[name] for name in FACT_COLUMNS))


def describe(coordinates: Mapping[str, Any]) -> str:
    """Coordinates in words, for messages: ``attack cell (model=cnn, dataset=digits, attack=pgd, epsilon=0.3)``.

    Labels alone: the role is for tables to decide by.
    """
    shown = [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in coordinates.items()
        if name not in ("evaluator", "role") and value not in ("", None) and value == value  # NaN differs from itself
    ]
    return f"{coordinates['evaluator']} cell ({', '.join(shown)})"


def check_distinct(cells: Sequence[PlannedCell]) -> None:
    """Raise a :class:`GauntletError` where two cells have one identity.

    Raises:
        GauntletError: Two cells have the same identity.
    """
    seen: set[Identity] = set()
    for cell in cells:
        if cell.identity in seen:
            raise GauntletError(f"The plan holds the {cell.identity} twice; labels must tell them apart.")
        seen.add(cell.identity)
