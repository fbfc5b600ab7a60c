"""Frames with text as categories: the same rows as users get, only faster, and a part of them where that is enough."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet.results import Store, compare, load_results, make_baseline
from gauntlet.results.drift_formats import as_markdown
from gauntlet.results.factorize import group_index, joint_keys
from gauntlet.results.frame import as_tidy, load_coded
from gauntlet.results.page.leaderboards import boards
from gauntlet.results.tables import PRESETS, render


@pytest.fixture
def filled(make: SimpleNamespace, store: Store) -> Store:
    seeds = [make.detected(0.9 + seed / 100, "msp", "glyphs", "near", seed=seed) for seed in range(3)]
    cells = [
        make.accuracy(),
        make.attacked(0.5, "pgd", 0.1),
        make.calibrated(),
        *seeds,
        make.broken("failed", "no memory", evaluator="ood", detector="knn", ood_dataset="glyphs", seed=0),
        make.cell(None, evaluator="attack", attack="pgd", epsilon=0.2),
    ]
    make.fill(store, cells)
    return store


def decoded(data: Any) -> Any:
    """Page data with dictionary-coded columns written out: the order of a dictionary is no matter."""
    if isinstance(data, dict) and data.keys() >= {"of", "at"}:
        return [data["of"][place] for place in data["at"]]
    if isinstance(data, dict):
        return {name: decoded(value) for name, value in data.items()}
    return [decoded(value) for value in data] if isinstance(data, list) else data


def test_both_frames_hold_the_same(filled: Store) -> None:
    coded = load_coded(filled.path)
    assert coded["metric"].dtype == "category"
    pd.testing.assert_frame_equal(as_tidy(coded), load_results(filled.path))


def test_only_some_metrics_come_with_every_cell_that_is_not_ok(filled: Store) -> None:
    part = load_coded(filled.path, metrics=["auroc"])
    whole = load_coded(filled.path)
    wanted = whole[(whole["metric"] == "auroc") | (whole["status"] != "ok")]
    pd.testing.assert_frame_equal(as_tidy(part), as_tidy(wanted))
    assert set(part["status"]) == {"ok", "failed", "missing"}


def test_tables_page_and_check_are_the_same_from_both(filled: Store) -> None:
    text, coded = load_results(filled.path), load_coded(filled.path)
    for preset in PRESETS.values():
        assert [render(table) for table in preset(coded)] == [render(table) for table in preset(text)]
    assert decoded(boards(coded)) == decoded(boards(text))
    moved = coded.assign(value=coded["value"] - 0.2)
    baseline = make_baseline(coded)
    pd.testing.assert_frame_equal(baseline, make_baseline(text), check_dtype=False, check_categorical=False)
    assert as_markdown(compare(baseline, moved)) == as_markdown(compare(make_baseline(text), as_tidy(moved)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.1, 8 / 255, np.nan])), min_size=1, max_size=20))
def test_groups_are_numbered_in_order_of_appearance(rows: list[tuple[str, float]]) -> None:
    frame = pd.DataFrame(rows, columns=["name", "epsilon"])
    numbers, first = group_index(frame, ["name", "epsilon"])
    expected = frame.groupby(["name", "epsilon"], sort=False, dropna=False).ngroup()
    assert numbers.tolist() == expected.tolist()
    assert first.tolist() == [expected.tolist().index(number) for number in range(len(first))]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.1, 8 / 255, np.nan])), max_size=12), st.data())
def test_rows_of_two_frames_are_matched_and_ordered_alike(rows: list[tuple[str, float]], data: st.DataObject) -> None:
    old = pd.DataFrame(rows, columns=["name", "epsilon"]).astype({"name": object, "epsilon": float})
    new = old.iloc[data.draw(st.permutations(range(len(rows))))].reset_index(drop=True).astype({"name": "category"})
    first, second = joint_keys([old, new], ["name", "epsilon"])
    pd.testing.assert_frame_equal(
        old.iloc[np.argsort(first, kind="stable")].reset_index(drop=True),
        old.sort_values(["name", "epsilon"], kind="stable").reset_index(drop=True),
    )
    pairs = zip(second, new.itertuples(index=False), strict=True)
    known = {number: repr(row) for number, row in zip(first, old.itertuples(index=False), strict=True)}
    assert all(known[number] == repr(row) for number, row in pairs)
