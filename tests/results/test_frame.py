"""The tidy frame: what is in it, which run it shows, and that CSV loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gauntlet.registry import GauntletError
from gauntlet.results import COLUMNS, Store, load_results, read_csv, write_csv
from gauntlet.results.frame import as_tidy, empty_frame

Builder = Callable[..., pd.DataFrame]


def test_the_columns_are_those_of_the_design(make: SimpleNamespace, text_frame_of: Builder) -> None:
    frame = text_frame_of(make.accuracy())
    assert " ".join(frame.columns) == (
        "evaluator role model architecture recipe seed dataset detector attack norm epsilon ood_dataset ood_group "
        "corruption severity class metric value ci_low ci_high n status reason params seconds device "
        "key run_id created_at"
    )


def test_one_row_per_measurement_in_order_of_the_plan(make: SimpleNamespace, text_frame_of: Builder) -> None:
    frame = text_frame_of(make.attacked(0.5, "pgd", 0.3), make.accuracy())
    assert list(frame["metric"]) == ["robust_accuracy", "forwards", "accuracy", "accuracy"]
    row = frame.iloc[0]
    assert (row["value"], row["ci_low"], row["ci_high"], row["n"]) == (0.5, 0.49, 0.51, 100)
    assert (row["norm"], row["epsilon"], row["params"], row["device"], row["seconds"]) == (
        "linf",
        0.3,
        '{"steps": 3}',
        "cpu",
        0.5,
    )
    assert (row["detector"], row["ood_dataset"], row["corruption"], row["class"]) == ("", "", "", "")
    assert pd.isna(row["severity"])
    assert list(frame["class"]) == ["", "", "", "1"]


def test_a_cell_that_is_not_ok_has_one_row_with_its_reason(make: SimpleNamespace, text_frame_of: Builder) -> None:
    planned = make.cell(None, evaluator="accuracy", model="never")
    frame = text_frame_of(make.broken("failed", "it broke", evaluator="accuracy"), planned)
    assert list(frame["status"]) == ["failed", "missing"]
    assert list(frame["reason"]) == ["it broke", "planned but not computed"]
    assert list(frame["metric"]) == ["", ""]
    assert frame["value"].isna().all()
    assert list(frame["created_at"] == "") == [False, True]


def test_the_latest_run_of_each_suite_is_shown(store: Store, make: SimpleNamespace) -> None:
    make.fill(store, [make.accuracy(0.1, model="old")], "a")
    make.fill(store, [make.accuracy(0.2, model="b-model")], "b")
    newest = make.fill(store, [make.accuracy(0.3, model="new")], "a")
    store.begin_run("a", "", {})  # planned nothing: not a result
    assert list(load_results(store.path)["model"].unique()) == ["b-model", "new"]
    assert list(load_results(store.path.parent, suite="a")["model"].unique()) == ["new"]
    assert list(load_results(store.path, run=newest)["model"].unique()) == ["new"]


def test_where_two_suites_hold_a_cell_the_newer_run_stands(store: Store, make: SimpleNamespace) -> None:
    make.fill(store, [make.accuracy(0.1), make.accuracy(0.4, model="only-old")], "a")
    planned, result = make.accuracy(0.9)
    newer = make.fill(store, [(type(planned)(planned.identity, "another key"), result)], "b")
    frame = load_results(store.path)
    overall = frame[frame["class"] == ""]
    assert dict(zip(overall["model"], overall["value"], strict=True)) == {"only-old": 0.4, "cnn": 0.9}
    assert list(overall[overall["model"] == "cnn"]["run_id"]) == [newer]


def test_a_row_names_the_run_that_computed_it(store: Store, make: SimpleNamespace) -> None:
    first = make.fill(store, [make.accuracy()])
    planned, _ = make.accuracy()
    make.fill(store, [(planned, None), make.accuracy(model="new")])
    frame = load_results(store.path)
    assert frame.groupby("model")["run_id"].first()["cnn"] == first
    assert frame.groupby("model")["run_id"].first()["new"] != first


def test_unknown_suites_and_runs_name_the_nearest(store: Store, make: SimpleNamespace) -> None:
    run_id = make.fill(store, [make.accuracy()])
    with pytest.raises(GauntletError, match="no results of suite 'quikstart'; did you mean 'quickstart'"):
        load_results(store.path, suite="quikstart")
    with pytest.raises(GauntletError, match=f"no run '{run_id[:-1]}'; did you mean '{run_id}'"):
        load_results(store.path, run=run_id[:-1])


def test_no_store_and_an_empty_store_are_one_sentence(tmp_path: Path, store: Store) -> None:
    with pytest.raises(GauntletError, match="There is no store at"):
        load_results(tmp_path / "nowhere")
    with pytest.raises(GauntletError, match="holds no results yet"):
        load_results(store.path)


def test_csv_reads_back_equal_with_hostile_names(
    make: SimpleNamespace, text_frame_of: Builder, tmp_path: Path, hostile: str
) -> None:
    frame = text_frame_of(
        make.accuracy(1 / 3, model=hostile),
        make.attacked(float("inf"), "nan", 8 / 255, model=hostile),
        make.broken("failed", f"NA {hostile}", evaluator="ood", detector="NA", severity=3),
    )
    back = read_csv(write_csv(frame, tmp_path / "results.csv"))
    pd.testing.assert_frame_equal(back, frame, check_exact=True)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_NUMBER = st.one_of(st.none(), st.floats(allow_nan=False))


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(_TEXT, _NUMBER, st.one_of(st.none(), st.integers(-(2**62), 2**62))), max_size=4))
@example(rows=[("00", None, None)])
@example(rows=[("TRUE", None, None), ("1e5", 0.5, 3)])
def test_csv_loses_nothing(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, int]]) -> None:
    blank = dict.fromkeys(COLUMNS, "") | dict.fromkeys(("epsilon", "ci_low", "ci_high", "seconds"), np.nan)
    records = [blank | {"model": t, "value": v, "n": n, "seed": n, "severity": n} for t, v, n in rows]
    frame = as_tidy(pd.DataFrame(records, columns=list(COLUMNS)).astype({"n": "object", "seed": "object"}))
    path = tmp_path_factory.getbasetemp() / "any.csv"
    pd.testing.assert_frame_equal(read_csv(write_csv(frame, path)), frame, check_exact=True)


def test_an_empty_frame_has_the_same_types(make: SimpleNamespace, text_frame_of: Builder) -> None:
    assert list(empty_frame().dtypes) == list(text_frame_of(make.accuracy()).dtypes)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    make: SimpleNamespace, text_frame_of: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "csv"
    path = write_csv(text_frame_of(make.accuracy()), folder / "results.csv")
    before = path.read_text()

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(GauntletError, match=r"results.csv cannot be written \(No space left on device\)"):
        write_csv(empty_frame(), path)
    assert path.read_text() == before
    assert list(folder.iterdir()) == [path]


def test_a_csv_is_as_readable_for_others_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert write_csv(empty_frame(), tmp_path / "a.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "lacks the column 'evaluator'"),
        ("", "cannot be read as CSV"),
        (
            ",".join(COLUMNS) + "\n" + ",".join("x" for _ in COLUMNS) + "\n",
            "row 2: epsilon must be a number or empty, got 'x'",
        ),
    ],
)
def test_what_is_not_a_tidy_csv_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(GauntletError, match=message):
        read_csv(path)


def test_an_absent_csv_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GauntletError, match=r"no file .*absent.csv"):
        read_csv(tmp_path / "absent.csv")
