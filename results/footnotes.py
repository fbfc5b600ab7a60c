"""What a reader must know of figures: failed checks, stand-in data, tuned on test data, reported by others.

A kind of footnote is one function in :data:`FOOTNOTES`, fed by what bench records; tables and the page show them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .recorded import rows_by_fact
from .records import REPORTED, ROLES

DAGGER = "†"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
#: Metrics that an attack which does not work makes look better than they are.
ROBUST = ("robust_accuracy", "attack_success_rate", "median_norm")
_RANDOM = {
    "both": "images and seeds",
    "images": "images (the trainings taken as they are)",
    "seeds": "seeds (these images taken as they are)",
}
_REASONS = 6  # as many reasons are spelled out below a table

#: (model, dataset) -> the checks that it fails, each with its finding.
FailedChecks = Mapping[tuple[str, str], Mapping[str, str]]


@dataclass(frozen=True)
class Footnote:
    """A sentence about some rows of a frame.

    Attributes:
        rows: Which rows (a mask).
        text: The sentence.
        title: In two or three words, for the page.
        level: How grave it is: ``warning`` or ``note``.
        sign: Beside the figures; they get a letter where it is empty.
    """

    rows: np.ndarray
    text: str
    title: str
    level: str = "note"
    sign: str = ""


Kind = Callable[[pd.DataFrame, FailedChecks], Iterator[Footnote]]


def footnotes(rows: pd.DataFrame, failed: FailedChecks) -> list[Footnote]:
    """Every footnote of these rows, of models that fail these checks."""
    return [note for kind in FOOTNOTES for note in kind(rows, failed) if note.rows.any()]


def checks_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the checks, to go along with any selection of a frame so that its tables are marked."""
    return frame[frame["evaluator"] == "checks"]


def failed_checks(frame: pd.DataFrame) -> FailedChecks:
    """The failed checks of every model in a tidy frame; models that pass, or were not checked, are left out."""
    verdicts = checks_of(frame)[lambda rows: (rows["metric"] == "check_passed") & (rows["value"] == 0)]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in verdicts.itertuples():
        found.setdefault((str(row.model), str(row.dataset)), {})[str(row.attack)] = str(row.reason)
    return found


def _failed_checks(rows: pd.DataFrame, failed: FailedChecks) -> Iterator[Footnote]:
    """Of each model and dataset whose robust figures are in doubt."""
    if not failed:
        return
    robust = rows["metric"].isin(ROBUST) & (rows["evaluator"] == "attack") & (rows["status"] == "ok")
    robust &= rows["role"].isin(ROLES)  # not the clean images that a table puts beside them
    for (model, dataset), findings in failed.items():
        doubted = robust & (rows["model"] == model) & (rows["dataset"] == dataset)
        text = (
            f"{model} on {dataset} fails the check{'s' if len(findings) > 1 else ''} {', '.join(findings)}: "
            f"its robust figures are not to be trusted. {next(iter(findings.values()))}"
        )
        yield Footnote(doubted.to_numpy(), text, "failed check", "warning", DAGGER)


def _stand_in_data(rows: pd.DataFrame, failed: FailedChecks) -> Iterator[Footnote]:
    def names(chosen: Any) -> tuple[str, str] | None:
        there = isinstance(chosen, dict) and "stand_in" in chosen
        return (str(chosen["name"]), str(chosen["stand_in"])) if there else None

    found: dict[tuple[str, str], np.ndarray] = {}
    for kind in ("ood", "dataset", "corruption"):
        for pair, concerned in rows_by_fact(rows, kind, names).items():
            found[pair] = concerned | found.get(pair, np.False_)
    for (name, original), concerned in found.items():
        yield Footnote(concerned, f"{name} is a stand-in for {original}.", "stand-in data")


def _tuned_on_test(rows: pd.DataFrame, failed: FailedChecks) -> Iterator[Footnote]:
    text = "Hyper-parameters were tuned on the test data; the value is optimistic."
    for concerned in rows_by_fact(rows, "tune", lambda facts: facts.get("oracle") or None).values():
        yield Footnote(concerned, text, "tuned on test data", "warning")


def _exposed(rows: pd.DataFrame, failed: FailedChecks) -> Iterator[Footnote]:
    """OOD sets of the same family as the outliers."""

    def words(chosen: Any) -> str | None:
        there = isinstance(chosen, dict) and "exposed" in chosen
        return f"{chosen['name']}: {chosen['exposed']}." if there else None

    for text, concerned in rows_by_fact(rows, "ood", words).items():
        yield Footnote(concerned, text, "seen in training", "warning")


def _remarks(rows: pd.DataFrame, failed: FailedChecks) -> Iterator[Footnote]:
    """What cells that are ok say of themselves; checks have a table for that."""
    reasons = rows["reason"].astype(object)
    told = (rows["status"] == "ok") & ~rows["role"].isin(["check"]) & ~reasons.isin(["", REPORTED])
    for text in reasons[told].unique():
        yield Footnote((told & (reasons == text)).to_numpy(dtype=bool), str(text), "remark")


def _bases(rows: pd.DataFrame, failed: FailedChecks) -> Iterator[Footnote]:
    """What means are over."""
    for text, concerned in rows_by_fact(rows, "base", str).items():
        yield Footnote(concerned, text, "means")


def _reported(rows: pd.DataFrame, failed: FailedChecks) -> Iterator[Footnote]:
    for source in rows["source"].unique() if "source" in rows else ():
        if source:
            text = f"As reported by {source}; not measured here."
            yield Footnote((rows["source"] == source).to_numpy(dtype=bool), text, "reported by others")


def _incomplete_attacks(rows: pd.DataFrame, failed: FailedChecks) -> Iterator[Footnote]:
    """Attacks made of several of which some cannot run here."""

    def words(without: Mapping[str, str]) -> str | None:
        return "; ".join(f"{name} ({reason.rstrip('.')})" for name, reason in without.items()) or None

    for text, concerned in rows_by_fact(rows, "without", words).items():
        yield Footnote(concerned, f"Without {text}.", "incomplete attack")


FOOTNOTES: list[Kind] = [
    _failed_checks,
    _stand_in_data,
    _tuned_on_test,
    _reported,
    _incomplete_attacks,
    _exposed,
    _remarks,
    _bases,
]


def general_notes(
    chosen: pd.DataFrame, reasons: Sequence[str], *, intervals: bool | str, several: bool, over: str = "both"
) -> Iterator[str]:
    """What belongs below a whole table: what ``±`` is, over how many seeds means are, and why cells are empty."""
    if several:
        fewer = "up to " if (chosen["seeds"] < chosen["planned"]).any() else ""
        spread = "; in brackets the" if intervals == "range" else "; ± is half the" if intervals else ""
        interval = f"{spread} 95 % interval of that mean, over {_RANDOM[over]}" if spread else ""
        yield f"Mean over {fewer}{chosen['planned'].max()} seeds{interval}."
    elif intervals == "range":
        yield "In brackets the ends of the 95 % interval."
    elif intervals and (chosen["ci_high"] - chosen["ci_low"]).notna().any():
        yield "± is half the width of the 95 % interval."
    yield from reasons[:_REASONS]
    if len(reasons) > _REASONS:
        yield f"... and {len(reasons) - _REASONS} more reasons; results.csv has them all."
