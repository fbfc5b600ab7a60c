"""The tables of the field: accuracy by attack, AUROC by detector, calibration by model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from .adversarial_table import adversarial_table
from .check_flags import checks_of
from .checks_table import checks_table
from .corruption_table import corruption_table, overall
from .formats import render
from .frame import write_text
from .layout import by_dataset, pivot
from .leave_one_class_out import by_origin, mean_over_classes
from .metrics import metric_named
from .open_set_tables import DECISIONS, MEDIANS, label_table, median_table, open_set_table
from .reconstruction_table import reconstruction_table
from .records import IDENTITY_COLUMNS
from .representation_table import JUDGED, representation_table
from .table import Table

CLEAN = "(clean)"
OOD_LAYOUTS = ("sets", "groups", "models")
_CALIBRATION = ("ece", "ece_scaled", "rms", "mce", "signed_gap", "nll", "brier", "temperature")


def attack_grid(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Accuracy in percent by attack and epsilon (rows, clean accuracy first) and model (columns).

    One table per ID dataset; none where nothing was attacked.
    """
    attacks = _as_robust(frame[frame["evaluator"] == "attack"], "robust_accuracy")
    clean = _as_robust(frame[frame["evaluator"] == "accuracy"], "accuracy").assign(attack=CLEAN)
    return [
        pivot(
            pd.concat([clean[clean["dataset"] == dataset], part, checks_of(frame)], ignore_index=True),
            rows=["attack", "epsilon"],
            columns=["model"],
            metric="robust_accuracy",
            **{"title": f"Accuracy under attack on {dataset} (%)", **options},
        )
        for dataset, part in by_dataset(attacks)
    ]


