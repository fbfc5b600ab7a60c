"""The drift check: freeze results as a small CSV, compare later ones with it, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from .display import number
from .factorize import group_index, joint_keys
from .frame import present_columns, read_columns, write_csv
from .layout import header, reasons_of, shown
from .metrics import headline_metrics
from .records import IDENTITY_COLUMNS, LABEL_COLUMNS, MISSING, describe
from .table import Cell, Cells, Table
from .tolerance import Noise, Rule, allowed_differences

BASELINE_COLUMNS = (*IDENTITY_COLUMNS, "metric", "value", "ci_low", "ci_high", "n")
REPORT_COLUMNS = (
    *IDENTITY_COLUMNS,
    "metric",
    "baseline",
    "current",
    "difference",
    "allowed",
    "verdict",
    "reason",
)
Row = pd.Series | Mapping[Any, Any]

_MATCH = [*IDENTITY_COLUMNS, "metric"]
_VALUES = ["value", "ci_low", "ci_high"]
_DIGITS = 6  # after the point; far finer than any tolerance, and the file stays diffable


@dataclass(frozen=True)
class Report:
    """Outcome of a comparison.

    Attributes:
        rows: One row per measurement, in columns :data:`REPORT_COLUMNS`; ``verdict`` is ``same`` (shown to differ by no
            more than the tolerance), ``drifted``, ``cannot tell`` (too few images to show either), ``improved``
            (changed for the better where only the worse counts), ``missing`` (in the baseline but not
            ok or not planned now; ``reason`` says which) or ``new``.
    """

    rows: pd.DataFrame

    @property
    def exit_status(self) -> int:
        """0: all is well. 1: something drifted. 2: nothing drifted, but cells of the baseline are missing or not ok.

        Drift wins over missing, because a known change of a number says more than an unknown one.
        """
        verdicts = set(self.rows["verdict"].unique())
        return 1 if "drifted" in verdicts else 2 if "missing" in verdicts else 0

    @property
    def summary(self) -> str:
        """The counts in one sentence."""
        counts = self.rows["verdict"].value_counts()
        some = [verdict for verdict in ("improved", "cannot tell") if verdict in counts]
        shown = ("same", *some, "drifted", "missing", "new")
        words = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in shown)
        if set(counts.index) <= {"missing", "new"}:
            return f"{words}: the baseline and the results share no measurement; are they of the same suite?"
        return f"{words}."

    @property
    def sentences(self) -> list[str]:
        """One sentence for every measurement that drifted or is missing, naming it."""
        return [sentence(row) for _, row in self.bad.iterrows()]

    @property
    def bad(self) -> pd.DataFrame:
        """The rows that drifted, then those that are missing."""
        return pd.concat([self.rows[self.rows["verdict"] == verdict] for verdict in ("drifted", "missing")])

    def table(self, only_bad: bool = True) -> Table:
        """The rows (with ``only_bad`` those that drifted or are missing) as a table."""
        rows = self.bad if only_bad else self.rows
        used = [name for name in LABEL_COLUMNS if any(header(name, value) for value in rows[name].unique())]
        names = [*used, "metric"]
        columns = ("baseline", "current", "difference", "allowed", "verdict")
        return Table(
            title="Drift check",
            row_names=tuple(names),
            rows=tuple(
                tuple(shown(name, value) for name, value in zip(names, key, strict=True))
                for key in rows[names].itertuples(index=False)
            ),
            columns=tuple((name,) for name in columns),
            body=Cells.of([_cells(*row) for row in rows[[*columns, "reason"]].itertuples(index=False)]),
            notes=(self.summary,),
        )


def make_baseline(frame: pd.DataFrame, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """The measurements to freeze: of ok cells, over all classes, sorted by identity.

    Args:
        frame: Tidy results.
        metrics: Which metrics; by default the headline ones.

    Returns:
        Columns :data:`BASELINE_COLUMNS`, values rounded to six places.

    Raises:
        GauntletError: A metric was not measured, or nothing is left to freeze.
    """
    ok = frame[(frame["status"] == "ok") & (frame["class"] == "")]
    for name in metrics or ():
        if name not in set(ok["metric"]):
            raise GauntletError(f"No result has the metric {name!r}; {nearest(name, set(ok['metric']) - {''})}")
    chosen = ok[ok["metric"].isin(headline_metrics() if metrics is None else metrics)]
    if chosen.empty:
        raise GauntletError(
            f"There is nothing to freeze: no ok result has a metric of {', '.join(metrics or headline_metrics())}."
        )
    (order,) = joint_keys([chosen], _MATCH)
    baseline = chosen.loc[:, list(BASELINE_COLUMNS)].iloc[np.argsort(order, kind="stable")]
    return baseline.assign(**{name: baseline[name].round(_DIGITS) for name in _VALUES}).reset_index(drop=True)


def write_baseline(baseline: pd.DataFrame, path: Path | str) -> Path:
    """Write a baseline as CSV, whole or not at all."""
    return write_csv(baseline.loc[:, list(BASELINE_COLUMNS)], path)


def read_baseline(path: Path | str) -> pd.DataFrame:
    """Read a baseline that :func:`write_baseline` wrote; one from before there were roles has empty ones.

    Raises:
        GauntletError: The file is absent, not a baseline, empty, holds text for a number, or a row twice.
    """
    whole = ("seed", "severity", "n")
    columns = present_columns(path, BASELINE_COLUMNS)
    frame = read_columns(path, columns, floats=("epsilon", *_VALUES), integers=whole)
    if frame.empty:
        raise GauntletError(f"The baseline {path} holds no rows; `gauntlet baseline` writes one.")
    frame = (frame if "role" in frame else frame.assign(role="")).loc[:, list(BASELINE_COLUMNS)]
    _, first = group_index(frame, _MATCH)
    if len(first) < len(frame):
        twice = int(np.setdiff1d(np.arange(len(frame)), first)[0])
        raise GauntletError(f"The baseline {path} holds row {twice + 2} twice; delete one of them.")
    return frame


def identity_of(row: Row) -> str:
    """The cell of a report's row in words."""
    return describe({name: None if pd.isna(row[name]) else row[name] for name in IDENTITY_COLUMNS})


