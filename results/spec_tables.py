"""Tables by their records: the rows that a record wants, laid out as it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ..registry import GauntletError
from .declarations import TableSpec
from .footnotes import ROBUST, checks_of
from .layout import by_dataset, pivot
from .metrics import metric_named
from .table import Table

CLEAN = "(clean)"
#: Tables with what each is about, usually the ID dataset: a preset's tables of one subject stand together.
Made = Iterator[tuple[str, Table]]
Options = Mapping[str, Any]


def plain(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """One table per ID dataset, of the rows that the record wants."""
    for dataset, part in by_dataset(wanted(frame, spec)):
        yield from lay_out(frame, part, dataset, spec, options)


def wanted(frame: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """The rows of the record's evaluator that meet its conditions."""
    rows = frame[frame["evaluator"] == spec.evaluator]
    for name, value in spec.where.items():
        other = isinstance(value, Mapping)
        meets = rows[name].isna() if value is None else rows[name] == (value["not"] if other else value)
        rows = rows[~meets if other else meets]
    return rows


def lay_out(
    frame: pd.DataFrame, part: pd.DataFrame, subject: str, spec: TableSpec, options: Options, **facts: Any
) -> Made:
    """The rows of one subject as the record says; ``facts`` fill further braces of its title.

    With the checks of the frame, so that doubtful figures are marked.
    """
    given = {name: value for name, value in options.items() if value is not None and name != "metric"}
    metrics = _metrics(part, spec, options)
    if not metrics:
        return
    rows = part if set(ROBUST).isdisjoint(metrics) else pd.concat([part, checks_of(frame)], ignore_index=True)
    settings = {"title": _title(spec, part, subject, metrics, facts), **_absent(spec, part, metrics), **spec.options}
    yield (
        subject,
        pivot(
            rows,
            _varying(part, spec.rows),
            _varying(part, spec.columns),
            metrics,
            **{"evaluator": spec.evaluator, **settings, **given},
        ),
    )


def _metrics(part: pd.DataFrame, spec: TableSpec, options: Options) -> list[str]:
    if metric := options.get("metric"):
        return [metric]
    if not spec.measured:
        return [*spec.metrics]
    present = set(part["metric"].unique())
    known = [name for name in spec.metrics if name in present]
    return known or [*spec.metrics[: int((part["status"] != "ok").any())]]  # nothing but failures, which are shown


def _varying(part: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [name.rstrip("?") for name in names if not name.endswith("?") or part[name[:-1]].nunique(dropna=False) > 1]


def _title(spec: TableSpec, part: pd.DataFrame, subject: str, metrics: Sequence[str], facts: Options) -> str:
    known = metric_named(metrics[0])
    words = {
        "dataset": subject,
        "metric": known.title,
        "in_percent": " in %" if known.percent else "",
        "percent": " (%)" if known.percent else "",
        "against": against(part),
        **facts,
    }
    try:
        return spec.title.format(**words)
    except (KeyError, IndexError, ValueError):
        known_words = ", ".join(f"{{{name}}}" for name in words)
        raise GauntletError(
            f"The title of the table {spec.name!r} may hold {known_words}, got {spec.title!r}."
        ) from None


def distinct(label: str, taken: pd.Series) -> str:
    """A header of our own that no label of the results has."""
    known = set(taken.unique())
    while label in known:
        label += "'"
    return label


def against(part: pd.DataFrame) -> str:
    """The only OOD set, for a title."""
    return f" against {part['ood_dataset'].iloc[0]}" if part["ood_dataset"].nunique() == 1 else ""


def _absent(spec: TableSpec, part: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """What the note on gaps says."""
    if spec.absent != "reasons":
        return {"absent": spec.absent} if spec.absent else {}
    ok = part[part["status"] == "ok"]
    found = ok[ok["class"] == ""].groupby("key", observed=True)["metric"].nunique()
    lacking = ok[ok["key"].isin(found.index[found < len(metrics)])]
    reasons = [reason.rstrip(".") for reason in lacking["reason"].astype(object).unique() if reason]
    return {"absent": "; ".join(reasons)} if reasons else {}