def _as_robust(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Values of a metric, and cells that are not ok, as robust accuracy."""
    wanted = cells[(cells["metric"] == metric) | ((cells["metric"] == "") & (cells["status"] != "ok"))]
    return wanted.assign(metric="robust_accuracy")


def ood_table(frame: pd.DataFrame, metric: str = "auroc", layout: str = "sets", **options: Any) -> list[Table]:
    """A metric of OOD detection, one table per ID dataset; none where no detector ran.

    Datasets that leave out one class after the other share a table, with the classes as columns and their mean, whose
    interval is the t interval of a mean over classes.

    Args:
        frame: Tidy results.
        metric: Which metric.
        layout: ``sets``: models and detectors down, OOD sets across, grouped near/far; ``groups``: the same with one
            mean per group (OpenOOD's); ``models``: OOD sets and detectors down, models across (report R2's).
        options: Of :func:`pivot`.

    Raises:
        GauntletError: The evaluator does not measure this metric, or there is no such layout.
    """
    if layout not in OOD_LAYOUTS:
        raise GauntletError(f"There is no layout {layout!r} of the OOD table; {nearest(layout, OOD_LAYOUTS)}")
    known = metric_named(metric)
    scores = frame[frame["evaluator"] == "ood"]  # pivot picks the metric, and names the nearest to an unknown one
    tables = []
    for dataset, part in by_origin(scores):
        parts = [part, mean_over_classes(part, metric)]
        if layout == "groups" and (part["ood_group"] != "").any():
            parts = [parts[1], group_means(part)]  # that over classes knows its interval
        part = pd.concat([some for some in parts if len(some)] or parts, ignore_index=True)
        title = f"{known.title}{' in %' if known.percent else ''} of OOD detection on {dataset}"
        rows, columns = _ood_axes(part, layout)
        tables.append(pivot(part, rows, columns, metric, evaluator="ood", **{"title": title, **options}))
    return tables


def _ood_axes(part: pd.DataFrame, layout: str) -> tuple[list[str], list[str]]:
    if layout == "models":
        return (["ood_dataset", "detector"] if part["ood_dataset"].nunique() > 1 else ["detector"]), ["model"]
    rows = ["model", "detector"] if part["model"].nunique() > 1 else ["detector"]
    return rows, ["ood_group", "ood_dataset"] if (part["ood_group"] != "").any() else ["ood_dataset"]


def group_means(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean over the OOD sets of every group; not ok where one of its sets is not, so that means compare.

    The interval is that of a mean whose parts err together (they share the ID images): it errs on the wide side.
    """
    by = [name for name in (*IDENTITY_COLUMNS, "ood_group", "metric", "class") if name != "ood_dataset"]
    frame = frame[frame["role"] == "measured"]  # not the recorded means of named groups
    if frame.empty:
        return frame
    bad = frame[frame["status"] != "ok"]
    good = frame[frame["status"] == "ok"]
    marked = good["params"].str.contains('"stand_in"', regex=False)
    good = good.iloc[np.argsort(~marked.to_numpy(), kind="stable")]  # a mean bears the mark of any of its sets
    grouped = good.groupby(by, sort=False, dropna=False)
    means = grouped.first()
    means[["value", "ci_low", "ci_high"]] = grouped[["value", "ci_low", "ci_high"]].mean()
    sets = frame.groupby("ood_group")["ood_dataset"].nunique()
    means = means.reset_index()
    broken = [name for name in by if name not in ("metric", "class")]
    spoiled = means.merge(bad[broken].drop_duplicates(), how="left", on=broken, indicator="found")["found"].eq("both")
    means = pd.concat([means[~spoiled.to_numpy()], bad.drop_duplicates(broken)])
    labels = [f"mean of {sets[group]}" for group in means["ood_group"]]
    return means.assign(role="mean", ood_dataset=labels).loc[:, [*frame.columns]].reset_index(drop=True)


def safety_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """One row a model: accuracy, calibration, robustness, OOD detection and what else was measured."""
    tables = []
    for dataset, part in by_dataset(frame[frame["evaluator"].isin({item.evaluator for item in SAFETY})]):
        rows = [summary for item in SAFETY if len(summary := _summary(part, item))]
        names = list(dict.fromkeys(row["metric"].iloc[0] for row in rows))
        if names:
            table = pivot(pd.concat(rows, ignore_index=True), ["model"], ["metric"], names,
                          absent="not measured, or some of its cells failed, so that no mean is comparable",
                          **{"title": f"Safety summary on {dataset}", "percent": True, **options})  # fmt: skip
            titles = {item.name: item.title for item in SAFETY}
            tables.append(replace(table, columns=tuple((titles[name],) for name in names)))
    return tables


@dataclass(frozen=True)
class SafetyColumn:
    """A column of the safety table: the mean of a metric over all cells of an evaluator (of one OOD group).

    A group also tells columns of one metric apart.
    """

    title: str
    evaluator: str
    metric: str
    group: str = ""

    @property
    def name(self) -> str:
        """Metric and group, what the pivot knows the column by."""
        return f"{self.metric}@{self.group}" if self.group else self.metric


SAFETY = (
    SafetyColumn("Accuracy (%)", "accuracy", "accuracy"),
    SafetyColumn("ECE (%)", "calibration", "ece"),
    SafetyColumn("Accuracy under attack, mean (%)", "attack", "robust_accuracy"),
    SafetyColumn("AUROC near, mean (%)", "ood", "auroc", "near"),
    SafetyColumn("AUROC far, mean (%)", "ood", "auroc", "far"),
    SafetyColumn("Accuracy under corruption, mean (%)", "corruption", "accuracy", "corruption"),
    SafetyColumn("AURC (%)", "misclassification", "aurc"),
)


def _summary(part: pd.DataFrame, item: SafetyColumn) -> pd.DataFrame:
    """The column's value of every model and seed; of one with cells that failed, their status.

    Intervals are averaged, too: they are on the wide side, since the cells share their images and err together.
    """
    cells = part[(part["evaluator"] == item.evaluator) & (part["class"] == "")]
    cells = cells[cells["metric"].isin([item.metric, ""])]
    if item.evaluator == "corruption":
        cells = overall(cells)
    elif item.group:
        cells = cells[cells["ood_group"] == item.group]
    cells = cells[cells["role"] != "worst-case"]  # it is made of the others
    by_row = cells.groupby(["model", "seed"], sort=False, observed=True)
    single = len(cells) == by_row.ngroups
    found = []
    for _, own in by_row:
        ok = own["status"] == "ok"
        bad = ~own["status"].isin(["ok", "skipped"])
        # A mean over whatever was measured would rank models wrongly: the status stands there instead.
        own = own[bad] if bad.any() else own[ok] if ok.any() else own
        row = own.head(1).copy()
        if not single and ok.any() and not bad.any():
            row[["value", "ci_low", "ci_high"]] = own[["value", "ci_low", "ci_high"]].mean().to_numpy()
        found.append(row.assign(metric=item.name, evaluator="", attack="", detector="", epsilon=np.nan, ood_dataset=""))
    return pd.concat(found) if found else cells.head(0)


def calibration_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Calibration before and after temperature scaling by model (rows) and metric (columns), one per ID dataset."""
    wanted = frame[(frame["evaluator"] == "calibration") & frame["metric"].isin([*_CALIBRATION, ""])]
    tables = []
    for dataset, part in by_dataset(wanted):
        measured = [name for name in _CALIBRATION if name in set(part["metric"])] or ["ece"]
        title = f"Calibration on {dataset}"
        options_here = {"title": title, **_why_absent(part, measured), **options}
        tables.append(pivot(part, ["model"], ["metric"], measured, evaluator="calibration", **options_here))
    return tables


def _why_absent(part: pd.DataFrame, metrics: list[str]) -> dict[str, str]:
    """What the note on gaps says: the reasons of measured cells that lack one of the metrics."""
    ok = part[part["status"] == "ok"]
    found = ok[ok["class"] == ""].groupby("key", observed=True)["metric"].nunique()
    lacking = ok[ok["key"].isin(found.index[found < len(metrics)])]
    reasons = [reason.rstrip(".") for reason in lacking["reason"].astype(object).unique() if reason]
    return {"absent": "; ".join(reasons)} if reasons else {}


def minimal_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Median of the smallest successful budget by attack (rows) and model (columns), one per ID dataset.

    Only attacks that were asked for `minimal`; none where no attack was.
    """
    asked = (frame["evaluator"] == "attack") & frame["epsilon"].isna() & (frame["norm"] != "none")
    wanted = frame[asked & (frame["metric"] == "median_norm")]
    return [
        pivot(
            pd.concat([part, checks_of(frame)], ignore_index=True),
            rows=["norm", "attack"],
            columns=["model"],
            metric="median_norm",
            evaluator="attack",
            **{"title": f"Median of the smallest successful perturbation on {dataset}", **options},
        )
        for dataset, part in by_dataset(wanted)
    ]


@dataclass(frozen=True)
class Preset:
    """A table of the field: how it is made from a tidy frame, and of which metrics."""

    make: Callable[..., list[Table]]
    metrics: tuple[str, ...]

    def __call__(self, frame: pd.DataFrame, **options: Any) -> list[Table]:
        """The tables."""
        return self.make(frame, **options)


PRESETS = {
    "attack-grid": Preset(attack_grid, ("robust_accuracy", "accuracy")),
    "minimal": Preset(minimal_table, ("median_norm",)),
    "checks": Preset(checks_table, ("check_passed",)),
    "ood": Preset(ood_table, ("auroc",)),
    "adversarial-detection": Preset(adversarial_table, ("auroc",)),
    "open-set": Preset(open_set_table, DECISIONS),
    "open-set-labels": Preset(label_table, ("open_accuracy",)),
    "open-set-medians": Preset(median_table, MEDIANS),
    "corruptions": Preset(corruption_table, ("accuracy", "ece", "auroc")),
    "calibration": Preset(calibration_table, _CALIBRATION),
    "safety": Preset(safety_table, tuple(item.metric for item in SAFETY)),
    "reconstruction": Preset(reconstruction_table, ("reconstruction_mse",)),
    "representation": Preset(representation_table, JUDGED),
}


def write_tables(frame: pd.DataFrame, folder: Path | str) -> list[Path]:
    """Write every preset with content as Markdown and LaTeX; returns the files.

    A preset without content leaves no file behind, also none of an earlier run.

    Raises:
        GauntletError: The folder is not writable.
    """
    written = []
    for name, preset in PRESETS.items():
        tables = preset(frame)
        for suffix, fmt in ((".md", "github"), (".tex", "latex")):
            path = Path(folder) / f"{name}{suffix}"
            if tables:
                written.append(write_text("\n\n".join(render(table, fmt) for table in tables) + "\n", path))
            else:
                path.unlink(missing_ok=True)
    return written
