"""A million measurements: tables, drift check, report page and appending, against the promised limits.

    pytest -m benchmark_suite -s tests/benchmarks/test_results_speed.py

Seconds are of the processor, so that other processes on the machine do not count. Commands are timed as a user starts
them: imports, loading from the store and printing are part of it.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gauntlet.results import CellResult, Facts, Identity, Measurement, PlannedCell, Store, compare, pivot
from gauntlet.results.drift import make_baseline
from gauntlet.results.frame import load_coded
from gauntlet.results.page import build_page

pytestmark = pytest.mark.benchmark_suite
METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95", "fpr95_id", "detection_error", "accuracy", "ece", "nll", "brier")
CELLS = 100_000  # of ten metrics each: a million measurements
RECIPE = {"augment": [], "batch_size": 128, "epochs": 30, "name": "standard", "optimizer": "adam", "schedule": "cosine"}


def cells() -> Iterator[tuple[PlannedCell, CellResult]]:
    """20 models, 50 detectors, 20 OOD sets, 5 seeds; every cell has its own parameters, as real ones do."""
    values = np.random.default_rng(0).random((CELLS, len(METRICS)))
    number = 0
    for model in range(20):
        for detector in range(50):
            for ood in range(20):
                for seed in range(5):
                    where = Identity(
                        "ood", f"model {model}", "digits", seed, f"detector {detector}", ood_dataset=f"set {ood}"
                    )
                    key = blake2b(str(number).encode(), digest_size=16).hexdigest()  # in no order, as real ones
                    facts = Facts("cnn", "standard", "", "near" if ood % 2 else "far")
                    params = {
                        "dataset": {"name": "digits"},
                        "detector": {"name": f"detector {detector}", "temperature": detector},
                        "model": {"name": f"model {model}", "recipe": RECIPE},
                        "ood": {"name": f"set {ood}", **({"stand_in": "another"} if ood == 3 else {})},
                    }
                    measured = tuple(
                        Measurement(name, float(v), max(0.0, v - 0.01), min(1.0, v + 0.011), 1540)
                        for name, v in zip(METRICS, values[number], strict=True)
                    )
                    yield PlannedCell(where, key, facts, params), CellResult(measurements=measured)
                    number += 1


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The store, and how many measurements a second were appended, cell by cell as a run does."""
    folder = tmp_path_factory.mktemp("million")
    everything = list(cells())
    with Store.open(folder / "store.sqlite") as store:
        run_id = store.begin_run("million", "name: million", {})
        store.plan(run_id, [planned for planned, _ in everything])
        started = time.perf_counter()  # the disk counts here
        for planned, result in everything:
            store.put(run_id, planned.key, result)
        seconds = time.perf_counter() - started
        store.end_run(run_id, "finished")
    return folder, CELLS * len(METRICS) / seconds


@pytest.fixture(scope="module")
def frame(filled: tuple[Path, float]) -> pd.DataFrame:
    return load_coded(filled[0])


def report(capsys: Any, what: str, seconds: float) -> None:
    with capsys.disabled():
        print(f"\n{what}: {seconds:.2f} s")


def command(folder: Path, *arguments: str) -> tuple[float, str]:
    """Processor seconds of a `gauntlet` command, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "gauntlet", *arguments, "--out", str(folder)], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def test_appending_is_fast(filled: tuple[Path, float], capsys: Any) -> None:
    with capsys.disabled():
        print(f"\nappended: {filled[1]:,.0f} measurements/s")
    assert filled[1] >= 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rows", "detector", "--columns", "model,ood_dataset", "--metric", "auroc", "--best", "column"),
        ("ood", "--layout", "groups", "--best", "column"),
        ("safety",),
    ],
)
def test_the_command_makes_a_table_in_under_three_seconds(
    filled: tuple[Path, float], arguments: tuple[str, ...], capsys: Any
) -> None:
    seconds, text = command(filled[0], "table", *arguments, "--format", "github")
    report(capsys, f"command: table {' '.join(arguments)}, {len(text):,} characters", seconds)
    assert seconds < 3


def test_a_table_of_all_million_values_takes_under_three_seconds(frame: pd.DataFrame, capsys: Any) -> None:
    started = time.process_time()
    table = pivot(frame, ["model", "detector", "ood_dataset", "seed"], ["metric"], list(METRICS))
    seconds = time.process_time() - started
    report(capsys, f"table of {len(table.rows):,} x {len(table.columns)}, from the loaded frame", seconds)
    assert seconds < 3


def test_the_command_checks_the_headline_metrics_in_under_five_seconds(
    filled: tuple[Path, float], frame: pd.DataFrame, capsys: Any
) -> None:
    command(filled[0], "baseline", str(filled[0] / "b.csv"))
    seconds, text = command(filled[0], "check", str(filled[0] / "b.csv"))
    report(capsys, f"command: check, {text.strip()}", seconds)
    assert seconds < 5


def test_the_check_of_all_million_values_takes_under_five_seconds(frame: pd.DataFrame, capsys: Any) -> None:
    baseline = make_baseline(frame, METRICS)
    started = time.process_time()
    outcome = compare(baseline, frame)
    seconds = time.process_time() - started
    report(capsys, f"check of {len(outcome.rows):,} values, from the loaded frame", seconds)
    assert outcome.exit_status == 0
    assert seconds < 5


def test_the_page_is_small_and_soon_usable(
    filled: tuple[Path, float], frame: pd.DataFrame, tmp_path: Path, capsys: Any
) -> None:
    with Store.open(filled[0], create=False) as store:
        started = time.process_time()
        html = build_page(frame, store)
        report(capsys, "report written", time.process_time() - started)
    assert not re.search("more rows are in", html)
    size = len(html.encode())
    with capsys.disabled():
        print(f"{size / 1e6:.1f} MB")
    assert size < 10e6
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    webdriver = pytest.importorskip("selenium.webdriver")
    chrome, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chrome and driver):
        pytest.skip("no Chromium here")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.get(path.as_uri())
        script = "return document.documentElement.dataset.ready && performance.getEntriesByName('ready')[0].startTime"
        while not (milliseconds := browser.execute_script(script)):
            time.sleep(0.02)
        report(capsys, "interactive (by the clock)", milliseconds / 1000)
        assert milliseconds < 2000
    finally:
        browser.quit()
