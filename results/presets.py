"""The tables of the field as records: accuracy by attack, AUROC by detector, calibration by model, and so on.

To add one: a record in :data:`TABLES`, or in the ``tables`` of an evaluator. Where selecting and pivoting do not do,
it names a function of :data:`TRANSFORMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..registry import GauntletError, nearest
from . import checks_table, corruption_table, open_set_tables, representation_table, spec_tables
from .declarations import EvaluatorDeclaration, TableSpec
from .formats import render
from .frame import write_text
from .layout import by_dataset
from .metrics.calibration import FURTHER
from .metrics.conformal import CONFORMAL
from .metrics.robust_ood import ADAPTIVE
from .ood_tables import ood_tables
from .safety_table import SAFETY, safety_tables
from .spec_tables import CLEAN, Made, Options, distinct, lay_out, wanted
from .table import Table


def robust_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """Attacked images below the clean ones of the evaluator ``accuracy``."""
    attacks = _as_robust(wanted(frame, spec), spec.metrics[0])
    clean = _as_robust(frame[frame["evaluator"] == "accuracy"], "accuracy")
    clean = clean.assign(evaluator=spec.evaluator, attack=distinct(CLEAN, attacks["attack"]), role=CLEAN)
    for dataset, part in by_dataset(attacks):
        rows = pd.concat([clean[clean["dataset"] == dataset], part], ignore_index=True)
        yield from lay_out(frame, rows, dataset, spec, options)


def _as_robust(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Values of a metric, and cells that are not ok, as robust accuracy."""
    known = cells[(cells["metric"] == metric) | ((cells["metric"] == "") & (cells["status"] != "ok"))]
    return known.assign(metric="robust_accuracy")


def reconstruction_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """Attacked images, or OOD sets (as the row headers say), below the clean test split."""
    axis = spec.rows[0]
    cells = wanted(frame, spec)
    for dataset, part in by_dataset(cells[cells["metric"].isin([*spec.metrics, ""])]):
        attacked, outside = part["attack"] != "", part["ood_dataset"] != ""
        clean, others = part[~attacked & ~outside], part[part[axis] != ""]
        if len(others) or (axis == "attack" and not outside.any()):
            label = distinct(CLEAN if axis == "attack" else f"{dataset} (ID)", others[axis])
            first = clean.assign(**{axis: label})
            rows = pd.concat([first, others], ignore_index=True)
            known = options if axis == "attack" else {**options, "best": ""}  # on OOD sets neither end is better
            yield from lay_out(frame, rows, dataset, spec, known)


#: How rows are prepared, and tables made of them where that is more than a pivot.
TRANSFORMS: Mapping[str, Callable[[pd.DataFrame, TableSpec, Options], Made]] = {
    "": spec_tables.plain,
    "clean-first": robust_tables,
    "checks": checks_table.checks_tables,
    "ood": ood_tables,
    "classes-in-turn": open_set_tables.turned_tables,
    "labels": open_set_tables.label_tables,
    "medians": open_set_tables.median_tables,
    "over-severities": corruption_table.corruption_tables,
    "relative-errors": corruption_table.error_tables,
    "safety": safety_tables,
    "reconstruction": reconstruction_tables,
    "augmentations": representation_table.augmentation_tables,
}

_NOT_TURNED = {"role": {"not": "held-out"}}
_DECISIONS = ("open_accuracy", "open_accuracy_id", "ood_rejected", "false_alarm_rate")
_CALIBRATION = ("ece", "ece_corrected", "ece_scaled", "rms", "mce", "signed_gap", "nll", "brier", "temperature")
_CONDITION = ("corruption?", "severity?", "attack?", "epsilon?")
_ERRORS = ("accuracy", "auroc", "aupr_error", "aupr_success", "fpr95")
_SELECTIVE = ("aurc", "e_aurc", "augrc", "accuracy_at_80", "accuracy_at_90", "coverage_at_risk_1", "coverage_at_risk_5")
_PROBES = (
    *("probe_accuracy", "knn1_accuracy", "knn20_accuracy", "purity", "hungarian_accuracy", "nmi", "ari", "silhouette"),
)
_RETRIEVAL = (
    *("precision_at_5", "mean_average_precision", "contrastive_top1", "contrastive_top5"),
    *("alignment", "uniformity", "effective_rank", "embedding_std"),
)

