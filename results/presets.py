"""The tables of the field: accuracy by attack, AUROC by detector, calibration by model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from .checks_table import checks_table
from .formats import render
from .frame import write_text
from .layout import Table, pivot
from .metrics import metric as metric_named
from .trust import checks_of

CLEAN = "(clean)"
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
            pd.concat([clean[clean["dataset"] == dataset], part, checks_of(frame)], ignore_index=True),
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

    One table per ID dataset; none where no detector ran.

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
        for dataset, part in _by_dataset(scores)
    ]


def calibration_table(frame: pd.DataFrame) -> list[Table]:
    """Calibration before and after temperature scaling by model (rows) and metric (columns), one per ID dataset."""
    wanted = frame[(frame["evaluator"] == "calibration") & frame["metric"].isin([*_CALIBRATION, ""])]
    tables = []
    for dataset, part in _by_dataset(wanted):
        measured = [name for name in _CALIBRATION if name in set(part["metric"])] or ["ece"]
        title = f"Calibration on {dataset}"
        tables.append(pivot(part, ["model"], ["metric"], measured, evaluator="calibration", title=title))
    return tables


def minimal_table(frame: pd.DataFrame) -> list[Table]:
    """Median of the smallest successful budget by attack (rows) and model (columns), one per ID dataset.

    Only attacks that were asked for `minimal`; none where no attack was.
    """
    wanted = frame[(frame["evaluator"] == "attack") & (frame["metric"] == "median_norm") & frame["epsilon"].isna()]
    return [
        pivot(
            pd.concat([part, checks_of(frame)], ignore_index=True),
            rows=["norm", "attack"],
            columns=["model"],
            metric="median_norm",
            evaluator="attack",
            title=f"Median of the smallest successful perturbation on {dataset}",
        )
        for dataset, part in _by_dataset(wanted)
    ]


PRESETS: dict[str, Callable[[pd.DataFrame], list[Table]]] = {
    "attack-grid": attack_grid,
    "minimal": minimal_table,
    "checks": checks_table,
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
