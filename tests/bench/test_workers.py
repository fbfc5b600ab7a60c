"""Worker processes: the same table, and what ends a process loses one cell."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gauntlet.bench.runner import run_suite
from gauntlet.registry import GauntletError
from gauntlet.registry.locks import claimed, locked
from gauntlet.results import CellResult, Measurement, Store, load_results
from gauntlet.results.journal import Journal, JournalReader, JournalStore, collect, result_facts, result_of

from .conftest import small_suite

TIMES = ["seconds", "run_id", "created_at"]


def two_models() -> dict[str, Any]:
    models = [
        {"name": "cnn-small", "label": f"{epochs} epochs", "recipe": {"standard": {"epochs": epochs}}}
        for epochs in (1, 2)
    ]
    return small_suite(models=models, worst_case=True, checks="standard")


def measured(out: Path) -> pd.DataFrame:
    return load_results(out).drop(columns=TIMES)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")


def test_one_worker_and_two_give_the_same_table_bit_for_bit(tmp_path, one_thread, monkeypatch):
    suite = two_models()
    for number in (1, 2):
        monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / f"cache-{number}"))
        outcome = run_suite(suite, out=tmp_path / str(number), workers=number)
        assert outcome.complete
        assert not any((tmp_path / str(number) / "workers").iterdir())
    pd.testing.assert_frame_equal(measured(tmp_path / "1"), measured(tmp_path / "2"), check_exact=True)
    assert run_suite(suite, out=tmp_path / "2").counts == {"cached": outcome.counts["ok"]}


FATAL = '''
    import os, time
    from gauntlet import detector

    @detector("fatal")
    def fatal(logits):
        """Ends its process on the images of one OOD set."""
        if len(logits) == 77:
            {body}
        return -logits.logsumexp(1)
'''
OOD = {"near": [{"glyphs": {"limit": 100}}], "far": [{"uniform-noise": {"count": 77}}]}


def fatal_run(tmp_path: Path, write_plugin: Any, body: str, **options: Any) -> pd.DataFrame:
    plugin = write_plugin(FATAL.format(body=body))
    suite = small_suite(attacks=None, epsilons=None, ood=OOD, detectors=["msp", "fatal"])
    outcome = run_suite(suite, out=tmp_path, plugins=[plugin], isolate=True, **options)
    assert not outcome.complete
    return load_results(tmp_path).drop_duplicates("key")


def test_a_detector_that_aborts_loses_one_cell_and_is_remembered(tmp_path, write_plugin):
    frame = fatal_run(tmp_path, write_plugin, "os.abort()")
    lost = frame[frame["status"] != "ok"]
    assert lost[["detector", "ood_dataset", "status"]].to_numpy().tolist() == [
        ["fatal", "uniform-noise count=77", "failed"]
    ]
    assert "SIGABRT" in lost["reason"].iloc[0]
    suite = small_suite(attacks=None, epsilons=None, ood=OOD, detectors=["msp", "fatal"])
    again = run_suite(suite, out=tmp_path, plugins=[str(tmp_path / "plugin.py")])
    assert again.counts == {"cached": len(frame) - 1, "failed": 1}, "the rerun does not die on it"
    assert not again.complete


def test_what_hangs_where_no_alarm_interrupts_it_is_ended(tmp_path, write_plugin, monkeypatch):
    monkeypatch.setattr("gauntlet.bench.workers._GRACE", 0.5)
    hang = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}); time.sleep(1000)"
    frame = fatal_run(tmp_path, write_plugin, hang, limit_time=2)
    lost = frame[frame["status"] != "ok"]
    assert lost[["detector", "ood_dataset", "status"]].to_numpy().tolist() == [
        ["fatal", "uniform-noise count=77", "timeout"]
    ]
    assert lost["reason"].iloc[0] == "fatal passed its time limit of 2 s, and its process was ended."


def test_what_asks_for_more_memory_than_it_may_take_fails_alone(tmp_path, write_plugin):
    body = "import torch; torch.empty(2**33, dtype=torch.uint8).fill_(1)"
    lost = fatal_run(tmp_path, write_plugin, body, limit_memory=2.0)
    lost = lost[lost["status"] != "ok"]
    assert lost[["detector", "ood_dataset", "status"]].to_numpy().tolist() == [
        ["fatal", "uniform-noise count=77", "out-of-memory"]
    ]


@pytest.mark.parametrize("wanted", ["0", "-1", "many", "2.5"])
def test_a_number_of_workers_that_is_none_is_one_sentence(wanted, tmp_path):
    with pytest.raises(GauntletError, match="give a number from 1 to 1024, or auto"):
        run_suite(small_suite(attacks=None, epsilons=None), out=tmp_path, workers=wanted)


def test_a_worker_is_told_what_is_no_plan(tmp_path, call):
    (tmp_path / "plan.json").write_text("{}", encoding="utf-8")
    status, _, error = call("worker", tmp_path / "plan.json")
    assert status == 3
    assert "is not the plan of a run" in error


class TestJournal:
    RESULT = CellResult(
        measurements=(Measurement("accuracy", 0.1 + 0.2, None, float("inf"), 3),),
        arrays={"score": np.array([0.1, np.nan], dtype=np.float32), "right": np.array([True])},
        seconds=1.5,
    )

    def written(self, path: Path, count: int = 3) -> Path:
        journal = Journal(path)
        for number in range(count):
            journal.add(self.RESULT.arrays, kind="cell", key=f"k{number}", result=result_facts(self.RESULT))
        journal.close()
        return path

    def test_what_is_read_is_what_was_written(self, tmp_path):
        path = self.written(tmp_path / "x.journal")
        found = [result_of(facts["result"], arrays) for facts, arrays in JournalReader(path).new()]
        assert len(found) == 3
        assert found[0].measurements == self.RESULT.measurements
        for name, array in self.RESULT.arrays.items():
            assert array.dtype == found[0].arrays[name].dtype
            np.testing.assert_array_equal(found[0].arrays[name], array)

    def test_cut_anywhere_it_holds_every_record_before_the_cut(self, tmp_path):
        path = self.written(tmp_path / "x.journal")
        whole = path.read_bytes()
        for cut in range(0, len(whole), 7):
            path.write_bytes(whole[:cut])
            assert len(list(JournalReader(path).new())) == cut // (len(whole) // 3)

    def test_of_flipped_bits_none_is_believed(self, tmp_path):
        path = self.written(tmp_path / "x.journal")
        whole = path.read_bytes()
        for place in range(0, len(whole), 5):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            found = [result_of(facts["result"], arrays) for facts, arrays in JournalReader(path).new()]
            assert len(found) <= 2
            assert all(one.measurements == self.RESULT.measurements for one in found)

    def test_a_reader_goes_on_where_it_stopped(self, tmp_path):
        path, reader = tmp_path / "x.journal", JournalReader(tmp_path / "x.journal")
        self.written(path, 1)
        assert len(list(reader.new())) == 1
        self.written(path, 2)
        assert len(list(reader.new())) == 2

    def test_collected_twice_is_collected_once(self, tmp_path):
        path = self.written(tmp_path / "x.journal")
        with Store.open(tmp_path / "store.sqlite") as store:
            run_id = store.begin_run("s", "", {})
            for _ in range(2):
                list(collect(JournalReader(path).new(), store, run_id))
            assert store.statuses(["k0", "k1", "k2"]) == dict.fromkeys(["k0", "k1", "k2"], "ok")

    def test_a_worker_sees_what_others_journaled(self, tmp_path):
        self.written(tmp_path / "other.journal", 1)
        with Store.open(tmp_path / "store.sqlite") as store:
            own = JournalStore(store, Journal(tmp_path / "own.journal"))
            assert own.settled(["k0"]) == set()
            own.catch_up()
            assert own.settled(["k0", "k1"]) == {"k0"}


HOLD = """
import sys, time
from pathlib import Path
from gauntlet.registry.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


class TestLocks:
    def test_a_lock_is_waited_for_with_a_message_and_taken_from_the_dead(self, tmp_path):
        path, told = tmp_path / "x.lock", []
        with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            with claimed(path) as mine:
                assert not mine

            def note(text: str) -> None:
                told.append(text)
                holder.kill()

            started = time.monotonic()
            with locked(path, note, "CNN on digits") as waited:
                assert waited
            assert time.monotonic() - started < 10
        assert len(told) == 1
        assert f"process {holder.pid} on " in told[0]
        assert "which makes CNN on digits too" in told[0]
        assert not path.exists()

    def test_where_nothing_can_be_written_nothing_is_locked(self, tmp_path):
        (tmp_path / "file").write_text("", encoding="utf-8")
        with locked(tmp_path / "file" / "x.lock") as waited:
            assert not waited