def sentence(row: Row) -> str:
    """What happened to one measurement of a report, in words that name it."""
    what = f"{identity_of(row)}: {row['metric']}"
    if row["verdict"] in ("missing", "new"):
        return f"{what} is {row['verdict']}{': ' if row['reason'] else ''}{row['reason']}"
    change = f"{number(row['baseline'], 4)} to {number(row['current'], 4)}"
    return f"{what} went from {change} ({row['difference']:+.4f}, allowed {number(row['allowed'], 4)})"


def compare(
    baseline: pd.DataFrame,
    current: pd.DataFrame,
    *,
    tolerance: float = 0.03,
    rules: Sequence[Rule] = (),
    noise: Noise | None = None,
) -> Report:
    """Compare results with a baseline, matched by identity and metric.

    A value has drifted where it differs by more than the larger of ``tolerance`` and half the widths of both 95 %
    intervals, added: the same seed trains to slightly different weights with another number of threads. It is the same
    where two one-sided tests at 5 % show that it differs by no more than the tolerance (Schuirmann 1987), or where
    value and number of images are equal; else nobody can tell. Where per-sample values of both sides are at hand,
    ``noise`` gives half the interval of their paired difference instead, which is far narrower.

    Args:
        baseline: Of :func:`make_baseline` or :func:`read_baseline`.
        current: Tidy results; only metrics that the baseline holds count, and no per-class rows.
        tolerance: Absolute difference that is always allowed, in the metric's unit.
        rules: What holds instead for some measurements; of several that match, the last.
        noise: Half the 95 % interval of a measurement's difference from its samples, or None without samples.

    Raises:
        GauntletError: The tolerance is not a number >= 0.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise GauntletError(f"The tolerance must be a number >= 0, got {tolerance}.")
    rules = [Rule({}, "statistical", tolerance), *rules]
    overall = current[current["class"] == ""]
    values = overall[(overall["status"] == "ok") & overall["metric"].isin(baseline["metric"].unique())]
    both = _joined(_with_roles(baseline, overall), values)
    missing = np.flatnonzero(both["verdict"] == "missing")
    both["reason"] = ""
    both.loc[missing, "reason"] = _reasons(both.loc[missing], overall[overall["status"] != "ok"])
    return Report(_judge(both, rules, noise))


def _with_roles(baseline: pd.DataFrame, current: pd.DataFrame) -> pd.DataFrame:
    """A baseline from before there were roles takes those of the cells of the results with the same labels."""
    unknown = (baseline["role"] == "").to_numpy()
    if not unknown.any():
        return baseline
    wanted, known = joint_keys([baseline[unknown], current], LABEL_COLUMNS)
    role_of = pd.Series(current["role"].to_numpy(dtype=object), index=known).groupby(level=0).first()
    roles = baseline["role"].to_numpy(dtype=object, copy=True)
    roles[unknown] = role_of.reindex(wanted).fillna("measured").to_numpy(dtype=object)
    return baseline.assign(role=roles)


def _joined(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Baseline and results side by side, sorted by identity and metric, one row each that either side has.

    ``verdict`` says what is ``missing`` or ``new``; both sides' values are NaN where they have none.
    """
    old_id, new_id = joint_keys([old, new], _MATCH)
    place = pd.Index(new_id).get_indexer(old_id)  # where in the results each row of the baseline is, or -1
    new_only = np.ones(len(new), dtype=bool)
    new_only[place[place >= 0]] = False
    added = np.flatnonzero(new_only)
    names = old.loc[:, _MATCH]
    rows = pd.concat([names, new.loc[:, _MATCH].iloc[added]]) if len(added) else names
    numbers = (*_VALUES, "n")
    sides = {f"{name}_old": np.append(_floats(old[name]), np.full(len(added), np.nan)) for name in numbers}
    found = np.append(place, added)
    sides |= {f"{name}_new": np.append(_floats(new[name]), np.nan)[found] for name in numbers}
    verdict = np.repeat(["found", "new"], [len(old), len(added)]).astype(object)
    verdict[: len(old)][place == -1] = "missing"
    order = np.argsort(np.append(old_id, new_id[added]), kind="stable")
    return rows.assign(**sides, verdict=verdict).iloc[order].reset_index(drop=True)


