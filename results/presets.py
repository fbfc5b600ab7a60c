"""The tables of the field: accuracy by attack, AUROC by detector, calibration by model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from .formats import render
from .frame import write_text
from .layout import Table, pivot
from .metrics import metric as metric_named

CLEAN = "(clean)"
HELD_OUT, WITHOUT = "held-out", " without "
_CALIBRATION = ("ece", "ece_scaled", "rms", "mce", "signed_gap", "nll", "brier", "temperature")


def attack_grid(frame: pd.DataFrame) -> list[Table]:
    """Accuracy in percent by attack and epsilon (rows, clean accuracy first) and model (columns).

    One table per ID dataset; none where nothing was attacked.
    """
    attacks = frame[(frame["evaluator"] == "attack") & frame["metric"].isin(["robust_accuracy", ""])]
    clean = frame[(frame["evaluator"] == "accuracy") & frame["metric"].isin(["accuracy", ""])]
    metrics = clean["metric"].replace("accuracy", "robust_accuracy")
    clean = clean.assign(evaluator="attack", attack=CLEAN, metric=metrics)
    return [
        pivot(
            pd.concat([clean[clean["dataset"] == dataset], part], ignore_index=True),
            rows=["attack", "epsilon"],
            columns=["model"],
            metric="robust_accuracy",
            evaluator="attack",
            title=f"Accuracy under attack on {dataset} (%)",
        )
        for dataset, part in _by_dataset(attacks)
    ]


def ood_table(frame: pd.DataFrame, metric: str = "auroc") -> list[Table]:
    """A metric of OOD detection by model and detector (rows) and OOD set, grouped near/far (columns).

    One table per ID dataset; none where no detector ran. Datasets that leave out one class after the other share a
    table, with the classes as columns and their mean.

    Raises:
        GauntletError: The evaluator does not measure this metric.
    """
    known = metric_named(metric)
    scores = frame[frame["evaluator"] == "ood"]  # pivot picks the metric, and names the nearest to an unknown one
    return [
        pivot(
            part,
            rows=["model", "detector"] if part["model"].nunique() > 1 else ["detector"],
            columns=["ood_group", "ood_dataset"] if part["ood_group"].any() else ["ood_dataset"],
            metric=metric,
            evaluator="ood",
            title=f"{known.title}{' in %' if known.percent else ''} of OOD detection on {dataset}",
        )
        for dataset, part in _by_dataset(_left_out_in_turn(scores, metric))
    ]


def _left_out_in_turn(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of ``NAME without CLASS`` under one dataset each NAME, and their mean over classes (no interval)."""
    held_out = (frame["ood_group"] == HELD_OUT) & frame["dataset"].str.contains(WITHOUT)
    if not held_out.any():
        return frame
    named = frame["dataset"].where(~held_out, frame["dataset"].str.split(WITHOUT).str[0] + ", one class left out")
    frame = frame.assign(dataset=named)
    rows = frame[held_out & (frame["metric"] == metric) & (frame["status"] == "ok")]
    means = rows.drop_duplicates(["model", "dataset", "detector", "seed"]).copy()
    keys = ["model", "dataset", "detector", "seed"]
    values = rows.groupby(keys)["value"].mean()
    means["value"] = [values[tuple(row)] for row in means[keys].itertuples(index=False)]
    return pd.concat([frame, means.assign(ood_dataset="mean", ci_low=float("nan"), ci_high=float("nan"))])


def calibration_table(frame: pd.DataFrame) -> list[Table]:
    """Calibration before and after temperature scaling by model (rows) and metric (columns), one per ID dataset."""
    wanted = frame[(frame["evaluator"] == "calibration") & frame["metric"].isin([*_CALIBRATION, ""])]
    tables = []
    for dataset, part in _by_dataset(wanted):
        measured = [name for name in _CALIBRATION if name in set(part["metric"])] or ["ece"]
        title = f"Calibration on {dataset}"
        tables.append(pivot(part, ["model"], ["metric"], measured, evaluator="calibration", title=title))
    return tables


PRESETS: dict[str, Callable[[pd.DataFrame], list[Table]]] = {
    "attack-grid": attack_grid,
    "ood": ood_table,
    "calibration": calibration_table,
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


def _by_dataset(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for dataset in frame["dataset"].unique():  # in order of the plan
        yield dataset, frame[frame["dataset"] == dataset]
