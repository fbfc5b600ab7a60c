"""What a reader must know before believing the numbers: failures, stand-in data, sanity checks.

A kind of finding is one function in :data:`FINDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..factorize import group_index
from ..footnotes import checks_of, footnotes
from ..records import IDENTITY_COLUMNS, REPORTED

LEVELS = ("problem", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One sentence with its weight (``problem``, ``warning`` or ``note``) and the number of cells it is about."""

    level: str
    title: str
    text: str
    cells: int = 0


Finder = Callable[[pd.DataFrame], Iterator[Finding]]


def findings(frame: pd.DataFrame) -> list[Finding]:
    """Every finding, the gravest first."""
    found = [finding for finder in FINDERS for finding in finder(frame)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _unfinished(frame: pd.DataFrame) -> Iterator[Finding]:
    """Cells that are not ok, by status and reason."""
    bad = frame[frame["status"] != "ok"]
    for (status, reason), cells in bad.groupby(["status", "reason"], sort=False):
        level = "note" if status == "skipped" else "problem"
        yield Finding(level, str(status), str(reason) or "No reason was given.", len(cells))


def _footnotes(frame: pd.DataFrame) -> Iterator[Finding]:
    """What tables say of their figures, too; of failed checks there is more to say here."""
    for note in footnotes(frame, {}):
        yield Finding(note.level, note.title, note.text, frame.loc[note.rows, "key"].nunique())


def _partial_seeds(frame: pd.DataFrame) -> Iterator[Finding]:
    """Means over fewer seeds than planned."""
    cells = frame.drop_duplicates("key")
    group, first = group_index(cells, [name for name in IDENTITY_COLUMNS if name != "seed"])
    ok = np.bincount(group, (cells["status"] == "ok").to_numpy(), len(first))
    partial = int(((ok > 0) & (ok < np.bincount(group, minlength=len(first)))).sum())
    if partial:
        yield Finding("warning", "partial seeds", "Means over seeds are of fewer seeds than planned.", partial)


def _not_planned(frame: pd.DataFrame) -> Iterator[Finding]:
    """Cells that some models have and others lack, so that a table has gaps."""
    cells = frame[frame["reason"] != REPORTED].drop_duplicates("key")
    coordinates = [name for name in IDENTITY_COLUMNS if name not in ("model", "seed")]
    cells = cells.assign(cell=group_index(cells, coordinates)[0])
    for (evaluator, dataset), part in cells.groupby(["evaluator", "dataset"], sort=False, observed=True):
        known = part["cell"].nunique()
        for model, own in part.groupby("model", sort=False, observed=True)["cell"].nunique().items():
            if own < known:
                text = f"{model} on {dataset} has {own} of the {known} cells of {evaluator} that others have."
                yield Finding("note", "not planned", text, known - own)


def _sanity_checks(frame: pd.DataFrame) -> Iterator[Finding]:
    """What the checks of robust figures found, in their own words."""
    verdicts = checks_of(frame)[lambda rows: rows["metric"] == "check_passed"]
    failed = verdicts[verdicts["value"] == 0]
    for (model, dataset, name, reason), cells in failed.groupby(["model", "dataset", "attack", "reason"], sort=False):
        yield Finding("warning", f"check {name} failed", f"{model} on {dataset}: {reason}", len(cells))
    for (model, dataset), cells in verdicts.groupby(["model", "dataset"], sort=False):
        passed = int((cells["value"] == 1).sum())
        yield Finding("note", "sanity checks", f"{model} on {dataset} passes {passed} of {len(cells)}.", len(cells))


def _zero_detectors(frame: pd.DataFrame) -> Iterator[Finding]:
    """Detectors that rank the wrong way round on a set: their sign may be flipped."""
    auroc = frame[(frame["metric"] == "auroc") & (frame["class"] == "") & (frame["ci_high"] < 0.5)]
    for detector, cells in auroc.groupby("detector", sort=False):
        sets = ", ".join(dict.fromkeys(cells["ood_dataset"]))
        text = f"{detector} ranks OOD images below ID images on {sets} (AUROC below 50 %)."
        yield Finding("warning", "worse than chance", text, len(cells))


FINDERS: list[Finder] = [_unfinished, _sanity_checks, _zero_detectors, _footnotes, _partial_seeds, _not_planned]
