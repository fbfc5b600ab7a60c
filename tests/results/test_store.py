"""The store keeps what it was given, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from gauntlet.registry import GauntletError
from gauntlet.results import CellResult, Identity, Measurement, PlannedCell, Store, database


def planned(model: str = "cnn", key: str = "k") -> PlannedCell:
    return PlannedCell(Identity("accuracy", model, "digits"), key)


def one(value: float) -> CellResult:
    return CellResult(measurements=(Measurement("accuracy", value),))


def test_a_result_comes_back_as_it_was_put(store: Store) -> None:
    arrays = {"score": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3), "hit": np.array([True, False])}
    given_result = CellResult(
        "ok", "", "", (Measurement("auroc", 0.9, 0.8, 0.95, 100), Measurement("accuracy", 0.5, class_name="cat")),
        arrays, 1.5, "cuda:0",
    )  # fmt: skip
    run_id = store.begin_run("s", "", {})
    store.put(run_id, "k", given_result)
    result = store.result("k")
    assert result is not None
    assert (result.status, result.measurements, result.seconds, result.device) == (
        "ok",
        given_result.measurements,
        1.5,
        "cuda:0",
    )
    for name, array in arrays.items():
        assert result.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(result.arrays[name], array)
    assert store.result("other") is None
    assert store.arrays("other") == {}


@pytest.mark.parametrize("value", [float("inf"), -0.0, 1e-308, 0.1 + 0.2])
def test_values_keep_every_bit(store: Store, value: float) -> None:
    store.put(store.begin_run("s", "", {}), "k", one(value))
    assert store.result("k").measurements[0].value == value  # type: ignore[union-attr]


def test_nan_stays_nan(store: Store) -> None:
    store.put(store.begin_run("s", "", {}), "k", one(float("nan")))
    assert math.isnan(store.result("k").measurements[0].value)  # type: ignore[union-attr]


def test_numpy_numbers_are_taken_for_numbers(store: Store) -> None:
    result = CellResult(measurements=(Measurement("accuracy", np.float32(0.5), np.float64(0.25), 1, np.int64(7)),))
    store.put(store.begin_run("s", "", {}), "k", result)
    assert store.result("k").measurements == (Measurement("accuracy", 0.5, 0.25, 1.0, 7),)  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(
    array=arrays_of.arrays(
        st.one_of(
            arrays_of.boolean_dtypes(),
            arrays_of.integer_dtypes(),
            arrays_of.floating_dtypes(),
            arrays_of.unicode_string_dtypes(),
        ),
        arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    )
)
def test_any_plain_array_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    with Store.open(tmp_path_factory.getbasetemp() / "arrays.sqlite") as store:
        store.put("r", "k", CellResult(arrays={"a": array}))
        back = store.arrays("k")["a"]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_an_object_array_is_refused_and_nothing_of_its_cell_is_stored(store: Store) -> None:
    with pytest.raises(GauntletError, match="array 'bad' has dtype object"):
        store.put("r", "k", CellResult(arrays={"bad": np.array([{}])}))
    assert store.statuses(["k"]) == {}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [("ok", "failed", "ok"), ("failed", "ok", "ok"), ("failed", "timeout", "timeout"), ("skipped", "failed", "failed")],
)
def test_an_ok_result_is_only_replaced_by_an_ok_one(store: Store, first: str, second: str, kept: str) -> None:
    for status in (first, second):
        store.put("r", "k", CellResult(status, measurements=(Measurement(status, 1.0),), arrays={status: np.zeros(1)}))
    assert store.statuses(["k", "absent"]) == {"k": kept}
    result = store.result("k")
    assert [m.metric for m in result.measurements] == [kept]  # type: ignore[union-attr]
    assert list(store.arrays("k")) == [kept]


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(GauntletError, match="status 'faild'; did you mean 'failed'"):
        CellResult("faild")


def test_runs_keep_suite_text_and_provenance(store: Store) -> None:
    first = store.begin_run("a", "text", {"git": "abc", "path": Path("x")})
    store.plan(first, [planned()])
    second = store.begin_run("b", "", {})
    store.end_run(first, "finished")
    runs = store.runs()
    assert [run.run_id for run in runs] == [first, second]
    assert (runs[0].suite, runs[0].suite_text, runs[0].provenance) == ("a", "text", {"git": "abc", "path": "x"})
    assert (runs[0].status, runs[0].cells, bool(runs[0].ended_at)) == ("finished", 1, True)
    assert (runs[1].status, runs[1].cells, runs[1].ended_at) == ("", 0, "")


def test_a_run_that_does_not_exist_is_named(store: Store) -> None:
    run_id = store.begin_run("s", "", {})
    for wrong in (lambda: store.plan(run_id[:-1], [planned()]), lambda: store.end_run(run_id[:-1], "finished")):
        with pytest.raises(GauntletError, match=f"no run '{run_id[:-1]}'; did you mean '{run_id}'"):
            wrong()


def test_a_plan_with_one_identity_twice_is_refused_whole(store: Store) -> None:
    run_id = store.begin_run("s", "", {})
    with pytest.raises(GauntletError, match=r"accuracy cell \(model=cnn, dataset=digits, seed=0\) twice"):
        store.plan(run_id, [planned("other"), planned(key="1"), planned(key="2")])
    assert store.runs()[0].cells == 0
    store.plan(run_id, [planned()])
    with pytest.raises(GauntletError, match="already has one of these cells"):
        store.plan(run_id, [planned("other"), planned()])
    assert store.runs()[0].cells == 1


def test_training_histories_are_kept_under_their_key(store: Store) -> None:
    rows = [{"epoch": 0, "loss": 0.5}, {"epoch": 1, "loss": 0.25}]
    store.put_history("t", "cnn", rows)
    store.put_history("t", "CNN", rows[1:])
    assert store.history("t") == rows[1:]
    assert store.history("absent") is None
    assert store.history_labels() == {"t": "CNN"}


def test_a_folder_stands_for_the_store_in_it(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.put("r", "k", one(0.5))
    with Store.open(tmp_path / "store.sqlite", create=False) as store:
        assert store.statuses(["k"]) == {"k": "ok"}


@pytest.mark.parametrize("name", ["a b", "ä?x=1#y%20", "it's"])
def test_odd_folder_names_are_only_names(tmp_path: Path, name: str) -> None:
    with Store.open(tmp_path / name / "store.sqlite") as store:
        store.put("r", "k", one(0.5))
    assert (tmp_path / name / "store.sqlite").is_file()


def test_reading_does_not_make_a_store(tmp_path: Path) -> None:
    with pytest.raises(GauntletError, match=r"no store at .*absent.sqlite; `gauntlet run` writes one"):
        Store.open(tmp_path / "absent.sqlite", create=False)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_sqlite_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("my diary, " * 200)
    with pytest.raises(GauntletError, match="not a Gauntlet store"):
        Store.open(path)
    assert path.read_text() == "my diary, " * 200


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE bookmarks (url)")
    other.close()
    with pytest.raises(GauntletError, match="SQLite file of another program"):
        Store.open(path)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    other.close()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    Store.open(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(GauntletError, match=r"newer version of Gauntlet \(schema 99.*upgrade"):
        Store.open(path)


def test_an_empty_file_is_no_store_to_read(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").touch()
    with pytest.raises(GauntletError, match="empty, not a Gauntlet store"):
        Store.open(tmp_path / "store.sqlite", create=False)


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(GauntletError, match="out is a file, not a folder"):
        Store.open(tmp_path / "out" / "store.sqlite")
    with pytest.raises(GauntletError, match="cannot be written"):
        Store.open(tmp_path / "out" / "deeper" / "store.sqlite")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(GauntletError, match=r"cannot be written; make .* a writable folder"):
            Store.open(tmp_path / "store.sqlite")
    finally:
        tmp_path.chmod(0o700)


def test_a_store_can_be_read_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path / "store.sqlite") as store:
        store.put("r", "k", one(0.5))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with Store.open(tmp_path / "store.sqlite", create=False) as store:
        assert store.statuses(["k"]) == {"k": "ok"}
        with pytest.raises(GauntletError, match="cannot be written"):
            store.put("r", "k2", one(0.5))
    assert [file.name for file in tmp_path.iterdir()] == ["store.sqlite"]


def test_a_full_disk_keeps_what_was_finished(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store.open(path) as store:
        store.put("r", "small", one(0.5))
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(GauntletError, match=r"disk .* is full; all finished cells are safe"):
            store.put("r", "big", CellResult(arrays={"a": np.ones(100_000)}))
        assert store.statuses(["small", "big"]) == {"small": "ok"}
        store._connection.execute("PRAGMA max_page_count = 1000000")
        store.put("r", "big", CellResult(arrays={"a": np.ones(100_000)}))
    with Store.open(path, create=False) as store:
        assert store.statuses(["small", "big"]) == {"small": "ok", "big": "ok"}


def test_a_lock_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store.open(path) as first, Store.open(path, timeout=0.1) as second:
        with first._transaction():
            with pytest.raises(GauntletError, match="locked by another process"):
                second.put("r", "k", one(0.5))
            assert second.statuses(["k"]) == {}  # readers never wait
        second.put("r", "k", one(0.5))


def test_a_lock_that_ends_in_time_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store.open(path) as first:
        first._connection.execute("BEGIN IMMEDIATE")
        done: list[str] = []

        def put() -> None:
            with Store.open(path, timeout=20) as second:
                second.put("r", "k", one(0.5))
                done.append("put")

        thread = threading.Thread(target=put)
        thread.start()
        time.sleep(0.2)
        first._connection.execute("COMMIT")
        thread.join()
    assert done == ["put"]


_WRITER = """
import sys
from pathlib import Path
from gauntlet.results import CellResult, Identity, Measurement, PlannedCell, Store
name = sys.argv[2]
with Store.open(Path(sys.argv[1])) as store:
    run_id = store.begin_run(name, "", {})
    store.plan(run_id, [PlannedCell(Identity("accuracy", name + str(i), "digits"), name + str(i)) for i in range(50)])
    for i in range(50):
        store.put(run_id, name + str(i), CellResult(measurements=(Measurement("accuracy", i / 50),)))
