"""The leaderboard page: what is in the file, and how it behaves in a headless Chromium (skipped where none is)."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gauntlet.results import Store, load_results
from gauntlet.results.page import build_page, findings

pytest.importorskip("itables")
Builder = Callable[..., pd.DataFrame]


def data_of(html: str) -> dict[str, Any]:
    packed = re.search(r'id="data">([^<]*)<', html)
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


# -- the file -------------------------------------------------------------------------------------------------


def test_the_page_asks_nothing_of_the_network(make: SimpleNamespace, frame_of: Builder) -> None:
    html = build_page(frame_of(make.accuracy()))
    markup = re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", markup)
    assert not re.search(r"@import|url\((?!data:)", html.split("</style>")[0])


def test_hostile_names_stay_inside_their_text(make: SimpleNamespace, frame_of: Builder, hostile: str) -> None:
    frame = frame_of(make.accuracy(model=hostile), make.broken("failed", hostile, evaluator="attack", attack=hostile))
    html = build_page(frame, title=hostile)
    markup = re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.DOTALL)
    assert "<script>alert" not in markup
    assert hostile in data_of(html)["boards"][0]["views"]["each"]["dimensions"][0]["of"]


def test_values_and_intervals_survive_the_packing(make: SimpleNamespace, frame_of: Builder) -> None:
    """Shares to a hundredth of a percent, other numbers to four digits, infinity as text."""
    result = make.ok(make.measured("nll", 0.123456, 0.01), make.measured("ece", 0.123456, 0.02, n=7))
    odd = make.ok(make.measured("median_norm", float("inf"), 1.0))
    data = data_of(build_page(frame_of(make.cell(result, evaluator="calibration"), make.cell(odd, evaluator="attack"))))
    ece, nll = (data["boards"][0]["views"]["each"]["metrics"][name] for name in ("ece", "nll"))
    assert (ece["value"], ece["half"], ece["n"]) == ([1230], [200], [7])  # 12.35 would be shown as 12.4
    assert (ece["low"], ece["high"]) == ([1030], [1430])
    assert nll["value"] == [pytest.approx(0.123456, rel=1e-4)]
    assert data["boards"][1]["views"]["each"]["metrics"]["median_norm"]["value"] == ["∞"]


def test_seeds_are_shown_as_their_mean_and_each(make: SimpleNamespace, frame_of: Builder) -> None:
    board = data_of(build_page(frame_of(*(make.accuracy(value, seed=i) for i, value in enumerate([0.9, 0.8])))))
    views = board["boards"][0]["views"]
    assert views["mean"]["metrics"]["accuracy"]["value"] == [8500]
    assert views["mean"]["seeds"] == [2]
    assert views["each"]["metrics"]["accuracy"]["value"] == [9000, 8000]


def test_failures_and_detectors_worse_than_chance_are_findings(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(
        make.detected(0.2, "flipped", "glyphs"),
        make.detected(0.9, "msp", "glyphs"),
        make.broken("failed", "it broke", evaluator="ood", detector="bad", ood_dataset="glyphs"),
        make.broken("skipped", "no file", evaluator="ood", detector="none", ood_dataset="glyphs"),
    )
    found = [(finding.level, finding.title, finding.text) for finding in findings(frame)]
    assert found == [
        ("problem", "failed", "it broke"),
        ("warning", "worse than chance", "flipped ranks OOD images below ID images on glyphs (AUROC below 50 %)."),
        ("note", "skipped", "no file"),
    ]


# -- in a browser ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chrome, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (chrome and driver):
        pytest.skip("no Chromium with chromedriver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


class Page:
    """A page in the browser, spoken to by CSS selectors."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        browser.get_log("performance")
        browser.get_log("browser")
        browser.get(path.as_uri())
        started = time.perf_counter()
        self.wait("return document.documentElement.dataset.ready")
        self.seconds = time.perf_counter() - started

    def wait(self, script: str, limit: float = 20) -> Any:
        end = time.perf_counter() + limit
        while not (found := self.browser.execute_script(script)):
            assert time.perf_counter() < end, f"{script}: never true; {self.browser.get_log('browser')}"
            time.sleep(0.02)
        return found

    def texts(self, selector: str) -> list[str]:
        return [item.text for item in self.browser.find_elements("css selector", selector)]

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def requests(self) -> list[str]:
        messages = (json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance"))
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def show(browser: Any, tmp_path: Path, make: SimpleNamespace) -> Callable[..., Page]:
    def load(*cells: Any) -> Page:
        with Store.open(tmp_path / "shown" / "store.sqlite") as store:
            make.fill(store, cells)
            html = build_page(load_results(store.path), store, references=lambda kind, name: f"paper of {name}")
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        return Page(browser, path)

    return load


def scored(make: SimpleNamespace) -> list[Any]:
    planned, result = make.detected(0.7, "msp", "glyphs", "near")
    rng = np.random.default_rng(0)
    arrays = {"id_score": rng.normal(size=50), "ood_score": rng.normal(1, size=50)}
    with_arrays = type(result)(measurements=result.measurements, arrays=arrays)
    return [
        (planned, with_arrays),
        make.detected(0.9, "knn", "glyphs", "near"),
        make.detected(0.8, "msp", "noise", "far"),
        make.accuracy(0.97, seed=0),
        make.accuracy(0.95, seed=1),
    ]


def test_it_loads_without_errors_and_without_requests(show: Callable[..., Page], make: SimpleNamespace) -> None:
    page = show(*scored(make))
    assert page.browser.get_log("browser") == []
    assert [url for url in page.requests() if not url.startswith(("file:", "blob:", "data:"))] == []


def test_it_sorts_filters_and_toggles_near_and_far(show: Callable[..., Page], make: SimpleNamespace) -> None:
    page, cell = show(*scored(make)), "#board-0 tbody td:nth-child(2)"
    assert page.texts(cell) == ["knn", "msp", "msp"]  # the best AUROC first
    page.one("#board-0 thead tr:first-child [data-dt-column='1']").click()
    page.wait(f"return document.querySelector('{cell}').textContent === 'knn'")
    page.one("#board-0 thead tr:first-child [data-dt-column='1']").click()
    page.wait(f"return document.querySelector('{cell}').textContent === 'msp'")
    page.one("#board-0 input[value=far]").click()
    page.wait("return document.querySelectorAll('#board-0 tbody tr').length === 1")
    assert page.texts("#board-0 tbody td:nth-child(3)") == ["noise"]
    page.one("#board-0 input[value='']").click()
    page.one("#board-0 .dt-search input").send_keys("knn")
    page.wait("return document.querySelectorAll('#board-0 tbody tr').length === 1")
    assert page.texts(cell) == ["knn"]


def test_a_column_has_its_own_filter(show: Callable[..., Page], make: SimpleNamespace) -> None:
    page = show(*scored(make))
    page.one("#board-0 thead tr.filters [data-dt-column='1'] input").send_keys("ms")
    page.wait("return document.querySelectorAll('#board-0 tbody tr').length === 2")


def test_enter_on_a_row_opens_its_provenance_and_plots(show: Callable[..., Page], make: SimpleNamespace) -> None:
    """By keyboard: the first cell is a button, which says whether it is open."""
    page = show(*scored(make))
    button = page.browser.find_elements("css selector", "#board-0 .open-row")[2]
    button.send_keys("\n")
    details = page.one("#board-0 .details")
    assert button.get_attribute("aria-expanded") == "true"
    assert "suite\nquickstart" in details.text
    assert len(details.find_elements("css selector", "svg")) == 2
    button.send_keys("\n")
    assert not page.texts("#board-0 .details")


def test_seeds_open_up(show: Callable[..., Page], make: SimpleNamespace) -> None:
    page = show(*scored(make))
    assert len(page.texts("#board-1 tbody tr")) == 1
    page.one("#board-1 input[value=each]").click()
    page.wait("return document.querySelectorAll('#board-1 tbody tr').length === 2")


def test_hostile_names_show_as_text(show: Callable[..., Page], make: SimpleNamespace, hostile: str) -> None:
    page = show(make.accuracy(model=hostile), make.broken("failed", hostile, evaluator="ood", detector=hostile))
    assert page.one("#board-0 .open-row").get_attribute("textContent") == hostile
    page.one("#board-1 .open-row").click()
    assert page.browser.execute_script("return document.scripts.length") == 3
    assert page.browser.get_log("browser") == []


def test_the_theme_follows_the_system_and_the_button(show: Callable[..., Page], make: SimpleNamespace) -> None:
    page = show(make.accuracy())
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = page.browser.execute_script(colour)
    page.one("#theme").click()
    assert page.browser.execute_script(colour) != before
    page.one("#theme").click()
    assert page.browser.execute_script(colour) == before


def test_ten_thousand_rows_stay_responsive(show: Callable[..., Page], make: SimpleNamespace) -> None:
    page = show(*(make.detected(0.5 + i / 40_000, f"detector {i}", "glyphs", "near") for i in range(10_000)))
    search = """
        const started = performance.now(), field = document.querySelector('#board-0 .dt-search input');
        field.value = 'detector 9999';
        field.dispatchEvent(new Event('input', {bubbles: true}));
        return performance.now() - started"""
    assert page.seconds < 4
    assert page.browser.execute_script(search) < 2000
    page.wait("return document.querySelectorAll('#board-0 tbody tr').length === 1")
