"""`pytest --gauntlet SUITE --gauntlet-baseline FILE`: one test per cell, red where one drifted."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

from gauntlet.bench.runner import run_suite
from gauntlet.results import load_results, make_baseline, read_baseline, write_baseline

from .conftest import small_suite


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite of one model that was run, with its baseline."""
    suite = small_suite(attacks=None, epsilons=None, attack_images=None)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(suite))
    run_suite(tmp_path / "small.yaml", out=tmp_path / "out", device="cpu")
    write_baseline(make_baseline(load_results(tmp_path / "out")), tmp_path / "b.csv")
    return tmp_path


def pytest_in(folder: Path, *arguments: str) -> str:
    """What another pytest says there; not in this process, which would import torch twice."""
    installed = any(point.value == "gauntlet.pytest_plugin" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "gauntlet.pytest_plugin"]
    options = ["--gauntlet", "small.yaml", "--gauntlet-out", "out", "--gauntlet-device", "cpu", "-q"]
    command = [sys.executable, "-m", "pytest", *plugin, *options, "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}\nexit status {done.returncode}"


def test_every_cell_is_a_test_and_a_drift_is_a_failure_that_names_it(folder: Path) -> None:
    said = pytest_in(folder, "--gauntlet-baseline", "b.csv")
    assert "6 passed" in said  # accuracy, calibration, and two detectors on two sets
    baseline = read_baseline(folder / "b.csv")
    baseline.loc[baseline["evaluator"] == "accuracy", "value"] = 1.5
    write_baseline(baseline, folder / "b.csv")
    said = pytest_in(folder, "--gauntlet-baseline", "b.csv")
    assert "1 failed, 5 passed" in said
    assert "accuracy cell (model=CNN, dataset=digits, seed=0): accuracy went from 1.5000 to" in said
    assert "Traceback" not in said


def test_a_plugin_is_loaded_and_without_it_each_cell_says_one_sentence(folder: Path) -> None:
    code = "from gauntlet import detector\n@detector('mine')\ndef mine(logits):\n    return -logits.amax(1)\n"
    (folder / "mine.py").write_text(code)
    suite = small_suite(attacks=None, epsilons=None, attack_images=None, detectors=["msp", {"knn": {"k": 5}}, "mine"])
    (folder / "small.yaml").write_text(yaml.safe_dump(suite))
    said = pytest_in(folder, "--gauntlet-baseline", "b.csv", "--gauntlet-plugin", "mine.py")
    assert "6 passed" in said
    said = pytest_in(folder, "--gauntlet-baseline", "b.csv")
    assert "6 failed" in said
    assert "Unknown detector 'mine'" in said
    assert "pluggy" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "--gauntlet needs --gauntlet-baseline FILE"), (["--gauntlet-baseline", "absent.csv"], "no file absent.csv")],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, arguments: list[str], words: str) -> None:
    said = pytest_in(tmp_path, *arguments)
    assert words in said
    assert "exit status 4" in said