"""

_KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from gauntlet.results import CellResult, Measurement, Store
store = Store.open(Path(sys.argv[1]))
for i in range(20):
    store.put("r", f"k{i}", CellResult(measurements=(Measurement("accuracy", i / 20),), arrays={"a": np.arange(i)}))
store._connection.execute("PRAGMA cache_size = 1")  # spills the open transaction to the disk
store._connection.execute("BEGIN IMMEDIATE")
store._connection.execute("UPDATE measurements SET value = 7")
store._connection.execute("INSERT INTO arrays VALUES ('x', 'x', 'x', 'x', zeroblob(1000000), '')")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_several_processes_make_and_write_one_store(tmp_path: Path) -> None:
    path = tmp_path / "out" / "store.sqlite"
    command = [sys.executable, "-c", _WRITER, str(path)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in "abc"]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors.decode()
    with Store.open(path, create=False) as store:
        assert len(store.statuses([name + str(i) for name in "abc" for i in range(50)])) == 150
        assert sorted(run.suite for run in store.runs()) == ["a", "b", "c"]


def test_a_store_that_another_process_made_in_between_is_taken_as_it_is(tmp_path: Path) -> None:
    late = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    with Store.open(tmp_path / "store.sqlite") as store:
        store.put("r", "k", one(0.5))
        database._make_schema(late, store.path)
        late.close()
        assert store.statuses(["k"]) == {"k": "ok"}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_process_killed_in_mid_transaction_loses_nothing_that_was_put(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with Store.open(path) as store:
        for i in range(20):
            result = store.result(f"k{i}")
            assert result is not None
            assert result.measurements == (Measurement("accuracy", i / 20),)
            np.testing.assert_array_equal(result.arrays["a"], np.arange(i))
        assert store.arrays("x") == {}
        assert store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_appending_is_quick(store: Store, make: SimpleNamespace) -> None:
    """5,000 measurements a second are asked for; here of processor time, with room for a slow machine."""
    result = make.ok(*(make.measured(f"m{i}", 0.5) for i in range(10)))
    started = time.process_time()
    for i in range(200):
        store.put("r", f"k{i}", result)
    assert time.process_time() - started < 2.0
