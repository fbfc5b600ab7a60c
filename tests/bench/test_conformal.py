"""Conformal sets: scores and quantile against a slow direct computation, the guarantee, and where it breaks."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet.bench.conformal import SCORES, aps, class_quantiles, of_truth, quantile, threshold
from gauntlet.bench.evaluators.conditions import CLEAN
from gauntlet.bench.evaluators.conformal import Scored, SetTask, measure
from gauntlet.bench.runner import run_suite
from gauntlet.registry import GauntletError
from gauntlet.results.frame import load_results
from gauntlet.results.presets import PRESETS

SUITE = {
    "name": "sets",
    "datasets": [{"name": "digits", "limit": 1000}],
    "models": [{"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 20}}}],
    "evaluators": ["conformal"],
    "attacks": [{"name": "pgd", "steps": 10, "stop_when_fooled": False}],
    "epsilons": [0.3],
    "attack_images": 60,
    "corruptions": ["mnist-c/fog"],
    "cross": [["conformal", "corruptions"], ["conformal", "attacks"]],
}


def images(seed: int, n: int = 60, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (n, classes), a label drawn from each, and uniform numbers."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.4), n)
    labels = (rng.random(n)[:, None] > probabilities.cumsum(1)).sum(1).clip(0, classes - 1)
    return probabilities, labels, rng.random(n)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_papers_class_by_class(seed: int) -> None:
    probabilities, _, uniform = images(seed)
    for p, u, lac, adaptive in zip(
        probabilities, uniform, threshold(probabilities, uniform), aps(probabilities, uniform), strict=True
    ):
        for k in range(len(p)):
            assert lac[k] == 1 - p[k]
            assert adaptive[k] == pytest.approx(sum(other for other in p if other > p[k]) + u * p[k])


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 60), percent=st.integers(1, 99))
def test_the_quantile_is_the_least_score_with_enough_others_below(n: int, percent: int) -> None:
    scores = np.random.default_rng(n).permutation(n) + 1.0  # 1 ... n: a score is its own rank
    needed = math.ceil((n + 1) * (1 - Fraction(percent, 100)))
    assert quantile(scores, percent / 100) == (needed if needed <= n else math.inf)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("by_class", [False, True])
def test_mean_coverage_over_1000_splits_is_nominal(score: str, by_class: bool) -> None:
    """Exchangeable data: at least 1 - miscoverage, and less than 1 / (n + 1) more where scores have no ties."""
    probabilities, labels, uniform = images(0, 1200, 3)
    truth, rng, found = of_truth(SCORES[score](probabilities, uniform), labels), np.random.default_rng(0), []
    for _ in range(1000):
        order = rng.permutation(1200)
        calibration, test = order[:150], order[150:]
        bars = np.full(3, quantile(truth[calibration], 0.1))
        if by_class:
            bars = class_quantiles(truth[calibration], labels[calibration], 3, 0.1)
        found.append((truth[test] <= bars[labels[test]]).mean())
    slack = 3 * np.std(found) / math.sqrt(1000)
    assert np.mean(found) >= 0.9 - slack
    if not by_class:
        assert np.mean(found) <= 0.9 + 1 / 151 + slack


def scored(seed: int, n: int) -> Scored:
    probabilities, labels, uniform = images(seed, n)
    return Scored({name: score(probabilities, uniform) for name, score in SCORES.items()}, labels)


def figures(result, name=""):
    return {item.metric: item.value for item in result.measurements if item.class_name == name}


@pytest.mark.parametrize("score", SCORES)
def test_measures_are_those_of_the_sets(score: str) -> None:
    calibration, test = scored(1, 200), scored(2, 300)
    found = figures(measure(SetTask(score, False, 0.1, CLEAN), calibration, test, list("abcde")))
    bar = sorted(calibration.scores[score][np.arange(200), calibration.labels])[math.ceil(201 * 0.9) - 1]
    sets = [{k for k in range(5) if row[k] <= bar} for row in test.scores[score]]
    hits = [label in chosen for label, chosen in zip(test.labels, sets, strict=True)]
    assert found["coverage"] == pytest.approx(np.mean(hits))
    assert found["coverage_gap"] == pytest.approx(np.mean(hits) - 0.9)
    assert found["set_size"] == pytest.approx(np.mean([len(chosen) for chosen in sets]))
    strata = [[hit for hit, chosen in zip(hits, sets, strict=True) if low <= len(chosen) <= high]
              for low, high in ((0, 1), (2, 3), (4, 10))]  # fmt: skip
    assert found["size_coverage"] == pytest.approx(min(np.mean(part) for part in strata if part))


def test_a_class_without_calibration_images_is_in_every_set_and_the_reason_names_it() -> None:
    calibration, test = scored(1, 300), scored(2, 100)
    kept = calibration.labels != 3
    without = Scored({name: part[kept] for name, part in calibration.scores.items()}, calibration.labels[kept])
    result = measure(SetTask("aps", True, 0.1, CLEAN), without, test, list("abcde"))
    assert (
        result.reason == "Calibration images of d are too few for a coverage of 90 %: these classes are in every set."
    )
    assert figures(result, "d")["coverage"] == 1


def test_too_few_calibration_images_are_one_sentence() -> None:
    result = measure(SetTask("threshold", False, 0.1, CLEAN), scored(1, 8), scored(2, 30), list("abcde"))
    assert result.reason == "Calibration images are too few for a coverage of 90 %: every set holds every class."
    assert figures(result)["set_size"] == 5
    with pytest.raises(GauntletError, match="the validation split has none"):
        measure(SetTask("threshold", False, 0.1, CLEAN), scored(1, 0), scored(2, 30), list("abcde"))


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    """The suite above, run once."""
    folder = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUNTLET_CACHE", str(folder / "cache"))
        patch.delenv("GAUNTLET_DATA", raising=False)
        outcome = run_suite(SUITE, out=folder)
    found = load_results(folder)
    assert outcome.complete, found[["detector", "status", "reason"]]
    return found


def test_coverage_holds_on_test_images_and_breaks_under_attack(frame):
    rows = frame[(frame["metric"] == "coverage_gap") & (frame["class"] == "")]
    clean = rows[(rows["attack"] == "") & (rows["corruption"] == "") & ~rows["detector"].str.contains("by class")]
    assert len(clean) == 2
    # Given one calibration split of n images, coverage is Beta distributed: three standard deviations, n = 100.
    assert (clean["value"] > -0.1).all()
    attacked = rows[(rows["attack"] != "") & ~rows["detector"].str.contains("by class")]
    assert (attacked["ci_high"] < -0.5).all()


def test_the_table_shows_it(frame):
    (table,) = PRESETS["conformal"](frame)
    assert table.title.startswith("Conformal prediction sets on digits")