TABLES = (
    TableSpec("attack-grid", "Accuracy under attack on {dataset} (%)", "attack", ("robust_accuracy",),
              ("attack", "epsilon"), ("model",), transform="clean-first", reads=("accuracy",)),
    TableSpec("minimal", "Median of the smallest successful perturbation on {dataset}", "attack", ("median_norm",),
              ("norm", "attack"), ("model",),
              where={"metric": "median_norm", "epsilon": None, "norm": {"not": "none"}}),
    TableSpec("checks", "Sanity checks of the attacked models on {dataset}", "checks", ("check_passed",),
              transform="checks"),
    TableSpec("ood", "{metric}{in_percent} of OOD detection on {dataset}", "ood", ("auroc",), transform="ood"),
    TableSpec("adversarial-detection", "{metric}{in_percent} of adversarial images as OOD on {dataset}",
              "adversarial-detection", ("auroc",), ("model?", "attack", "epsilon"), ("detector",)),
    TableSpec("error-detection", "Error detection on {dataset}", "misclassification", _ERRORS,
              ("model?", "detector", *_CONDITION), ("metric",), measured=True, absent="reasons",
              where={"ood_dataset": ""}),
    TableSpec("error-detection", "Selective classification on {dataset}", "misclassification", _SELECTIVE,
              ("model?", "detector", *_CONDITION), ("metric",), where={"ood_dataset": ""}),
    TableSpec("error-detection", "Errors and OOD images rejected together on {dataset}", "misclassification",
              ("scod_aurc", "auroc", "fpr95"), ("model?", "ood_dataset", "detector"), ("metric",),
              where={"ood_dataset": {"not": ""}}),
    TableSpec("robust-ood", "OOD detection under attack on {dataset}", "robust-ood",
              ("auroc", *ADAPTIVE, "accepted_and_wrong"), ("model?", "ood_dataset?", "detector", "attack", "epsilon?"),
              ("metric",), measured=True, absent="reasons"),
    TableSpec("open-set", "Open-set recognition on {dataset}{against}", "open-set", _DECISIONS,
              ("ood_dataset?", "model?", "detector"), ("metric",), where=_NOT_TURNED),
    TableSpec("open-set", "{metric} in % on {dataset}", "open-set", _DECISIONS,
              ("model?", "detector"), ("ood_dataset",), where={"role": "held-out"}, transform="classes-in-turn"),
    TableSpec("open-set-labels", "Accuracy by label in % on {dataset}{against}", "open-set", ("open_accuracy",),
              ("model?", "detector"), ("class",), where=_NOT_TURNED, transform="labels",
              options={"percent": True, "intervals": False}),
    TableSpec("open-set-medians", "Medians by label: {dataset}{against}", "open-set",
              ("median_h", "median_max_2_max", "median_score"), where=_NOT_TURNED, transform="medians"),
    TableSpec("corruptions", "{metric} on corrupted images of {dataset}{percent}", "corruption", ("accuracy",),
              ("corruption",), ("model",), transform="over-severities", reads=("ece", "auroc")),
    TableSpec("corruptions", "Mean over the corruptions of {dataset}; errors relative to {baseline}", "corruption",
              ("accuracy", "corruption_error", "relative_corruption_error"), ("model",), ("metric",), measured=True,
              absent="{baseline} errs on no image of one of the corruptions, or on no more than on clean ones",
              transform="relative-errors"),
    TableSpec("calibration", "Calibration on {dataset}", "calibration", _CALIBRATION, ("model", *_CONDITION),
              ("metric",), measured=True, absent="reasons"),
    TableSpec("calibration-errors", "Calibration errors by their definitions on {dataset}", "calibration",
              FURTHER, ("model", *_CONDITION), ("metric",), measured=True),
    TableSpec("conformal", "Conformal prediction sets on {dataset}", "conformal", CONFORMAL,
              ("model?", "detector", *_CONDITION), ("metric",)),
    TableSpec("safety", "Safety summary on {dataset}", "", tuple(item.metric for item in SAFETY), ("model",),
              ("metric",), absent="not measured",
              options={"percent": True}, transform="safety"),
    TableSpec("reconstruction", "Reconstruction MSE under attack on {dataset}", "reconstruction",
              ("reconstruction_mse",), ("attack", "epsilon"), ("model",),
              transform="reconstruction"),
    TableSpec("reconstruction", "Reconstruction MSE of models for {dataset} by set of images", "reconstruction",
              ("reconstruction_mse",), ("ood_dataset",), ("model",),
              transform="reconstruction"),
    TableSpec("representation", "Probes and clusters of embeddings on {dataset}", "representation", _PROBES,
              ("model",), ("metric",), measured=True, options={"intervals": False}),
    TableSpec("representation", "Retrieval and spread of embeddings on {dataset}", "representation", _RETRIEVAL,
              ("model",), ("metric",), measured=True, options={"intervals": False}),
    TableSpec("representation", "Augmentations of the views, one switched at a time, on {dataset}", "representation",
              ("probe_accuracy", "knn20_accuracy"), transform="augmentations"),
)  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """A table of the field, by its records."""

    specs: tuple[TableSpec, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that its tables are made of."""
        return tuple(dict.fromkeys(name for spec in self.specs for name in (*spec.metrics, *spec.reads)))

    def __call__(self, frame: pd.DataFrame, **options: Any) -> list[Table]:
        """The tables, those of one ID dataset together; ``options`` are those of ``pivot``, and of the transform.

        Raises:
            GauntletError: A record names no transform of ours, or the options fit no table.
        """
        made = [table for spec in self.specs for table in _transform(spec)(frame, spec, options)]
        subjects = list(dict.fromkeys(subject for subject, _ in made))
        return [table for subject in subjects for other, table in made if other == subject]


def presets(declarations: Iterable[EvaluatorDeclaration] = ()) -> dict[str, Preset]:
    """Presets by name: ours, and those that evaluators declare beside them."""
    names: dict[str, list[TableSpec]] = {}
    for spec in TABLES:
        names.setdefault(spec.name, []).append(spec)
    ours = frozenset(names)
    for spec in (spec for one in declarations for spec in one.tables if spec.name not in ours):
        names.setdefault(spec.name, []).append(spec)
    return {name: Preset(tuple(specs)) for name, specs in names.items()}


def _transform(spec: TableSpec) -> Callable[[pd.DataFrame, TableSpec, Options], Made]:
    if spec.transform not in TRANSFORMS:
        raise GauntletError(
            f"The table {spec.name!r} has no transform {spec.transform!r}; {nearest(spec.transform, TRANSFORMS)}"
        )
    return TRANSFORMS[spec.transform]


PRESETS = presets()
attack_grid, ood_table, calibration_table = PRESETS["attack-grid"], PRESETS["ood"], PRESETS["calibration"]


def write_tables(
    frame: pd.DataFrame, folder: Path | str, declarations: Iterable[EvaluatorDeclaration] = ()
) -> list[Path]:
    """Write every preset with content as Markdown and LaTeX; returns the files.

    A preset without content leaves no file behind, also none of an earlier run.

    Raises:
        GauntletError: The folder is not writable.
    """
    written = []
    for name, preset in presets(declarations).items():
        tables = preset(frame)
        for suffix, fmt in ((".md", "github"), (".tex", "latex")):
            path = Path(folder) / f"{name}{suffix}"
            if tables:
                written.append(write_text("\n\n".join(render(table, fmt) for table in tables) + "\n", path))
            else:
                path.unlink(missing_ok=True)
    return written
