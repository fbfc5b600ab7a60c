"""Open-set recognition: decisions by threshold and by a detector itself, their metrics, and what cannot work."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix

from gauntlet.bench.evaluators.open_set import threshold
from gauntlet.bench.runner import prepare, run_suite
from gauntlet.bench.suite import load_suite
from gauntlet.registry import GauntletError
from gauntlet.results.examples import read_examples
from gauntlet.results.frame import load_results
from gauntlet.results.intervals import proportion_interval
from gauntlet.results.presets import PRESETS
from gauntlet.results.store import Store

DIGITS = {"name": "digits", "hold_out": [0], "label": "digits 1-9", "limit": 400}
ZEROS = {"name": "digits", "only": [0], "label": "zeros"}
EUINET = {"name": "euinet", "label": "EuiNet", "width": 0.05, "latent": 8, "recipe": {"euinet": {"epochs": 1}}}
PLAIN = {"name": "residual-small", "label": "CNN", "width": 0.1, "recipe": {"standard": {"epochs": 1}}}
SUITE = {
    "name": "open",
    "datasets": [DIGITS],
    "models": [EUINET, PLAIN],
    "evaluators": ["accuracy", "open-set"],
    "detectors": ["euinet", "msp"],
    "ood": [ZEROS],
    "false_alarm_rates": [0.05, 0.2],
    "examples": 2,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The suite above, run once: its frame, and the arrays of each (model, detector)."""
    folder = tmp_path_factory.mktemp("open-set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUNTLET_CACHE", str(folder / "cache"))
        patch.delenv("GAUNTLET_DATA", raising=False)
        outcome = run_suite(SUITE, out=folder)
    frame = load_results(folder)
    assert outcome.complete, frame[["detector", "status", "reason"]]
    cells = frame[frame["evaluator"] == "open-set"].drop_duplicates("key")
    with Store.open(folder / "store.sqlite") as store:
        arrays = {(cell["model"], cell["detector"]): store.arrays(cell["key"]) for _, cell in cells.iterrows()}
    return folder, frame, arrays


def value(frame, metric, detector, model="EuiNet", name=""):
    rows = frame[
        (frame["metric"] == metric)
        & (frame["detector"] == detector)
        & (frame["model"] == model)
        & (frame["class"] == name)
        & (frame["evaluator"] == "open-set")
    ]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_every_detector_has_a_threshold_for_each_rate_and_one_that_decides_has_its_own_cell_too(found):
    _, _, arrays = found
    assert list(arrays) == [
        *(("EuiNet", name) for name in ("euinet", "euinet at 5 %", "euinet at 20 %", "msp at 5 %", "msp at 20 %")),
        *(("CNN", name) for name in ("msp at 5 %", "msp at 20 %")),
    ]


def test_metrics_are_those_of_the_arrays_and_of_scikit_learn(found):
    _, frame, arrays = found
    for (model, detector), known in arrays.items():
        label, prediction, last = known["label"], known["prediction"], len(known["classes"]) - 1
        assert last == 9
        assert str(known["classes"][-1]) == "zeros (OOD)"
        outside = label < 0
        shown = [np.where(part < 0, last, part) for part in (label, prediction)]
        np.testing.assert_array_equal(known["confusion"], confusion_matrix(*shown, labels=range(last + 1)))
        overall = value(frame, "open_accuracy", detector, model)
        assert overall["value"] == pytest.approx(accuracy_score(*shown))
        assert overall["n"] == len(label)
        expected = {
            "open_accuracy_id": (prediction == label)[~outside],
            "ood_rejected": (prediction < 0)[outside],
            "false_alarm_rate": (prediction < 0)[~outside],
        }
        for metric, hits in expected.items():
            row = value(frame, metric, detector, model)
            assert (row["value"], row["n"]) == (pytest.approx(hits.mean()), len(hits))
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(proportion_interval(hits.sum(), len(hits)))
        per_label = known["confusion"].diagonal() / known["confusion"].sum(1)
        for name, share in zip(known["classes"], per_label, strict=True):
            assert value(frame, "open_accuracy", detector, model, str(name))["value"] == pytest.approx(share)


