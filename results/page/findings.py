"""What a reader must know before believing the numbers: failures, stand-in data, sanity checks.

A kind of finding is one function in :data:`FINDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from ..check_flags import checks_of
from ..footnotes import stand_ins

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


def _stand_in_data(frame: pd.DataFrame) -> Iterator[Finding]:
    for name, (original, rows) in stand_ins(frame).items():
        text = f"{name} is a stand-in for {original}."
        yield Finding("note", "stand-in data", text, frame.loc[rows, "key"].nunique())


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


FINDERS: list[Finder] = [_unfinished, _sanity_checks, _zero_detectors, _stand_in_data]
