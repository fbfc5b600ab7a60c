"""Transfer in suites: which model is the surrogate, what its key covers, and what cannot be one."""

from __future__ import annotations

from typing import Any

import pytest

from gauntlet.bench.plan import make_plan
from gauntlet.bench.runner import run_suite
from gauntlet.bench.suite import load_suite
from gauntlet.datasets import DataSource
from gauntlet.registry import GauntletError
from gauntlet.results import load_results

from .conftest import small_suite

QUICK = {"recipe": {"standard": {"epochs": 1}}}
TWO = [{"name": "cnn-small", "label": "A", **QUICK}, {"name": "cnn-small", "label": "B", "activation": "gelu", **QUICK}]
ONLY = {"detectors": None, "ood": None, "evaluators": ["attack"], "epsilons": [0.2]}


def suite(*attacks: Any, models: list[Any] = TWO, **changes: Any) -> dict[str, Any]:
    return small_suite(**{**ONLY, "models": models, "attacks": list(attacks), **changes})


def jobs(tmp_path, *attacks: Any, **changes: Any) -> dict[str, Any]:
    source = DataSource(root=tmp_path, cache=tmp_path / "cache")
    plan = make_plan(load_suite(suite(*attacks, **changes)), source)
    return {job.row.model.label: job for job in plan.jobs if job.label.startswith("transfer")}


def test_the_first_other_model_of_the_suite_is_the_surrogate(tmp_path) -> None:
    found = jobs(tmp_path, "transfer")
    assert {label: job.others[0].model.label for label, job in found.items()} == {"A": "B", "B": "A"}
    assert found["A"].others[0].key == found["B"].row.key  # the same training, done once


def test_a_run_measures_it_and_says_what_the_surrogate_was(tmp_path) -> None:
    outcome = run_suite(suite({"name": "transfer", "attack": {"pgd": {"steps": 5}}}), out=tmp_path)
    assert outcome.counts == {"ok": 2}
    frame = load_results(tmp_path)
    rows = frame[frame["metric"] == "robust_accuracy"].set_index("model")
    assert set(rows["norm"]) == {"linf"}
    assert '"label": "B"' in rows.loc["A", "params"]
    assert '"steps": 5' in rows.loc["A", "params"]
    asked = frame[frame["metric"].isin(["forwards", "backwards"])].groupby("metric")["value"].unique()
    assert (list(asked["forwards"]), list(asked["backwards"])) == ([1.0], [0.0])


def test_a_spec_is_a_surrogate_too_and_is_trained_with_the_suite(tmp_path) -> None:
    attack = {"name": "transfer", "surrogate": {"cnn-small": {"activation": "quick-gelu", **QUICK}}}
    outcome = run_suite(suite(attack, models=TWO[:1]), out=tmp_path, evaluate=False)
    assert outcome.counts == {"ok": 2}
    assert run_suite(suite(attack, models=TWO[:1]), out=tmp_path).counts == {"ok": 1}


def test_the_key_is_that_of_the_surrogate_and_not_of_its_label(tmp_path) -> None:
    def key(*attacks: Any, models: list[Any] = TWO) -> str:
        return jobs(tmp_path, *attacks, models=models)["A"].cells[0].key

    named = key({"name": "transfer", "surrogate": "B"})
    assert named == key("transfer") == key({"name": "transfer", "surrogate": TWO[1]})
    renamed = [TWO[0], {**TWO[1], "label": "C"}]
    assert named == key({"name": "transfer", "surrogate": "C"}, models=renamed)
    longer = [TWO[0], {**TWO[1], "recipe": {"standard": {"epochs": 2}}}]
    assert named != key("transfer", models=longer)
    assert named != key({"name": "transfer", "attack": "mi-fgsm"})
    assert named != key({"name": "transfer", "attack": {"pgd": {"steps": 7}}})


def test_without_another_model_its_cells_are_skipped_with_the_reason(tmp_path) -> None:
    assert run_suite(suite("transfer", "fgsm", models=TWO[:1]), out=tmp_path).counts == {"ok": 1, "skipped": 1}
    (reason,) = load_results(tmp_path).query("status == 'skipped'")["reason"]
    assert "'transfer' needs a surrogate, and the suite has no other model on digits" in reason


def test_a_model_is_no_surrogate_for_itself(tmp_path) -> None:
    found = jobs(tmp_path, {"name": "transfer", "surrogate": "A"})
    assert not found["B"].obstacles
    (reason,) = found["A"].obstacles.values()
    assert reason.endswith("'A' is the attacked model itself, and no surrogate for it.")


def test_an_unknown_surrogate_is_one_sentence_with_the_nearest(tmp_path) -> None:
    with pytest.raises(GauntletError, match=r"there is no model 'cnn-smal' to be its surrogate; did you mean 'cnn-sm"):
        jobs(tmp_path, {"name": "transfer", "surrogate": "cnn-smal"})


def test_a_surrogate_with_other_classes_fails_its_own_cells_with_one_sentence(tmp_path) -> None:
    attack = {"name": "transfer", "surrogate": {"name": "cnn-small", "classes": 5, "recipe": "none"}}
    outcome = run_suite(suite("fgsm", attack, models=TWO[:1]), out=tmp_path)
    assert outcome.counts == {"ok": 1, "failed": 1}
    (reason,) = load_results(tmp_path).query("status == 'failed'")["reason"]
    assert "gives 5 logits but dataset 'digits' has 10 classes" in reason


def test_a_surrogate_for_other_images_is_told_in_the_plan(tmp_path) -> None:
    found = jobs(tmp_path, {"name": "transfer", "surrogate": "svhn-cnn"})
    (reason,) = found["A"].obstacles.values()
    assert "as a surrogate, svhn-cnn takes" in reason


def test_detectors_see_its_images_as_those_of_any_attack(tmp_path) -> None:
    evaluators = ["adversarial-detection"]
    outcome = run_suite(suite("transfer", evaluators=evaluators, detectors=["msp"]), out=tmp_path)
    assert set(outcome.counts) <= {"ok", "skipped"}
    assert outcome.counts["ok"] >= 1