def test_a_threshold_flags_at_most_its_share_of_validation_scores():
    scores = np.r_[np.arange(100.0), np.full(100, 50.0)]
    for rate in (0.0, 0.004, 0.05, 0.3, 0.9):
        bar = threshold(scores, rate)
        assert (scores > bar).mean() <= rate
        assert bar in scores
        below = scores[scores < bar]
        assert not len(below) or (scores > below.max()).mean() > rate - 1e-9  # the next lower one flags too many
    assert threshold(scores, 0.0) == 99


@pytest.mark.parametrize(("rate", "flagged"), [(0.0, 0), (0.05, 5), (0.29, 29), (0.999, 99)])
def test_a_threshold_flags_all_that_the_rate_allows(rate, flagged):
    scores = np.random.default_rng(0).permutation(100).astype(float)
    assert (scores > threshold(scores, rate)).sum() == flagged


def test_what_is_not_flagged_has_the_class_of_the_largest_logit_and_more_alarms_catch_more(found):
    _, frame, arrays = found
    few, many = arrays["CNN", "msp at 5 %"], arrays["CNN", "msp at 20 %"]
    kept = many["prediction"] >= 0
    np.testing.assert_array_equal(few["prediction"][kept], many["prediction"][kept])
    np.testing.assert_array_equal(few["score"], many["score"])
    rates = [value(frame, "ood_rejected", f"msp at {rate} %", "CNN")["value"] for rate in (5, 20)]
    assert rates[0] <= rates[1]
    accuracy = frame[(frame["evaluator"] == "accuracy") & (frame["model"] == "CNN") & (frame["class"] == "")]
    closed = accuracy["value"].iloc[0]
    assert value(frame, "open_accuracy_id", "msp at 20 %", "CNN")["value"] <= closed


def test_a_detector_that_decides_is_taken_at_its_word(found):
    _, _, arrays = found
    own = arrays["EuiNet", "euinet"]
    np.testing.assert_array_equal(own["prediction"] < 0, own["score"] > 0)
    assert own["probabilities"].shape == (len(own["label"]), 10)
    flagged = own["prediction"] < 0
    np.testing.assert_array_equal(own["probabilities"].argmax(1)[~flagged], own["prediction"][~flagged])
    top = np.sort(own["probabilities"], axis=1)
    np.testing.assert_allclose(own["max_2_max"], top[:, -1] - top[:, -2])


def test_medians_by_label_are_those_of_the_arrays(found):
    _, frame, arrays = found
    own = arrays["EuiNet", "euinet"]
    for metric, column in (("median_h", "h"), ("median_max_2_max", "max_2_max"), ("median_score", "score")):
        for number, name in enumerate(own["classes"]):
            values = own[column][own["label"] == (number if number < 9 else -1)]
            row = value(frame, metric, "euinet", name=str(name))
            assert row["value"] == pytest.approx(np.median(values))
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert "h" not in arrays["CNN", "msp at 5 %"]


def test_the_generators_images_are_kept_where_the_suite_asks_for_examples(found):
    folder, frame, _ = found
    key = value(frame, "open_accuracy", "euinet")["key"]
    made = read_examples(folder, ("EuiNet", "digits 1-9"), key)
    assert made["generated"].shape == (64, 1, 28, 28)
    assert made["generated"].min() >= 0
    assert made["generated"].max() <= 1


def test_its_tables_show_decisions_labels_and_medians(found):
    _, frame, _ = found
    (decisions,) = PRESETS["open-set"](frame)
    assert decisions.title == "Open-set recognition on digits 1-9 against zeros"
    assert [name for (name,) in decisions.columns] == [
        "Open-set accuracy (%)", "Accuracy, ID (%)", "OOD rejected (%)", "False alarms (%)",
    ]  # fmt: skip
    assert ("EuiNet", "euinet") in decisions.rows
    (labels,) = PRESETS["open-set-labels"](frame)
    assert [name for (name,) in labels.columns] == ["all", *"123456789", "zeros (OOD)"]
    assert labels.rows == (
        ("EuiNet", "euinet"),
        ("EuiNet", "euinet at 5 %"),
        ("EuiNet", "msp at 5 %"),
        ("CNN", "msp at 5 %"),
    )
    (twenty,) = PRESETS["open-set-labels"](frame[frame["detector"].str.endswith("at 20 %")])
    assert twenty.rows == (("EuiNet", "euinet at 20 %"), ("EuiNet", "msp at 20 %"), ("CNN", "msp at 20 %"))
    caught = value(frame, "ood_rejected", "msp at 5 %", "CNN")["value"]
    assert labels.cells[-1][-1] == f"{100 * caught:.1f}"


