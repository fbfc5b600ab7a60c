"""Models that fail a sanity check carry a mark on their robust figures, and on no other."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from gauntlet.results import attack_grid, pivot, render
from gauntlet.results.presets import PRESETS
from gauntlet.results.records import CellResult, Measurement
from gauntlet.results.tables import failed_checks

Builder = Callable[..., pd.DataFrame]


def verdict(make: SimpleNamespace, check: str, passed: float | None, reason: str, model: str = "cnn") -> Any:
    measured = () if passed is None else (Measurement("check_passed", passed),)
    result = CellResult(measurements=measured, reason=reason)
    return make.cell(result, evaluator="checks", attack=check, model=model)


@pytest.fixture
def frame(make: SimpleNamespace, frame_of: Builder) -> pd.DataFrame:
    return frame_of(
        make.accuracy(0.99, model="cnn"),
        make.accuracy(0.98, model="m5"),
        make.attacked(0.4, "pgd", 0.3, model="cnn"),
        make.attacked(0.2, "pgd", 0.3, model="m5"),
        make.broken("failed", "x", evaluator="attack", attack="fgsm", epsilon=0.3, model="cnn"),
        verdict(make, "gradients", 0.0, "The gradient vanishes.", "cnn"),
        verdict(make, "monotone", None, "Not applicable: one budget.", "cnn"),
        verdict(make, "gradients", 1.0, "The gradient is there.", "m5"),
    )


def test_doubts_name_the_failed_checks_with_their_finding(frame) -> None:
    assert failed_checks(frame) == {("cnn", "digits"): {"gradients": "The gradient vanishes."}}


def test_the_grid_marks_robust_figures_of_that_model_only(frame) -> None:
    (table,) = attack_grid(frame)
    cells = dict(zip(table.rows, table.cells, strict=True))
    doubted, sound = table.columns.index(("cnn",)), table.columns.index(("m5",))
    assert cells["pgd", "0.3"][doubted].endswith("†")
    assert not cells["pgd", "0.3"][sound].endswith("†")
    assert not cells["(clean)", ""][doubted].endswith("†")
    assert cells["fgsm", "0.3"][doubted] == "failed"
    assert table.notes[-1] == (
        "† cnn on digits fails the check gradients: its robust figures are not to be trusted. The gradient vanishes."
    )


def test_any_pivot_of_robust_figures_is_marked_and_one_of_others_is_not(frame) -> None:
    robust = pivot(frame, ["attack"], ["model"], "robust_accuracy")
    assert any("†" in text for row in robust.cells for text in row)
    other = pivot(frame, ["model"], ["dataset"], "accuracy")
    assert not any("†" in text for text in [*other.notes, *(text for row in other.cells for text in row)])


def test_a_frame_without_checks_has_no_marks(make: SimpleNamespace, frame_of: Builder) -> None:
    (table,) = attack_grid(frame_of(make.attacked(0.4, "pgd", 0.3)))
    assert "†" not in render(table)


def test_the_table_of_checks_gives_each_verdict_in_words(frame) -> None:
    (table,) = PRESETS["checks"](frame)
    assert table.row_names == ("model", "check", "result", "finding")
    assert ("cnn", "gradients", "FAIL", "The gradient vanishes.") in table.rows
    assert ("cnn", "monotone", "–", "Not applicable: one budget.") in table.rows
    assert ("m5", "gradients", "pass", "The gradient is there.") in table.rows
    for fmt in ("github", "plain", "latex", "html", "csv"):
        assert "The gradient vanishes." in render(table, fmt)


def test_a_summary_of_a_model_with_a_failed_attack_says_failed_in_that_column_only(
    make: SimpleNamespace, frame_of: Builder
) -> None:
    failed = make.broken("failed", "x", evaluator="attack", attack="pgd", epsilon=0.3, model="cnn")
    (table,) = PRESETS["safety"](frame_of(make.accuracy(0.99, model="cnn"), failed))
    assert len(table.rows) == 1
    assert table.cells[0][0].startswith("99.0")
    assert table.cells[0][1:] == ("failed",)