def _reasons(missing: pd.DataFrame, bad: pd.DataFrame) -> np.ndarray:
    """Why there is no value: what the cell that is not ok says, or that there is none."""
    wanted, known = joint_keys([missing, bad], IDENTITY_COLUMNS)
    place = pd.Series(np.arange(len(known)), index=known).groupby(level=0).first()
    found = place.reindex(wanted).fillna(len(known)).astype(int)
    reasons = bad["reason"].astype(object).where(bad["status"] == MISSING, reasons_of(bad))
    return np.append(reasons.to_numpy(dtype=object), "not planned")[found]


def _judge(both: pd.DataFrame, rules: Sequence[Rule], noise: Noise | None) -> pd.DataFrame:
    old, new = both["value_old"].to_numpy(), both["value_new"].to_numpy()
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, new - old)
    allowed, direction, sure = allowed_differences(both, rules, noise)
    rounding = 10.0**-_DIGITS
    drifted = ~(np.abs(difference) <= allowed + rounding)  # also where one of the values is NaN
    better = drifted & (direction * np.nan_to_num(difference) > 0) & np.isfinite(new)
    counts = both["n_old"].to_numpy(), both["n_new"].to_numpy()
    equal = (np.abs(difference) <= rounding) & ((counts[0] == counts[1]) | np.isnan(counts[0] + counts[1]))
    unsure = ~drifted & ~equal & ~(np.abs(difference) <= sure + rounding)
    verdict, reason = both["verdict"].to_numpy(dtype=object), both["reason"].to_numpy(dtype=object)
    paired = verdict == "found"
    names = np.array(["same", "drifted", "improved", "cannot tell"], dtype=object)
    verdict[paired] = names[np.where(unsure, 3, drifted.astype(int) + better)][paired]
    reason[paired & unsure] = "too few images"
    rows = both.assign(
        baseline=old,
        current=new,
        difference=np.where(paired, difference, np.nan),
        allowed=np.where(paired, allowed, np.nan),
        verdict=verdict,
        reason=reason,
    )
    return rows.loc[:, list(REPORT_COLUMNS)]


def _floats(column: pd.Series) -> np.ndarray:
    return column.to_numpy(dtype=float, na_value=np.nan)


def _cells(
    baseline: float, current: float, difference: float, allowed: float, verdict: str, reason: str
) -> list[str | Cell]:
    values = (baseline, current, difference, allowed)
    cells: list[str | Cell] = [" " if np.isnan(value) else Cell(value, digits=4) for value in values]
    return [*cells, f"{verdict} ({reason})" if reason else verdict]
