"""A detector is fitted once a row and scores no set of images twice, whichever evaluators ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gauntlet import GauntletError
from gauntlet.bench.fitted_detector import checked_scores
from gauntlet.bench.runner import run_suite
from gauntlet.detectors import Head, Outputs, build_detector
from gauntlet.detectors.knn import KNN
from gauntlet.registry import DETECTORS
from gauntlet.results.frame import load_results

from .conftest import small_suite


def test_three_evaluators_share_one_fit_and_one_score_of_each_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fits, scored = [], []
    fit, score = KNN.fit, KNN.score

    def counted_fit(self: KNN, *arguments: Any) -> None:
        fits.append(self)
        fit(self, *arguments)

    def counted_score(self: KNN, outputs: Any) -> Any:
        scored.append(outputs)
        return score(self, outputs)

    monkeypatch.setattr(KNN, "fit", counted_fit)
    monkeypatch.setattr(KNN, "score", counted_score)
    suite = small_suite(
        detectors=[{"knn": {"k": 5}}],
        attacks=["fgsm", {"name": "pgd", "steps": 3}],
        epsilons=[0.2],
        evaluators=["ood", "open-set", "adversarial-detection"],
    )
    outcome = run_suite(suite, out=tmp_path / "out")
    assert set(outcome.counts) == {"ok"}
    assert len(fits) == 1
    assert len(scored) == len({id(outputs) for outputs in scored})
    # The test and validation splits, both OOD sets, and what each attack was made of and made.
    assert len(scored) == 4 + 2 * 2


def test_features_of_a_detector_do_not_depend_on_what_others_need(tmp_path: Path, write_plugin: Any):
    """`dice` reads whole features beside the head; detectors without the head see the projected ones all the same."""
    plugin = write_plugin(
        '''
        from gauntlet import detector
        from gauntlet.detectors import Detector

        @detector("largest", needs="features")
        def largest(features):
            """Minus the largest feature."""
            return -features.amax(1)

        @detector("far", needs=("features",))
        class Far(Detector):
            """Distance to the mean."""

            def fit(self, train, val, head):
                self.mean = train.features.mean(0)

            def score(self, outputs):
                return (outputs.features - self.mean).norm(dim=1)
        '''
    )
    found = []
    for detectors in (["largest", "far"], ["dice", "largest", "far"]):
        suite = small_suite(detectors=detectors, attacks=None, epsilons=None, evaluators=["ood"], feature_dim=8)
        run_suite(suite, out=tmp_path / str(len(detectors)), plugins=[plugin])
        frame = load_results(tmp_path / str(len(detectors)))
        assert set(frame["status"]) == {"ok"}
        frame = frame[frame["detector"].isin(["largest", "far"]) & (frame["metric"] == "auroc")]
        found.append(frame.set_index(["detector", "ood_dataset"])["value"])
    assert found[0].to_dict() == found[1].to_dict()


def test_representations_do_not_depend_on_detectors(tmp_path: Path):
    found = []
    for detectors in (["msp"], ["msp", "dice"]):
        suite = small_suite(
            detectors=detectors, attacks=None, epsilons=None, evaluators=["ood", "representation"], feature_dim=16
        )
        run_suite(suite, out=tmp_path / str(len(detectors)))
        frame = load_results(tmp_path / str(len(detectors)))
        frame = frame[frame["evaluator"] == "representation"]
        assert set(frame["status"]) == {"ok"}
        found.append(frame.set_index("metric")["value"].to_dict())
    assert found[0] == pytest.approx(found[1], nan_ok=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["fdbd", "nac", "nci", "she", "react", "vra"])
def test_images_with_outputs_that_are_not_finite_are_not_scored(name: str, value: float):
    """Rather than one of these detectors making a number of a NaN, by an argmax, a bin or a bound."""
    torch.manual_seed(0)
    features, head = torch.randn(60, 4), Head(torch.randn(3, 4), torch.zeros(3))

    def outputs(values: torch.Tensor) -> Outputs:
        logits = values @ head.weight.T
        return Outputs(logits.argmax(1), logits, values, head=head, name="digits/test")

    detector = build_detector(DETECTORS.get(name))
    detector.fit(outputs(features), outputs(features), head)
    assert len(checked_scores(detector, outputs(features), name)) == 60
    features[[3, 7]] = value
    with pytest.raises(GauntletError, match=r"cannot score 2 of 60 images of digits/test: their (logits|features) are"):
        checked_scores(detector, outputs(features), name)


ODD_MODELS = '''
    import torch
    from torch import nn
    from gauntlet import model

    def network(*last):
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 10), *last)

    @model("plain", trained=True)
    def plain():
        """Logits."""
        return network()

    @model("log-softmax", trained=True)
    def log_softmax():
        """Log-probabilities."""
        return network(nn.LogSoftmax(1))

    @model("softmax", trained=True)
    def softmax():
        """Probabilities."""
        return network(nn.Softmax(1))

    @model("sigmoid", trained=True)
    def sigmoid():
        """Independent probabilities."""
        return network(nn.Sigmoid())
'''


def test_what_reads_logits_is_left_out_where_a_model_gives_none(tmp_path: Path, write_plugin: Any):
    models = ["plain", "log-softmax", "softmax", "sigmoid"]
    detectors = ["msp", "energy", "max-logit", "entropy", "odin", {"knn": {"k": 5}}]
    suite = small_suite(models=models, detectors=detectors, evaluators=["accuracy", "calibration", "ood"])
    run_suite(suite, out=tmp_path / "out", plugins=[write_plugin(ODD_MODELS)])
    frame = load_results(tmp_path / "out").drop_duplicates(["model", "evaluator", "detector"])
    frame = frame.assign(what=frame["detector"].where(frame["detector"] != "", frame["evaluator"]))
    skipped = {name: set(part.loc[part["status"] == "skipped", "what"]) for name, part in frame.groupby("model")}
    probabilities = {"msp", "energy", "max-logit", "entropy", "odin", "calibration"}
    assert skipped["plain"] == set()
    assert skipped["log-softmax"] == {"energy", "max-logit"}
    assert skipped["softmax"] == skipped["sigmoid"] == probabilities
    assert set(frame["status"]) == {"ok", "skipped"}
    values = load_results(tmp_path / "out").query("metric == 'auroc' and detector == 'msp'")
    mean = values.groupby("model")["value"].mean()
    assert mean["log-softmax"] == pytest.approx(mean["plain"], abs=1e-3)


def test_all_training_images_are_fitted_to_up_to_a_number_of_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    fit = KNN.fit

    def watched(self: KNN, train: Outputs, *others: Any) -> None:
        seen.append(len(train))
        fit(self, train, *others)

    monkeypatch.setattr(KNN, "fit", watched)
    suite = small_suite(detectors=[{"knn": {"k": 5}}], evaluators=["ood"])
    run_suite(suite, out=tmp_path / "all")
    monkeypatch.setattr("gauntlet.bench.context._FIT_NUMBERS", 50 * 120)  # cnn-small has 50 features
    run_suite({**suite, "ood": [{"glyphs": {"limit": 50}}]}, out=tmp_path / "some")
    run_suite({**suite, "fit_limit": 70}, out=tmp_path / "limited")
    assert seen == [1077, 120, 70]


def test_detectors_made_of_detectors_run_from_a_suite_on_layers_by_name_too(tmp_path: Path):
    detectors = [
        "react",
        {"energy": {"modifier": "react"}},
        {"mahalanobis": {"layer": "body.4"}},
        {"combine": {"detectors": [{"mahalanobis": {"layer": "body.4"}}, "energy"], "how": "logistic"}},
        {"knn": {"layer": "nowhere", "k": 5}},
    ]
    suite = small_suite(detectors=detectors, attacks=None, epsilons=None, evaluators=["ood"])
    run_suite(suite, out=tmp_path)
    frame = load_results(tmp_path)
    skipped = frame[frame["status"] != "ok"]
    assert set(skipped["detector"]) == {"knn layer=nowhere k=5"}
    assert all("needs layer:nowhere, which model" in reason for reason in skipped["reason"])
    auroc = frame[frame["metric"] == "auroc"].set_index(["detector", "ood_dataset"])["value"].unstack()
    assert list(auroc.loc["react"]) == list(auroc.loc["energy modifier=react"])
    assert {"mahalanobis layer=body.4", "combine detectors=mahalanobis+energy how=logistic"} < set(auroc.index)
