"""Error detection on images as they are, corrupted, attacked and beside OOD images; and what is undefined."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from gauntlet.bench.evaluators.misclassification import measure, measure_with_ood
from gauntlet.bench.runner import run_suite
from gauntlet.bench.suite import load_suite
from gauntlet.registry import GauntletError
from gauntlet.results.formats import render
from gauntlet.results.frame import load_results
from gauntlet.results.plots.kinds import Material, draw
from gauntlet.results.presets import PRESETS
from gauntlet.results.store import Store

SUITE = {
    "name": "errors",
    "datasets": [{"name": "digits", "limit": 400}],
    "models": [{"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 4}}}],
    "evaluators": ["accuracy", "attack", "misclassification"],
    "detectors": ["msp", "energy"],
    "ood": ["glyphs"],
    "costs": {"ood": 0.5},
    "attacks": ["fgsm"],
    "epsilons": [0.1],
    "attack_images": 50,
    "corruptions": ["mnist-c/fog"],
    "cross": [["misclassification", "corruptions"], ["attacks", "misclassification"]],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The suite above, run once: its folder, its frame, and the arrays of each cell by key."""
    folder = tmp_path_factory.mktemp("errors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUNTLET_CACHE", str(folder / "cache"))
        patch.delenv("GAUNTLET_DATA", raising=False)
        outcome = run_suite(SUITE, out=folder)
    frame = load_results(folder)
    assert outcome.complete, frame[["detector", "status", "reason"]]
    with Store.open(folder / "store.sqlite") as store:
        arrays = {key: store.arrays(key) for key in frame["key"].unique()}
    return folder, frame, arrays


def cells(frame, **where):
    rows = frame[frame["evaluator"] == "misclassification"]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows


def test_there_is_a_cell_for_each_detector_in_each_condition_and_beside_each_ood_set(found):
    _, frame, _ = found
    known = cells(frame).drop_duplicates("key")
    where = known[["detector", "corruption", "attack", "ood_dataset"]].apply(tuple, axis=1)
    conditions = [("", "", ""), ("mnist-c/fog", "", ""), ("", "fgsm", ""), ("", "", "glyphs")]
    assert sorted(where) == sorted((name, *rest) for name in ("msp", "energy") for rest in conditions)


def test_figures_are_those_of_the_arrays_and_of_scikit_learn(found):
    _, frame, arrays = found
    for key, cell in cells(frame, ood_dataset="").groupby("key"):
        known, value = arrays[key], cell.set_index("metric")["value"]
        assert value["accuracy"] == pytest.approx(1 - known["loss"].mean())
        assert value["auroc"] == pytest.approx(roc_auc_score(known["loss"] > 0, known["score"]))


def test_errors_of_before_the_attack_count_under_attack(found):
    _, frame, _ = found
    under = cells(frame, attack="fgsm", metric="accuracy")["value"].unique()
    robust = frame[(frame["evaluator"] == "attack") & (frame["metric"] == "robust_accuracy")]["value"].unique()
    assert under == pytest.approx(robust)


def test_tables_and_plot_show_them(found):
    folder, frame, _ = found
    titles = [table.title for table in PRESETS["error-detection"](frame)]
    assert [title.partition(" on ")[0] for title in titles] == [
        "Error detection",
        "Selective classification",
        "Errors and OOD images rejected together",
    ]
    with Store.open(folder / "store.sqlite") as store:
        drawn = draw("error-detection", Material(cells(frame), store))
    assert len(drawn.axes[0].get_lines()) == 6


def test_no_pass_is_made_where_accuracy_and_detectors_have_made_one(tmp_path, forwards):
    kept = ("name", "datasets", "models", "detectors", "ood")
    plain = {**{name: SUITE[name] for name in kept}, "evaluators": ["accuracy", "ood"]}
    run_suite(plain, out=tmp_path)
    before = len(forwards)
    run_suite({**plain, "evaluators": ["accuracy", "ood", "misclassification"]}, out=tmp_path)
    again = sum(forwards[before:])
    assert again <= 64  # the probe images that say whether stored outputs are still the model's


def test_a_model_without_errors_has_areas_and_a_reason_for_what_is_undefined():
    result = measure(np.arange(10.0), np.ones(10, bool), "CNN")
    names = {item.metric: item.value for item in result.measurements}
    assert result.reason == "AUROC, AUPR and FPR95 are undefined: CNN gets all 10 images right."
    assert (names["aurc"], names["e_aurc"], names["coverage_at_risk_1"]) == (0, 0, 1)
    assert "auroc" not in names
    assert "all 10 images wrong" in measure(np.arange(10.0), np.zeros(10, bool), "CNN").reason


def test_a_single_error_is_said_to_be_single():
    right = np.ones(50, bool)
    right[7] = False
    result = measure(np.arange(50.0), right, "CNN")
    assert result.reason == "AUROC, AUPR and FPR95 rest on the only error that CNN makes on 50 images."
    auroc = next(item for item in result.measurements if item.metric == "auroc")
    assert auroc.ci_low <= auroc.value <= auroc.ci_high
    assert auroc.ci_high - auroc.ci_low > 0.2


def test_costs_weigh_errors_and_ood_images():
    scores, right, outside = np.arange(4.0), np.array([True, True, False, True]), np.array([2.5, 9.0])

    def area(**costs):
        result = measure_with_ood(scores, right, outside, **costs)
        return next(item.value for item in result.measurements if item.metric == "scod_aurc")

    # In the order of certainty: right, right, error, OOD, right, OOD.
    assert area(error=1, ood=1) == pytest.approx(np.mean([0, 0, 1 / 3, 2 / 4, 2 / 5, 3 / 6]))
    assert area(error=1, ood=0.5) == pytest.approx(np.mean([0, 0, 1 / 3, 1.5 / 4, 1.5 / 5, 2 / 6]))
    assert area(error=0, ood=1) == pytest.approx(np.mean([0, 0, 0, 1 / 4, 1 / 5, 2 / 6]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cross": [["attacks", "models"]]}, r"suite:\d+:\d+: nothing crosses \[attacks, models\]; known: "),
        ({"cross": [["misclassification"]]}, r"cross"),
        ({"corruptions": None}, r"\[misclassification, corruptions\] needs the key 'corruptions'"),
        ({"costs": {"error": -1}}, r"costs"),
    ],
)  # fmt: skip
def test_a_wrong_cross_is_one_sentence(change, message):
    with pytest.raises(GauntletError, match=message) as caught:
        load_suite({name: value for name, value in {**SUITE, **change}.items() if value is not None})
    assert "\n" not in str(caught.value)


def test_a_cross_adds_its_evaluator():
    suite = load_suite({**SUITE, "evaluators": ["accuracy"], "cross": [["corruptions", "misclassification"]]})
    assert suite.evaluators == ("accuracy", "misclassification")


def test_the_safety_table_shows_calibration_of_clean_images_whatever_is_crossed(found):
    _, frame, _ = found
    clean = frame[frame["evaluator"] == "accuracy"].head(1)
    rows = [clean.assign(evaluator="calibration", metric="ece", value=value, attack=attack, key=f"{attack}-")
            for value, attack in ((0.1, ""), (0.9, "fgsm"))]  # fmt: skip
    (table,) = PRESETS["safety"](pd.concat([clean, *rows], ignore_index=True))
    assert "10.0" in render(table, "github")
