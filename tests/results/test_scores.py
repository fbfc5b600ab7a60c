"""Scores image by image leave as CSV, npz and Parquet, without loss and without pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import CellResult, Identity, Measurement, PlannedCell, Store
from gauntlet.results.frame import as_tidy, coded
from gauntlet.results.scores import per_image, write_scores


@pytest.fixture
def scores() -> pd.DataFrame:
    with Store.in_memory() as store:
        run_id = store.begin_run("mine", "", {})
        cells = [
            PlannedCell(Identity("ood", "net", "digits", detector="knn", ood_dataset="glyphs", seed=0), "a"),
            PlannedCell(Identity("accuracy", "net", "digits", seed=0), "b"),
        ]
        store.plan(run_id, cells)
        sides = {"id_score": np.array([0.1, 0.25]), "ood_score": np.array([1 / 3, 4.0, 5.0])}
        store.put(run_id, "a", CellResult(measurements=(Measurement("auroc", 1.0),), arrays=sides))
        guesses = {"prediction": np.array([3, 7], dtype="int16"), "classes": np.array(["zero", "one"])}
        store.put(run_id, "b", CellResult(measurements=(Measurement("accuracy", 1.0),), arrays=guesses))
        return per_image(as_tidy(coded(store)), store)


def test_each_image_has_a_row_with_its_side_and_place(scores: pd.DataFrame):
    ood = scores[scores["evaluator"] == "ood"]
    assert ood[["side", "image", "score"]].to_numpy().tolist() == [
        ["id", 0, 0.1],
        ["id", 1, 0.25],
        ["ood", 0, 1 / 3],
        ["ood", 1, 4.0],
        ["ood", 2, 5.0],
    ]
    assert scores[scores["evaluator"] == "accuracy"]["prediction"].tolist() == [3, 7]


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_files_hold_them_exactly(scores: pd.DataFrame, tmp_path: Path, suffix: str):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = write_scores(scores, tmp_path / f"scores{suffix}")
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".npz": lambda file: np.load(file, allow_pickle=False)}
    found = read[suffix](path)
    np.testing.assert_array_equal(np.asarray(found["score"], dtype=float), scores["score"].to_numpy(dtype=float))
    assert [*map(str, found["side"])] == scores["side"].tolist()


def test_another_suffix_is_a_sentence(scores: pd.DataFrame, tmp_path: Path):
    with pytest.raises(GauntletError, match=r"written as \.csv, \.npz, \.parquet, got '\.xls'"):
        write_scores(scores, tmp_path / "scores.xls")
