"""The command line: what it answers, how it exits, and that a mistake is one sentence."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from gauntlet.bench.cli import ERROR_STATUS, main
from gauntlet.bench.suite import builtin_suites, named_suites
from gauntlet.results.drift import read_baseline
from gauntlet.results.frame import read_csv

from .conftest import small_suite


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_suite()), encoding="utf-8")
    return path


def test_run_prints_both_tables_and_exits_with_zero(call, suite, tmp_path):
    status, out, err = call("run", suite, "--out", tmp_path / "out")
    assert status == 0
    assert "Accuracy under attack on digits (%)" in out
    assert "AUROC in % of OOD detection on digits" in out
    assert "10 ok" in err
    assert read_csv(tmp_path / "out" / "results.csv").shape[0] > 50


def test_several_suites_run_in_one_command_each_in_its_folder(call, tmp_path):
    names = []
    for name in ("one", "two"):
        small = small_suite(name=name, attacks=None, epsilons=None, detectors=None, ood=None, evaluators=["accuracy"])
        names.append(tmp_path / f"{name}.yaml")
        names[-1].write_text(yaml.safe_dump(small), encoding="utf-8")
    status, _, _ = call("run", *names, "--out", tmp_path / "out")
    assert status == 0
    assert [(tmp_path / "out" / name / "results.csv").is_file() for name in ("one", "two")] == [True, True]


def test_a_pattern_picks_built_in_suites_and_a_mistake_in_one_stops_all(call, tmp_path):
    assert named_suites(["r1-*"]) == [name for name in builtin_suites() if name.startswith("r1-")]
    status, _, err = call("run", "q*", tmp_path / "absent.yaml", "--out", tmp_path / "out")
    assert status == ERROR_STATUS
    assert "There is no suite file" in err
    assert not (tmp_path / "out").exists()
    status, _, err = call("run", "r9-*", "--out", tmp_path / "out")
    assert status == ERROR_STATUS
    assert "No built-in suite matches 'r9-*'" in err


def test_plan_shows_what_runs_what_is_cached_and_what_is_skipped(call, suite, tmp_path):
    _, out, _ = call("plan", suite, "--out", tmp_path / "out")
    assert "10 to run, 0 cached, 0 skipped" in out
    call("run", suite, "--out", tmp_path / "out")
    _, out, _ = call("plan", suite, "--out", tmp_path / "out")
    assert "0 to run, 10 cached, 0 skipped. Cached, to be verified" in out
    _, text, _ = call("plan", suite, "--out", tmp_path / "out", "--json")
    cells = json.loads(text)["cells"]
    assert {cell["state"] for cell in cells} == {"cached"}
    assert len(cells) == 10


def test_plan_shows_reasons_for_what_is_left_out_and_skipped(call, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({"datasets": ["mnist", "svhn"], "models": ["cnn-small"]}), encoding="utf-8")
    status, out, _ = call("plan", path, "--data", tmp_path / "none", "--out", tmp_path)
    assert status == 0
    assert "cnn-small takes 1x28x28 images, svhn has 3x32x32" in out
    assert "--download" in out


@pytest.mark.parametrize("kind", ["datasets", "models", "recipes", "attacks", "detectors", "suites"])
def test_list_shows_every_registry_in_words_and_in_json(call, kind):
    status, out, _ = call("list", kind)
    assert status == 0
    _, text, _ = call("list", kind, "--json")
    ((_, entries),) = json.loads(text).items()
    assert entries
    assert all(entry["name"] in out and entry["summary"] for entry in entries)


def test_train_trains_and_evaluates_nothing(call, suite, tmp_path):
    status, _, err = call("train", suite, "--out", tmp_path / "out")
    assert status == 0
    assert "models: 1 ok" in err
    assert not (tmp_path / "out" / "results.csv").exists()


def test_table_makes_presets_and_pivots_in_every_format(call, suite, tmp_path):
    call("run", suite, "--out", tmp_path / "out")
    for preset in ("attack-grid", "ood", "calibration"):
        status, out, _ = call("table", preset, "--out", tmp_path / "out")
        assert status == 0
        assert "digits" in out
    pivot = ("table", "--rows", "detector", "--columns", "ood_dataset", "--metric", "fpr95", "--out", tmp_path / "out")
    assert "knn" in call(*pivot)[1]
    assert "\\toprule" in call(*pivot, "--format", "latex")[1]
    assert "<table" in call(*pivot, "--format", "html")[1]
    call(*pivot, "--file", tmp_path / "t.tex")
    assert "\\toprule" in (tmp_path / "t.tex").read_text()
    call(*pivot, "--file", tmp_path / "t.tex", "--format", "csv")
    assert "\\toprule" not in (tmp_path / "t.tex").read_text()
    status, _, err = call(
        "table", "--rows", "detektor", "--columns", "model", "--metric", "auroc", "--out", tmp_path / "out"
    )
    assert status == ERROR_STATUS
    assert "did you mean 'detector'" in err


def test_check_is_green_on_the_same_results_and_red_when_a_detector_is_flipped(call, suite, tmp_path, write_plugin):
    out = tmp_path / "out"
    code = (
        "from gauntlet import detector\n@detector('mine')\ndef mine(logits):\n    return {sign}logits.max(1).values\n"
    )
    call("run", suite, "--out", out, "--plugin", write_plugin(code.format(sign="-")))
    assert call("baseline", tmp_path / "base.csv", "--out", out)[0] == 0
    assert len(read_baseline(tmp_path / "base.csv")) > 5
    assert call("check", tmp_path / "base.csv", "--out", out)[0] == 0
    call("run", suite, "--out", out, "--plugin", write_plugin(code.format(sign="")))
    status, text, _ = call("check", tmp_path / "base.csv", "--out", out)
    assert status == 1
    assert "mine" in text
    assert "drift" in text


def test_check_exits_with_two_when_cells_are_missing(call, suite, tmp_path):
    out = tmp_path / "out"
    call("run", suite, "--out", out)
    call("baseline", tmp_path / "base.csv", "--out", out)
    suite.write_text(yaml.safe_dump(small_suite(detectors=["msp"])), encoding="utf-8")
    call("run", suite, "--out", out)
    status, text, _ = call("check", tmp_path / "base.csv", "--out", out)
    assert status == 2
    assert "missing" in text


def test_check_says_of_each_cell_once_that_it_is_missing(call, suite, tmp_path):
    out = tmp_path / "out"
    call("run", suite, "--out", out)
    call("baseline", tmp_path / "base.csv", "--out", out)
    frozen = tmp_path / "base.csv"
    rows = pd.read_csv(frozen, dtype=str, keep_default_na=False)
    rows.assign(model="another").to_csv(frozen, index=False)
    status, text, err = call("check", frozen, "--out", out)
    assert status == 2
    assert (text + err).count("not planned") == len(read_baseline(frozen))
    assert "share no measurement" in text


def test_a_run_ends_in_the_next_step(call, suite, tmp_path):
    out = tmp_path / "with space"
    _, _, err = call("run", suite, "--out", out)
    command = shlex.split(err.split("Next: `gauntlet ")[1].split("`")[0])
    assert call(*command)[0] == 0
    assert (out / "report.html").is_file()


def not_sqlite(path: Path) -> None:
    path.write_text("these are words, and many of them, but no database " * 20)


def newer_store(path: Path) -> None:
    from gauntlet.results.store import Store

    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9999")


@pytest.mark.parametrize(
    ("spoil", "words"), [(not_sqlite, "store.sqlite"), (newer_store, "newer")], ids=["not SQLite", "newer version"]
)
def test_a_store_that_cannot_be_used_is_one_sentence(call, suite, tmp_path, spoil, words):
    out = tmp_path / "out"
    out.mkdir()
    spoil(out / "store.sqlite")
    status, _, err = call("run", suite, "--out", out)
    assert status == ERROR_STATUS
    assert err.startswith("Error: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quickstrat"], "Unknown suite 'quickstrat'; did you mean 'quickstart'?"),
        (["run", "absent.yaml"], "There is no suite file absent.yaml."),
        (["plan", "quickstart", "--profile", "huge"], "has no profile 'huge'"),
        (["list", "atacks"], "did you mean 'attacks'?"),
        (["run", "quickstart", "--device", "gpu"], "Unknown device 'gpu'"),
        (["table", "ood"], "store"),
        (["check", "absent.csv"], "absent.csv"),
        (["check", "binary.yaml"], "binary.yaml is not UTF-8 text, and so no CSV file."),
        (["run", "binary.yaml"], "Suite binary.yaml is not UTF-8 text."),
    ],
)
def test_mistakes_are_one_sentence_without_a_traceback(call, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    Path("binary.yaml").write_bytes(b"\xd0\x01\xff")
    status, _, err = call(*arguments)
    assert status == ERROR_STATUS
    assert words in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_a_full_disk_is_no_defect(call, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gauntlet.bench.listing.listing", full)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    status, _, err = call("list")
    assert status == ERROR_STATUS
    assert err == "Error: The output cannot be written: No space left on device.\n"


def test_a_defect_is_one_sentence_and_a_traceback_only_with_debug(call, monkeypatch, suite):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("gauntlet.bench.runner.prepare", broken)
    status, _, err = call("plan", suite)
    assert status == 70
    assert "install both in one go" in err
    with pytest.raises(RuntimeError):
        main(["--debug", "plan", str(suite)])


@pytest.mark.parametrize(
    ("name", "words"), [("plugin.py", "plugin.py:1: ZeroDivisionError"), ("neg_marin.py", "does not exist")]
)
def test_a_named_plugin_that_does_not_load_stops_the_run_before_it_starts(
    call, suite, tmp_path, write_plugin, name, words
):
    write_plugin("1 / 0")
    status, _, err = call("run", suite, "--out", tmp_path / "out", "--plugin", tmp_path / name)
    assert status == ERROR_STATUS
    assert words in err
    assert not (tmp_path / "out").exists()


def test_a_broken_plugin_of_an_installed_package_is_a_warning_and_the_exit_status_tells(
    call, suite, tmp_path, monkeypatch
):
    monkeypatch.setattr("gauntlet.bench.runner.load_entry_points", lambda registries: ["Plug-in 'x' did not load."])
    status, out, err = call("run", suite, "--out", tmp_path / "out")
    assert status == 1
    assert "Warning: Plug-in 'x' did not load." in err
    assert "Accuracy under attack" in out


def test_everything_works_without_a_git_program(suite, tmp_path):
    command = [sys.executable, "-m", "gauntlet", "run", str(suite), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env={**os.environ, "PATH": ""}, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "git executable" not in done.stderr


def test_verify_says_what_an_attack_did_on_the_known_models(call):
    status, out, _ = call("verify", "attack", "fgsm")
    assert status == 0
    lines = out.splitlines()
    assert [line.split()[1] for line in lines[:5]] == ["linear", "constant", "masked", "randomised", "trained"]
    assert lines[-1] == "attack fgsm conforms."


def test_verify_of_an_attack_that_lies_exits_with_1(call, write_plugin):
    plugin = write_plugin(
        '''
        import torch
        from gauntlet import attack
        from gauntlet.attacks.base import Attack, AttackResult

        @attack("liar", norm="linf", kind="fixed", access="none", cost="fast")
        class Liar(Attack):
            """Claims what it has not done."""

            def attack(self, victim, images, labels, epsilons, rng):
                success, norms = torch.ones_like(labels, dtype=torch.bool), torch.zeros(len(labels))
                return [AttackResult(epsilon, images, success, norms, 1, 0) for epsilon in epsilons]
        '''
    )
    status, out, _ = call("verify", "attack", "liar", "--plugin", plugin)
    assert status == 1
    assert "FAIL  constant" in out
    assert "attack liar does not conform." in out


def test_what_cannot_run_here_is_listed_apart_with_the_reason(call):
    _, unavailable, _ = call("list", "attacks", "--unavailable")
    assert "foolbox/l2/binarization-refinement" in unavailable
    assert "cannot work here" in " ".join(unavailable.split())
    _, listed, _ = call("list", "attacks")
    assert "foolbox/l2/binarization-refinement" not in listed
    assert "foolbox/l0/pointwise" in listed
