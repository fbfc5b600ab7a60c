"""Stores of several machines joined, and tidy rows put back."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import CellResult, Store, load_results
from gauntlet.results.merge import merge_stores, put_frame


def stored(make: SimpleNamespace, folder: Path, *cells: Any, suite: str = "quickstart") -> Path:
    with Store.open(folder / "store.sqlite") as store:
        make.fill(store, cells, suite)
    return folder


def with_arrays(cell: Any) -> Any:
    planned, result = cell
    return planned, CellResult(measurements=result.measurements, arrays={"score": np.arange(3.0)})


def test_identical_cells_stand_once_and_others_are_added(make: SimpleNamespace, tmp_path: Path, hostile: str) -> None:
    one = stored(make, tmp_path / "a", with_arrays(make.accuracy(0.9)))
    two = stored(make, tmp_path / "b", make.accuracy(0.9), make.accuracy(0.8, model=hostile), suite="other")
    assert merge_stores([one, two], tmp_path / "all") == []
    with Store.open(tmp_path / "all" / "store.sqlite") as store:
        assert [run.suite for run in store.runs()] == ["quickstart", "other"]
        planned, _ = make.accuracy(0.9)
        assert store.arrays(planned.key)["score"].tolist() == [0, 1, 2]
    frame = load_results(tmp_path / "all")
    assert dict(zip(frame.query("`class` == ''")["model"], frame.query("`class` == ''")["value"], strict=True)) == {
        "cnn": 0.9,
        hostile: 0.8,
    }
    pd.testing.assert_frame_equal(load_results(one), load_results(tmp_path / "all", suite="quickstart"))


def test_merging_twice_changes_nothing(make: SimpleNamespace, tmp_path: Path) -> None:
    one = stored(make, tmp_path / "a", make.accuracy(0.9))
    merge_stores([one], tmp_path / "all")
    before = load_results(tmp_path / "all")
    assert merge_stores([one, one], tmp_path / "all") == []
    pd.testing.assert_frame_equal(load_results(tmp_path / "all"), before)


def test_runs_of_one_suite_that_computed_other_cells_become_one(make: SimpleNamespace, tmp_path: Path) -> None:
    """Seeds on several machines, say."""
    folders = [stored(make, tmp_path / str(seed), make.accuracy(0.9 - seed / 10, seed=seed)) for seed in (0, 1)]
    for _ in range(2):  # the second time there is nothing left to join
        merge_stores(folders, tmp_path / "all")
        with Store.open(tmp_path / "all" / "store.sqlite") as store:
            assert len(store.runs()) == 3
    frame = load_results(tmp_path / "all")
    assert frame[frame["class"] == ""].set_index("seed")["value"].to_dict() == {0: 0.9, 1: pytest.approx(0.8)}
    assert (frame["status"] == "ok").all()


def test_a_conflict_keeps_the_first_and_reports_both_values(make: SimpleNamespace, tmp_path: Path) -> None:
    one, two = (stored(make, tmp_path / str(value), make.accuracy(value)) for value in (0.9, 0.8))
    (conflict,) = merge_stores([one, two], tmp_path / "all")
    assert (conflict.metric, conflict.kept, conflict.other) == ("accuracy", 0.9, 0.8)
    assert "accuracy cell (model=cnn, dataset=digits, seed=0): accuracy is 0.9 here and 0.8 in" in str(conflict)
    assert load_results(tmp_path / "all")["value"].iloc[0] == 0.9


def test_an_ok_result_replaces_a_failed_one(make: SimpleNamespace, tmp_path: Path) -> None:
    planned, result = make.accuracy(0.9)
    failed = stored(make, tmp_path / "a", (planned, CellResult("failed", "no luck")))
    good = stored(make, tmp_path / "b", (planned, result))
    assert merge_stores([failed, good], tmp_path / "all") == []
    assert set(load_results(tmp_path / "all")["status"]) == {"ok"}
    assert merge_stores([failed], tmp_path / "all") == []
    assert set(load_results(tmp_path / "all")["status"]) == {"ok"}


def test_values_that_are_not_numbers_equal_themselves(make: SimpleNamespace, tmp_path: Path) -> None:
    one, two = (stored(make, tmp_path / name, make.accuracy(math.nan)) for name in "ab")
    assert merge_stores([one, two], tmp_path / "all") == []


def test_nothing_is_written_where_a_source_is_absent(make: SimpleNamespace, tmp_path: Path) -> None:
    one = stored(make, tmp_path / "a", make.accuracy())
    with pytest.raises(GauntletError, match="no store at"):
        merge_stores([one, tmp_path / "absent"], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    with pytest.raises(GauntletError, match="takes the others"):
        merge_stores([one], one)


def test_exported_rows_go_back_into_a_store(make: SimpleNamespace, tmp_path: Path, hostile: str) -> None:
    folder = stored(
        make, tmp_path / "a", make.accuracy(1 / 3, model=hostile), make.attacked(0.4, "pgd", 8 / 255),
        make.broken("failed", hostile, evaluator="ood", detector="msp"), make.cell(None, evaluator="ood", detector="x"),
    )  # fmt: skip
    frame = load_results(folder)
    with Store.open(tmp_path / "b" / "store.sqlite") as store:
        put_frame(store, frame, "imported")
    again = load_results(tmp_path / "b")
    same = [name for name in frame.columns if name != "run_id"]
    pd.testing.assert_frame_equal(again[same], frame[same])


def test_a_store_that_is_being_written_is_read_consistently(make: SimpleNamespace, tmp_path: Path) -> None:
    """A reader sees the cells that were finished, and the rest as missing."""
    with Store.open(tmp_path / "store.sqlite") as writing:
        run_id = writing.begin_run("live", "", {})
        cells = [make.accuracy(0.9, model=f"m{i}") for i in range(3)]
        writing.plan(run_id, [planned for planned, _ in cells])
        writing.put(run_id, cells[0][0].key, cells[0][1])
        frame = load_results(tmp_path)
    assert frame.drop_duplicates("key")["status"].tolist() == ["ok", "missing", "missing"]
