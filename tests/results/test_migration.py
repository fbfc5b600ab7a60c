"""Stores, results and baselines of version 1, which knew no roles: made by the code of that version, read by ours."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from gauntlet.results import Store, compare, load_results, make_baseline, ood_table, read_baseline, render
from gauntlet.results.exchange import export_frame, import_frame
from gauntlet.results.frame import load_coded
from gauntlet.results.presets import PRESETS
from gauntlet.results.schema import SCHEMA_VERSION

VERSION_1 = Path(__file__).parent / "version-1"
ROLES = {
    ("accuracy", "measured"),
    ("attack", "measured"),
    ("attack", "worst-case"),
    ("calibration", "measured"),
    ("checks", "check"),
    ("corruption", "mean"),
    ("corruption", "measured"),
    ("ood", "held-out"),
    ("ood", "mean"),
    ("ood", "measured"),
    ("open-set", "held-out"),
    ("open-set", "measured"),
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.executescript((VERSION_1 / "store.sql").read_text(encoding="utf-8"))
    connection.close()
    return tmp_path


def tables(frame: pd.DataFrame) -> str:
    parts = []
    for name, preset in PRESETS.items():
        parts += [f"# {name}", *(render(table) for table in preset(frame))]
    for layout in ("groups", "models"):
        parts += [f"# ood {layout}", *(render(table) for table in ood_table(frame, layout=layout))]
    return "\n\n".join(parts) + "\n"


@pytest.mark.parametrize("load", [load_results, load_coded])
def test_a_store_of_version_1_gives_the_tables_that_it_gave(out: Path, load) -> None:
    frame = load(out)
    assert set(zip(frame["evaluator"], frame["role"], strict=True)) == ROLES
    assert tables(frame) == (VERSION_1 / "tables.md").read_text(encoding="utf-8")


def test_it_is_migrated_once_and_for_good(out: Path) -> None:
    first = load_results(out)
    with sqlite3.connect(out / "store.sqlite") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()
    pd.testing.assert_frame_equal(load_results(out), first)


def test_on_a_read_only_disk_it_is_migrated_in_memory(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (out / "store.sqlite").read_bytes()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store.open(out, create=False) as store:
        cells = [cell.identity for run in store.runs() for cell in store.planned(run.run_id)]
    assert {(cell.evaluator, cell.role) for cell in cells} == ROLES
    assert (out / "store.sqlite").read_bytes() == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_results_without_roles_get_those_of_their_store(out: Path, suffix: str) -> None:
    frame = load_results(out)
    path = export_frame(frame, out / f"old{suffix}")
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    old = read(path, dtype=str, keep_default_na=False) if suffix == ".csv" else read(path)
    old = old.drop(columns="role")
    old.to_csv(path, index=False) if suffix == ".csv" else old.to_parquet(path)
    assert import_frame(path)["role"].tolist() == frame["role"].tolist()


def test_a_baseline_without_roles_takes_those_of_equal_cells(out: Path) -> None:
    frame = load_results(out)
    path = out / "baseline.csv"
    made = make_baseline(frame)
    made.drop(columns="role").to_csv(path, index=False)
    report = compare(read_baseline(path), frame)
    assert set(report.rows["verdict"]) == {"same"}
    assert sorted(report.rows["role"]) == sorted(made["role"])


def test_a_cell_that_the_results_lack_is_missing_also_in_a_baseline_without_roles(out: Path) -> None:
    frame = load_results(out)
    path = out / "baseline.csv"
    make_baseline(frame).drop(columns="role").to_csv(path, index=False)
    report = compare(read_baseline(path), frame[frame["role"] != "worst-case"])
    missing = report.rows[report.rows["verdict"] == "missing"]
    assert set(missing["attack"]) == set(frame.loc[frame["role"] == "worst-case", "attack"])


def test_the_committed_baseline_has_roles() -> None:
    baseline = Path(__file__).parents[1] / "baselines" / "quickstart.csv"
    assert set(read_baseline(baseline)["role"]) == {"measured", "mean", "worst-case"}