def test_medians_are_a_table_for_each_model_with_h_once(found):
    _, frame, arrays = found
    own, plain = PRESETS["open-set-medians"](frame)
    assert own.title == "Medians by label: EuiNet on digits 1-9 against zeros"
    assert own.columns == (("h",), ("Max-2-Max of euinet",))
    assert own.rows == (*((name,) for name in "123456789"), ("zeros (OOD)",))
    known = arrays["EuiNet", "euinet"]
    zeros = known["label"] < 0
    assert own.cells[-1] == tuple(f"{np.median(known[name][zeros]):.3g}" for name in ("h", "max_2_max"))
    assert plain.columns == (("score of msp",),)
    more = frame[(frame["model"] == "EuiNet") & (frame["detector"] == "euinet")].assign(detector="other")
    (both, _) = PRESETS["open-set-medians"](pd.concat([frame, more], ignore_index=True))
    assert both.columns == (("h",), ("Max-2-Max of euinet",), ("Max-2-Max of other",))


def test_classes_left_out_in_turn_share_tables(found):
    _, frame, _ = found
    turned = [
        frame[frame["evaluator"] == "open-set"].assign(
            dataset=f"digits without {digit}",
            ood_dataset=digit,
            ood_group="held-out",
            role="held-out",
            params=json.dumps({"held_out": {"of": "digits", "class": digit}}),
        )
        for digit in "01"
    ]
    tables = PRESETS["open-set"](pd.concat(turned, ignore_index=True))
    assert [table.title for table in tables][2] == "OOD rejected in % on digits, one class left out"
    assert tables[0].columns == (("0",), ("1",), ("mean",))
    assert PRESETS["open-set-labels"](pd.concat(turned, ignore_index=True)) == []


def test_cells_do_not_depend_on_the_other_rates():
    both, one = ({**SUITE, "models": [EUINET], "false_alarm_rates": rates} for rates in ([0.05, 0.2], [0.2]))
    assert {cell.key for cell in prepare(one)[0].cells} < {cell.key for cell in prepare(both)[0].cells}


def test_it_runs_only_where_a_suite_names_it():
    plain = {key: part for key, part in SUITE.items() if key != "evaluators"}
    assert "open-set" not in load_suite(plain).evaluators
    assert load_suite({**plain, "evaluators": ["open-set"]}).evaluators == ("open-set",)
    assert load_suite({**SUITE, "false_alarm_rates": 0.004}).false_alarm_rates == (0.004,)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"datasets": [ZEROS]}, r"nothing in this suite fits together \(.*has fewer than two classes"),
        ({"datasets": ["digits"], "evaluators": ["open-set"]}, "it is the in-distribution set itself"),
        ({"ood": None}, r"the evaluator 'open-set' needs the key 'ood'|detectors need OOD sets"),
        ({"detectors": None, "ood": None}, "the evaluator 'open-set' needs the key 'detectors'"),
        ({"false_alarm_rates": [1.5]}, "false_alarm_rates"),
        ({"models": [{"name": "euinet", "recipe": {"euinet": {"temperature": 0}}}]}, "needs a temperature above 0"),
        ({"models": [{"name": "cnn-small", "recipe": "euinet"}]}, "'euinet' trains models that yield h, but"),
    ],
)
def test_what_cannot_work_is_one_sentence(changes, problem):
    with pytest.raises(GauntletError, match=problem):
        prepare({**SUITE, "evaluators": ["open-set"], **changes})
