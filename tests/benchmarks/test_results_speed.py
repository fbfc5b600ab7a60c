"""A million measurements: tables, drift check, report page and appending, against the promised limits."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gauntlet.results import CellResult, Facts, Identity, Measurement, PlannedCell, Store, compare, load_results, pivot
from gauntlet.results.drift import make_baseline
from gauntlet.results.page import build_page

pytestmark = pytest.mark.benchmark_suite
METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95", "fpr95_id", "detection_error", "accuracy", "ece", "nll", "brier")
CELLS = 100_000  # of ten metrics each: a million measurements


def cells() -> Iterator[tuple[PlannedCell, CellResult]]:
    """20 models, 50 detectors, 20 OOD sets, 5 seeds."""
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
                    row = values[number]
                    measured = tuple(
                        Measurement(name, float(v), max(0.0, v - 0.01), min(1.0, v + 0.011), 1540)
                        for name, v in zip(METRICS, row, strict=True)
                    )
                    yield PlannedCell(where, key, facts, {"model": {"name": "cnn"}}), CellResult(measurements=measured)
                    number += 1


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The store, and how many measurements a second were appended, cell by cell as a run does."""
    folder = tmp_path_factory.mktemp("million")
    everything = list(cells())
    with Store.open(folder / "store.sqlite") as store:
        run_id = store.begin_run("million", "name: million", {})
        store.plan(run_id, [planned for planned, _ in everything])
        started = time.perf_counter()
        for planned, result in everything:
            store.put(run_id, planned.key, result)
        seconds = time.perf_counter() - started
        store.end_run(run_id, "finished")
    return folder, CELLS * len(METRICS) / seconds


@pytest.fixture(scope="module")
def frame(filled: tuple[Path, float]) -> pd.DataFrame:
    return load_results(filled[0])


def report(capsys: Any, what: str, seconds: float) -> None:
    with capsys.disabled():
        print(f"\n{what}: {seconds:.2f} s")


def test_appending_is_fast(filled: tuple[Path, float], capsys: Any) -> None:
    with capsys.disabled():
        print(f"\nappended: {filled[1]:,.0f} measurements/s")
    assert filled[1] >= 5000


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(["detector"], ["model", "ood_dataset"]), (["model", "detector", "ood_dataset", "seed"], ["metric"])],
)
def test_any_table_takes_under_three_seconds(
    frame: pd.DataFrame, rows: list[str], columns: list[str], capsys: Any
) -> None:
    metrics = list(METRICS) if "metric" in columns else "auroc"
    started = time.perf_counter()
    table = pivot(frame, rows, columns, metrics, best="column" if columns != ["metric"] else "")
    seconds = time.perf_counter() - started
    report(capsys, f"table of {len(table.rows)} x {len(table.columns)}", seconds)
    assert seconds < 3


def test_the_check_takes_under_five_seconds(frame: pd.DataFrame, capsys: Any) -> None:
    baseline = make_baseline(frame, METRICS)
    started = time.perf_counter()
    outcome = compare(baseline, frame)
    seconds = time.perf_counter() - started
    report(capsys, f"check of {len(outcome.rows):,} values", seconds)
    assert outcome.exit_status == 0
    assert seconds < 5


def test_the_page_is_small_and_soon_usable(
    filled: tuple[Path, float], frame: pd.DataFrame, tmp_path: Path, capsys: Any
) -> None:
    with Store.open(filled[0], create=False) as store:
        started = time.perf_counter()
        html = build_page(frame, store)
        report(capsys, "report written", time.perf_counter() - started)
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
        report(capsys, "interactive", milliseconds / 1000)
        assert milliseconds < 2000
    finally:
        browser.quit()


def test_the_page_has_every_row(frame: pd.DataFrame) -> None:
    assert not re.search("more rows are in", build_page(frame))
