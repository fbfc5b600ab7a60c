"""Marks on values that need a word below the table: stand-in data, tuned on test data, reported by others.

A kind of footnote is one function in :data:`FOOTNOTES`: given the tidy rows of a table's cells, it yields
(rows concerned, sentence).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from .factorize import factorize
from .recorded import parsed

MARKS = "abcdefghijklmnopqrstuvwxyz"
Footnote = Callable[[pd.DataFrame], Iterator[tuple[pd.Series, str]]]


def stand_ins(frame: pd.DataFrame) -> dict[str, tuple[str, pd.Series]]:
    """What stands in for another dataset or corruption: what for, and which rows it concerns, as their params say."""
    codes, values = factorize(frame["params"])
    found: dict[str, tuple[str, np.ndarray]] = {}
    for code in np.unique(codes).tolist():
        known = parsed(str(values[code])) if "stand_in" in str(values[code]) else {}
        for chosen in (known.get("ood"), known.get("dataset"), known.get("corruption")):
            if isinstance(chosen, dict) and "stand_in" in chosen:
                nowhere = np.zeros(len(values), dtype=bool)
                _, rows = found.setdefault(str(chosen["name"]), (str(chosen["stand_in"]), nowhere))
                rows[code] = True
    return {name: (original, pd.Series(rows[codes], frame.index)) for name, (original, rows) in found.items()}


def notes(frame: pd.DataFrame) -> list[tuple[pd.Series, str]]:
    """Every footnote of these rows: (mask of the rows it concerns, sentence)."""
    return [(mask, text) for kind in FOOTNOTES for mask, text in kind(frame) if mask.any()]


def _stand_in_data(frame: pd.DataFrame) -> Iterator[tuple[pd.Series, str]]:
    for name, (original, rows) in stand_ins(frame).items():
        yield rows, f"{name} is a stand-in for {original}."


def _tuned_on_test(frame: pd.DataFrame) -> Iterator[tuple[pd.Series, str]]:
    codes, values = factorize(frame["params"])
    tuned = np.array(['"tuned_on": "test"' in str(value) for value in values], dtype=bool)
    yield pd.Series(tuned[codes], frame.index), "Hyper-parameters were tuned on the test data; the value is optimistic."


def _reported(frame: pd.DataFrame) -> Iterator[tuple[pd.Series, str]]:
    if "source" in frame:
        for source in frame.loc[frame["source"] != "", "source"].unique():
            yield frame["source"].eq(source), f"As reported by {source}; not measured here."


def _incomplete_attacks(frame: pd.DataFrame) -> Iterator[tuple[pd.Series, str]]:
    """Attacks made of several of which some cannot run here, as their params say."""
    codes, values = factorize(frame["params"])
    found: dict[str, list[int]] = {}
    for code in np.unique(codes).tolist():
        known = parsed(str(values[code])).get("without", {}) if '"without"' in str(values[code]) else {}
        if isinstance(known, dict) and known:
            found.setdefault("; ".join(f"{name} ({reason.rstrip('.')})" for name, reason in known.items()), []).append(
                code
            )
    for text, which in found.items():
        yield pd.Series(np.isin(codes, which), frame.index), f"Without {text}."


FOOTNOTES: list[Footnote] = [_stand_in_data, _tuned_on_test, _reported, _incomplete_attacks]
