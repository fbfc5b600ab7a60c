"""Labels may hold anything: no mean, footnote or mark depends on what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gauntlet.results import CellResult, Facts, ood_table, render
from gauntlet.results.presets import PRESETS
from gauntlet.results.records import REPORTED

AXES = ("model", "dataset", "detector", "attack", "ood_dataset", "corruption")
HOSTILE = (
    "(ours) pgd", "(clean)", "(clean)'", "worst-case", "worst-case linf", "worst-case-pgd", "k means tiles", "mean",
    "the mean image", "near mean", "mean of 3", "near mean (full-spectrum)", "digits without 3", "held-out", "check",
    "msp at 5 %", "glyphs (ID)", "†", "a", "{dataset}", "{0}", "all", REPORTED, "nan", "0.3", "", "\n", "\x1b[31m", "0",
)  # fmt: skip
LABELS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))


@pytest.fixture
def plain(make: SimpleNamespace, text_frame_of: Any) -> pd.DataFrame:
    """Every kind of cell under plain labels, of which some fail, stand in, fail a check or lack a seed."""
    glyphs = {"ood": {"name": "glyphs", "stand_in": "notMNIST"}}

    def detected(value: float, name: str, group: str, params: Any = None, role: str = "measured", **where: Any) -> Any:
        result = make.ok(make.measured("auroc", value))
        facts = Facts(ood_group=group)
        return make.cell(result, facts=facts, params=params, evaluator="ood", detector="msp", ood_dataset=name,
                         role=role, **where)  # fmt: skip

    def corrupted(value: float, name: str, severity: int | None, mean: tuple[str, ...] = ()) -> Any:
        role, params = ("mean", {"mean": list(mean)}) if mean else ("measured", {})
        return make.cell(make.ok(make.measured("accuracy", value)), params=params, evaluator="corruption",
                         corruption=name, severity=severity, role=role)  # fmt: skip

    worst = make.cell(make.ok(make.measured("robust_accuracy", 0.1)), facts=Facts(norm="linf"), evaluator="attack",
                      attack="union", epsilon=0.3, role="worst-case")  # fmt: skip
    verdict = make.cell(CellResult(measurements=(make.measured("check_passed", 0.0),), reason="No gradient."),
                        evaluator="checks", attack="gradients", role="check")  # fmt: skip
    turned = [
        make.held_out(make.ok(make.measured("auroc", value)), "msp", digit) for digit, value in enumerate((0.5, 0.8))
    ]
    return text_frame_of(
        make.accuracy(0.9), make.accuracy(0.8, seed=1), make.accuracy(0.7, model="m5"),
        *(make.attacked(value, name, 0.3) for name, value in (("pgd", 0.2), ("fgsm", 0.8), ("square", 0.4))),
        make.broken("failed", "x", evaluator="attack", attack="square", epsilon=0.3, model="m5"), worst, verdict,
        detected(0.9, "noise", "near"), detected(0.5, "glyphs", "near", glyphs), detected(0.1, "tiles", "near"),
        detected(0.5, "near group", "near", {"ood": []}, "mean"),
        detected(0.7, "blobs", "far", {"tune": {"oracle": True}}), detected(0.7, "blobs", "far", model="m5"),
        *turned, detected(0.6, "blobs", "far", dataset="digits without 0"),
        corrupted(0.8, "fog", 1), corrupted(0.6, "fog", 2), corrupted(0.7, "fog", None, ("fog",)),
        corrupted(0.5, "stripe", 1), corrupted(0.6, "every", None, ("fog", "stripe")),
    )  # fmt: skip


def shown(frame: pd.DataFrame) -> list[Any]:
    """Everything in the tables but what is made of labels."""
    kinds = [("ood", {"layout": layout}) for layout in ("groups", "models")]
    tables = [
        table
        for name, options in [*((name, {}) for name in PRESETS if name != "checks"), *kinds]
        for table in PRESETS[name](frame, best="column", **options)
    ]
    return [
        (table.cells, table.marks, table.bold, table.row_marks, table.column_marks, len(table.notes), len(table.rows))
        for table in tables
    ]


def relabelled(frame: pd.DataFrame, labels: dict[str, list[str]]) -> pd.DataFrame:
    changed = frame.copy()
    for axis, new in labels.items():
        old = [name for name in frame[axis].unique() if name]
        changed[axis] = frame[axis].replace(dict(zip(old, new, strict=False)))
    return changed


@example(labels={axis: [*HOSTILE[start : start + 6]] for axis, start in zip(AXES, (0, 18, 5, 0, 7, 6), strict=True)})
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries({axis: st.lists(LABELS.filter(bool), min_size=6, max_size=6, unique=True) for axis in AXES})
)
def test_tables_are_those_of_plain_labels(plain: pd.DataFrame, labels: dict[str, list[str]]) -> None:
    assert shown(relabelled(plain, labels)) == shown(plain)


def test_the_mean_of_attacks_is_of_all_that_were_measured(plain: pd.DataFrame) -> None:
    labels = {"attack": ["pgd", "(ours) pgd", "worst-case-pgd", "worst-case linf"]}
    (table, *_) = PRESETS["safety"](relabelled(plain, labels))
    cnn = dict(zip((name for (name,) in table.columns), table.cells[0], strict=True))
    assert cnn["Accuracy under attack, mean (%)"].startswith("46.7")
    (grid,) = PRESETS["attack-grid"](relabelled(plain, labels))
    marked = {row[0] for row, cells in zip(grid.rows, grid.cells, strict=True) if cells[0].endswith("†")}
    assert marked == set(labels["attack"])


def test_the_mean_of_a_group_bears_the_mark_of_any_of_its_sets(plain: pd.DataFrame) -> None:
    """Also of one that is not the first."""
    (table, *_) = ood_table(plain[plain["dataset"] == "digits"], layout="groups")
    near = table.columns.index(("near", "mean of 3"))
    assert table.body.value[0, near] == np.mean([0.9, 0.5, 0.1])
    assert "a" in table.column_marks[near] + table.body.letters[0, near]
    assert "glyphs is a stand-in for notMNIST" in render(table)
