"""Protocols of OOD detection: groups, classes left out, shifted images, tuning, and adversarial images as OOD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gauntlet.bench.runner import prepare, run_suite
from gauntlet.bench.suite import load_suite
from gauntlet.datasets import DataSource, make_outliers, resolve
from gauntlet.registry import GauntletError
from gauntlet.results.frame import load_results
from gauntlet.results.intervals import mean_auroc_interval
from gauntlet.results.store import Store

from .conftest import small_suite

SOURCE = DataSource(root=Path("absent"), cache=Path("absent"))
SETS = {"near": [{"glyphs": {"limit": 60}}], "far": [{"patches": {"limit": 60}}, {"uniform-noise": {"limit": 60}}]}


def ood_only(**changes):
    return small_suite(attacks=None, epsilons=None, evaluators=["ood"], ood=SETS, **changes)


def run(suite, out):
    outcome = run_suite(suite, out=out)
    assert outcome.complete, outcome.counts
    return load_results(out)


def value(frame, metric="auroc", **where):
    rows = frame[frame["metric"] == metric]
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    assert len(rows) == 1, rows
    return rows.iloc[0]


class TestGroups:
    def test_a_group_of_several_has_a_mean_and_a_group_of_one_has_none(self, tmp_path):
        frame = run(ood_only(detectors=["msp"]), tmp_path)
        assert "near mean" not in set(frame["ood_dataset"])
        mean = value(frame, ood_dataset="far mean")
        parts = [value(frame, ood_dataset=name) for name in ("patches limit=60", "uniform-noise limit=60")]
        assert mean["value"] == pytest.approx(np.mean([part["value"] for part in parts]), abs=1e-12)
        assert mean["ood_group"] == "far"
        with Store.open(tmp_path / "store.sqlite") as store:
            arrays = [store.arrays(part["key"]) for part in parts]
        expected = mean_auroc_interval(arrays[0]["id_score"], [part["ood_score"] for part in arrays])
        assert (mean["ci_low"], mean["ci_high"]) == pytest.approx(expected)

    def test_every_metric_of_the_sets_is_averaged(self, tmp_path):
        frame = run(ood_only(detectors=["msp"]), tmp_path)
        assert set(frame[frame["ood_dataset"] == "far mean"]["metric"]) == {
            *("auroc", "aupr_in", "aupr_out", "fpr95", "fpr95_id", "detection_error"),
            *("aupr_in_trapezoid", "aupr_out_trapezoid", "autc", "oscr"),
        }


class TestLeavingClassesOut:
    def test_one_line_takes_every_class_in_turn(self):
        suite = {"datasets": [{"digits": {"leave_out": "each"}}], "models": ["cnn-small"], "detectors": ["msp"]}
        plan, _ = prepare(suite)
        cells = [cell for cell in plan.cells if cell.identity.evaluator == "ood"]
        assert [cell.identity.dataset for cell in cells] == [f"digits without {digit}" for digit in range(10)]
        assert [cell.identity.ood_dataset for cell in cells] == [str(digit) for digit in range(10)]
        assert {cell.facts.ood_group for cell in cells} == {"held-out"}

    def test_training_and_id_images_lack_the_class_and_ood_images_have_no_other(self, tmp_path):
        suite = small_suite(
            datasets=[{"digits": {"leave_out": [3]}}],
            attacks=None,
            epsilons=None,
            evaluators=["accuracy", "ood"],
            detectors=["msp"],
            ood=None,
        )
        frame = run(suite, tmp_path)
        held_out = value(frame, ood_dataset="3")
        digits = resolve("digits", SOURCE).load("test")
        assert held_out["n"] == len(digits)  # every test image is on one of the two sides
        with Store.open(tmp_path / "store.sqlite") as store:
            arrays = store.arrays(held_out["key"])
        assert len(arrays["ood_score"]) == int((digits.labels == 3).sum())
        classes = frame[(frame["metric"] == "accuracy") & (frame["class"] != "")]["class"]
        assert sorted(classes) == [digit for digit in "0123456789" if digit != "3"]

    def test_detectors_need_no_other_ood_sets(self):
        suite = load_suite({"datasets": [{"digits": {"leave_out": "each"}}], "models": ["m3"], "detectors": ["msp"]})
        assert "ood" in suite.evaluators


class TestFullSpectrum:
    def test_shifted_images_count_as_id_in_rows_of_their_own(self, tmp_path, write_plugin):
        frame = run(ood_only(detectors=["energy"], shifted=[{"digits": {"limit": 50, "label": "again"}}]), tmp_path)
        plain, full = (
            value(frame, ood_dataset="glyphs limit=60"),
            value(frame, ood_dataset="glyphs limit=60 (full-spectrum)"),
        )
        assert full["n"] == plain["n"] + 50
        assert full["ood_group"] == "near full-spectrum"
        assert value(frame, ood_dataset="far mean (full-spectrum)")["ood_group"] == "far full-spectrum"
        assert value(frame, "oscr", ood_dataset="glyphs limit=60 (full-spectrum)")["value"] > 0


class TestTuning:
    def test_the_choice_is_that_of_the_validation_outliers_and_is_recorded(self, tmp_path):
        frame = run(ood_only(detectors=["ash", "msp"], tune=True), tmp_path)
        assert set(frame["detector"]) == {"ash (tuned)", "msp"}
        chosen = value(frame, "tuned_q", detector="ash (tuned)", ood_dataset="glyphs limit=60")["value"]
        grid = [0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
        assert chosen in grid
        labels = [{"name": "ash", "q": q, "label": f"q={q}"} for q in grid]
        outliers = ood_only(detectors=labels)
        # The ID side is another split here, so that only the tuned detector's own row must be among the grid's.
        single = run(outliers, tmp_path / "grid")
        same = value(single, detector=f"q={chosen}", ood_dataset="glyphs limit=60")
        assert value(frame, detector="ash (tuned)", ood_dataset="glyphs limit=60")["value"] == same["value"]

    def test_it_costs_no_forward_pass_beyond_the_outliers(self, tmp_path, forwards):
        run(ood_only(detectors=["ash", "dice"], tune=True), tmp_path)
        forwards.clear()
        run(ood_only(detectors=["ash", "dice", "gen", "react"], tune=True), tmp_path / "more")
        assert forwards == [16]  # the probe that tells whether it is the same model

    def test_what_the_suite_sets_is_not_tuned(self):
        suite = load_suite(ood_only(detectors=[{"ash": {"q": 0.8}}, "gen"], tune=True))
        assert [chosen.label for chosen in suite.detectors] == ["ash q=0.8", "gen (tuned)"]

    def test_a_test_ood_set_is_refused(self):
        with pytest.raises(GauntletError, match="would be tuned on 'glyphs limit=60', which is also a test OOD set"):
            prepare(ood_only(detectors=["ash"], tune={"outliers": "glyphs"}))
        with pytest.raises(GauntletError, match="also a test OOD set"):
            prepare(small_suite(detectors=["ash"], tune=True, ood=["validation-outliers"]))

    def test_unless_the_suite_calls_it_an_oracle_and_then_the_label_does_too(self, tmp_path):
        suite = ood_only(detectors=["ash"], tune={"outliers": {"glyphs": {"limit": 60}}, "oracle": True})
        frame = run(suite, tmp_path)
        assert set(frame["detector"]) == {"ash (tuned, oracle)"}

    def test_another_named_set_is_used_and_enters_the_key(self):
        keys = []
        for outliers in ("gaussian-noise", "fake"):
            plan, _ = prepare(ood_only(detectors=["ash"], tune={"outliers": outliers}))
            keys.append({cell.key for cell in plan.cells})
        assert not keys[0] & keys[1]

    def test_synthetic_outliers_are_a_dataset_of_seven_kinds(self):
        digits = resolve("digits", SOURCE).load("val")
        made = resolve("validation-outliers", SOURCE).load("test")
        assert len(made) == len(digits)
        assert (made.labels == -1).all()
        assert np.array_equal(made.pixels, make_outliers(digits).pixels)
        last = len(digits) // 7
        assert np.array_equal(made.images[-last:], digits.images[-last:].flip(3))


class TestAdversarialDetection:
    def test_any_attack_meets_any_detector(self, tmp_path):
        suite = small_suite(
            evaluators=["adversarial-detection", "attack"],
            attacks=["fgsm", {"name": "pgd", "steps": 3}],
            epsilons=[0.0, 0.3],
            detectors=["msp", "mahalanobis"],
            ood=None,
        )
        frame = run(suite, tmp_path)
        rows = frame[frame["evaluator"] == "adversarial-detection"]
        assert set(rows[rows["epsilon"] == 0]["status"]) == {"skipped"}  # nothing is fooled
        found = rows[(rows["metric"] == "auroc") & (rows["epsilon"] == 0.3)]
        assert set(zip(found["attack"], found["detector"], strict=True)) == {
            (attack, detector) for attack in ("fgsm", "pgd steps=3") for detector in ("msp", "mahalanobis")
        }
        attacked = frame[(frame["metric"] == "attack_success_rate") & (frame["epsilon"] == 0.3)].set_index("attack")
        for _, row in found.iterrows():
            n = attacked.loc[row["attack"], "n"]
            assert row["n"] == n + round(attacked.loc[row["attack"], "value"] * n)

        assert (tmp_path / "adversarial-detection.md").read_text(encoding="utf-8").count("| fgsm") == 2

    def test_it_needs_attacks_and_detectors(self):
        base = {"datasets": ["digits"], "models": ["m3"], "evaluators": ["adversarial-detection"]}
        with pytest.raises(GauntletError, match="'adversarial-detection' needs the key 'attacks'"):
            load_suite({**base, "detectors": ["msp"]})
        with pytest.raises(GauntletError, match="'adversarial-detection' needs the key 'detectors'"):
            load_suite({**base, "attacks": ["fgsm"], "epsilons": [0.1]})
