"""Tolerances: methods, directions, rules of a suite, and pairs that make the check sharp."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import CellResult, Store, compare, load_results, make_baseline
from gauntlet.results.benchmarks import read_benchmarks
from gauntlet.results.drift_formats import as_json, as_junit, as_markdown
from gauntlet.results.paired_tests import noise_of, paired_half_width, write_samples
from gauntlet.results.tolerance import Rule, parse_rules

Builder = Callable[..., pd.DataFrame]


def judged(make: SimpleNamespace, text_frame_of: Builder, before: float, now: float, *rules: dict[str, Any]) -> str:
    old, new = (text_frame_of(make.detected(value, "msp", "glyphs")) for value in (before, now))
    return str(compare(make_baseline(old), new, rules=parse_rules(rules)).rows["verdict"].iloc[0])


@pytest.mark.parametrize(
    ("rule", "now", "verdict"),
    [
        ({"absolute": 0.005}, 0.81, "drifted"),
        ({"absolute": 0.02}, 0.81, "same"),
        ({"relative": 0.1}, 0.73, "same"),
        ({"relative": 0.1}, 0.71, "drifted"),
        ({"statistical": 0.0}, 0.81, "cannot tell"),
        ({"statistical": 0.0}, 0.83, "drifted"),
        ({"absolute": 0.01, "direction": "worse"}, 0.90, "improved"),
        ({"absolute": 0.01, "direction": "worse"}, 0.70, "drifted"),
        ({"absolute": 0.5, "metric": "fpr95"}, 0.70, "drifted"),
        ({"absolute": 0.5, "metric": "au*", "detector": "msp"}, 0.70, "same"),
        ({"absolute": 0.5, "detector": "knn"}, 0.70, "drifted"),
    ],
)
def test_a_rule_decides_for_what_it_matches(
    make: SimpleNamespace, text_frame_of: Builder, rule: dict[str, Any], now: float, verdict: str
) -> None:
    assert judged(make, text_frame_of, 0.8, now, rule) == verdict


def test_of_several_rules_the_last_decides(make: SimpleNamespace, text_frame_of: Builder) -> None:
    assert judged(make, text_frame_of, 0.8, 0.7, {"absolute": 0.5}, {"absolute": 0.01}) == "drifted"
    assert judged(make, text_frame_of, 0.8, 0.7, {"absolute": 0.01}, {"absolute": 0.5}) == "same"


def test_of_an_error_a_rise_is_worse(make: SimpleNamespace, text_frame_of: Builder) -> None:
    rules = [Rule({}, "absolute", 0.01, "worse")]
    for before, now, verdict in ((0.1, 0.2, "drifted"), (0.2, 0.1, "improved")):
        baseline = make_baseline(text_frame_of(make.calibrated(before)), ["ece"])
        report = compare(baseline, text_frame_of(make.calibrated(now)), rules=rules)
        assert list(report.rows["verdict"]) == [verdict]
        assert report.exit_status == (verdict == "drifted")


def test_a_value_that_became_nan_is_no_improvement(make: SimpleNamespace, text_frame_of: Builder) -> None:
    assert judged(make, text_frame_of, 0.8, float("nan"), {"absolute": 0.01, "direction": "worse"}) == "drifted"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "names one of statistical, absolute, relative"),
        ({"absolute": 1, "relative": 1}, "names one of"),
        ({"absolute": -1}, "must be a number >= 0, got -1"),
        ({"absolute": "1"}, "must be a number >= 0, got '1'"),
        ({"absolute": True}, "must be a number"),
        ({"absolute": 1, "direction": "better"}, "direction is any or worse, got 'better'"),
        ({"absolute": 1, "metrc": "ece"}, "no key 'metrc'; did you mean 'metric'"),
    ],
)
def test_a_wrong_rule_is_one_sentence(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(GauntletError, match=message):
        parse_rules([rule], "suite.yaml:3:1")


# -- pairs ----------------------------------------------------------------------------------------------------


def test_the_paired_interval_of_a_share_is_that_of_the_mean_difference() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(500) < 0.9
    after = before ^ (rng.random(500) < 0.02)
    difference = after.astype(float) - before
    expected = 1.959964 * difference.std(ddof=1) / np.sqrt(500)
    assert paired_half_width("accuracy", {"success": before}, {"success": after}) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", ["auroc", "ece"])
def test_a_paired_interval_is_close_to_the_bootstrap_of_the_difference(metric: str) -> None:
    """Images drawn with replacement, the same on both sides; both metrics computed by scikit-learn or by hand."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    first, second = rng.normal(size=300), rng.normal(1, 1, 200)
    noise = [0.3 * rng.normal(size=len(side)) for side in (first, second)]
    confidence = rng.random(300) * 0.5 + 0.5
    correct = rng.random(300) < confidence
    sides = [
        {"id_score": first, "ood_score": second, "confidence": confidence, "correct": correct},
        {
            "id_score": first + noise[0], "ood_score": second + noise[1],
            "confidence": np.clip(confidence + 0.1, 0, 1), "correct": correct,
        },
    ]  # fmt: skip

    def ece(side: dict[str, np.ndarray], chosen: np.ndarray) -> float:
        bins = np.ceil(side["confidence"][chosen] * 15).astype(int)
        gap = side["confidence"][chosen] - side["correct"][chosen]
        return sum(abs(gap[bins == b].sum()) for b in range(1, 16)) / len(chosen)

    draws = []
    for _ in range(600):
        i, j = rng.integers(0, 300, 300), rng.integers(0, 200, 200)
        if metric == "auroc":
            labels = [0] * 300 + [1] * 200
            a, b = (roc_auc_score(labels, np.r_[side["id_score"][i], side["ood_score"][j]]) for side in sides)
        else:
            a, b = (ece(side, i) for side in sides)
        draws.append(b - a)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert paired_half_width(metric, *sides) == pytest.approx((high - low) / 2, rel=0.15)


def test_robust_accuracy_is_paired_where_the_models_get_different_numbers_of_images_right() -> None:
    """The images are the same; which of them are attacked is the model's own doing."""
    rng = np.random.default_rng(2)
    sides = []
    for right in (90, 91):
        attacked = np.arange(100) < right
        sides.append({"attacked": attacked, "success": rng.random(right) < 0.3})
    kept = [np.r_[~side["success"], np.zeros((~side["attacked"]).sum(), bool)].astype(float) for side in sides]
    expected = 1.959964 * (kept[1] - kept[0]).std(ddof=1) / np.sqrt(100)
    assert paired_half_width("robust_accuracy", *sides) == pytest.approx(expected, rel=1e-6)
    fewer = {"attacked": np.ones(99, bool), "success": np.zeros(99, bool)}
    assert paired_half_width("robust_accuracy", sides[0], fewer) is None


def test_other_images_cannot_be_paired() -> None:
    one, two = {"success": np.ones(5, bool)}, {"success": np.ones(6, bool)}
    assert paired_half_width("accuracy", one, two) is None
    assert paired_half_width("nll", one, one) is None
    assert paired_half_width("accuracy", one, {}) is None


def test_samples_make_the_check_sharper(make: SimpleNamespace, tmp_path: Path) -> None:
    """Of 400 images ten turn wrong: within both intervals, but not within that of the paired difference."""
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.9
    worse = right.copy()
    worse[np.flatnonzero(right)[:10]] = False
    frames, stores = [], []
    for i, success in enumerate((right, worse)):
        planned, _ = make.accuracy()
        value = make.measured("accuracy", float(success.mean()), 0.03)
        store = Store.open(tmp_path / str(i) / "store.sqlite")
        make.fill(store, [(planned, CellResult(measurements=(value,), arrays={"success": success}))])
        stores.append(store)
        frames.append(load_results(store.path))
    samples = write_samples(stores[0], frames[0], tmp_path / "b.samples.npz")
    baseline = make_baseline(frames[0])
    assert compare(baseline, frames[1], tolerance=0.005).exit_status == 0
    report = compare(baseline, frames[1], tolerance=0.005, noise=noise_of(samples, stores[1], frames[1]))
    assert report.exit_status == 1
    assert report.rows["allowed"].iloc[0] == pytest.approx(
        1.96 * np.std(worse.astype(int) - right, ddof=1) / 20, rel=1e-3
    )
    for store in stores:
        store.close()


def test_samples_that_cannot_be_read_are_one_sentence(make: SimpleNamespace, store: Store, tmp_path: Path) -> None:
    make.fill(store, [make.accuracy()])
    (tmp_path / "b.samples.npz").write_bytes(b"nonsense")
    with pytest.raises(GauntletError, match="cannot be read"):
        noise_of(tmp_path / "b.samples.npz", store, load_results(store.path))


# -- formats --------------------------------------------------------------------------------------------------


@pytest.fixture
def report(make: SimpleNamespace, text_frame_of: Builder, hostile: str) -> Any:
    before = text_frame_of(
        make.detected(0.9, hostile, "glyphs"), make.detected(0.9, "gone", "glyphs"), make.accuracy(model=hostile)
    )
    now = text_frame_of(make.detected(0.1, hostile, "glyphs"), make.accuracy(model=hostile), make.accuracy(model="new"))
    return compare(make_baseline(before), now)


def test_the_sentences_name_what_drifted_and_by_how_much(report: Any, hostile: str) -> None:
    drifted, missing = report.sentences if "drifted" in report.rows["verdict"].iloc[-1] else sorted(report.sentences)
    both = drifted + missing
    assert f"detector={hostile}" in both
    assert "auroc went from 0.9000 to 0.1000 (-0.8000, allowed 0.0300)" in both
    assert "detector=gone, ood_dataset=glyphs): auroc is missing: not planned" in both.replace("seed=0, ", "")


def test_junit_has_one_case_a_measurement(report: Any, hostile: str) -> None:
    suite = ET.fromstring(as_junit(report)).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "4",
        "1",
        "1",
        "1",
    )
    failure = suite.find(".//failure")
    assert failure is not None
    assert " ".join(hostile.split()) in " ".join((failure.get("message") or "").split())


def test_json_holds_every_row(report: Any, hostile: str) -> None:
    content = json.loads(as_json(report))
    assert content["exit_status"] == 1
    assert content["counts"] == {"drifted": 1, "missing": 1, "new": 1, "same": 1}
    assert hostile in {row["detector"] for row in content["rows"]}


def test_markdown_is_ready_for_a_pull_request(report: Any) -> None:
    text = as_markdown(report)
    assert text.startswith("### ❌ Drift: 1 same, 1 drifted, 1 missing, 1 new.")
    assert "<script" not in text


# -- benchmarks -----------------------------------------------------------------------------------------------


def benchmark_file(path: Path, **seconds: float) -> Path:
    stats = {"q1": 0.9, "q3": 1.1, "rounds": 5}
    entries = [
        {"name": name, "fullname": f"tests/b.py::{name}", "stats": {**stats, "median": s}}
        for name, s in seconds.items()
    ]
    path.write_text(json.dumps({"benchmarks": entries}), encoding="utf-8")
    return path


def test_benchmarks_are_gated_by_relative_slowdown(tmp_path: Path) -> None:
    before = make_baseline(
        read_benchmarks(benchmark_file(tmp_path / "a.json", one=1.0, two=1.0, gone=1.0)), ["seconds"]
    )
    now = read_benchmarks(benchmark_file(tmp_path / "b.json", one=1.3, two=0.5))
    report = compare(before, now, rules=[Rule({}, "relative", 0.25, "worse")])
    verdicts = dict(zip(report.rows["model"].str.rpartition("::")[2], report.rows["verdict"], strict=True))
    assert verdicts == {"one": "drifted", "two": "improved", "gone": "missing"}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"benchmarks": [{"name": "x"}]}'])
def test_what_is_not_of_pytest_benchmark_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(GauntletError, match="is not of pytest-benchmark"):
        read_benchmarks(tmp_path / "x.json")
