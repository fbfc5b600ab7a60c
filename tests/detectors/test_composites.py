"""Detectors made of detectors: modifiers before them, layers by name, ensembles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pytorch_ood import detector as peer
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from gauntlet import GauntletError
from gauntlet.detectors import Outputs, build_detector
from gauntlet.registry import DETECTORS, select_one

MODIFIERS = {
    "react": {"q": 0.8},
    "vra": {"low": 0.3, "high": 0.8},
    "dice": {"dropped": 0.5},
    "ash": {"variant": "s", "q": 0.6},
    "scale": {"q": 0.6},
}


def score(spec, train: Outputs, test: Outputs, outliers: Outputs | None = None) -> Tensor:
    built = build_detector(select_one(DETECTORS, spec))
    if built.needs_fit:
        built.fit(train, train, train.head)
    if built.needs_outliers:
        assert outliers is not None
        built.fit_outliers(train, outliers)
    return built.score(test)


class TestModified:
    @pytest.mark.parametrize("name", MODIFIERS)
    def test_a_modifier_before_energy_is_the_detector_of_its_name(self, name, train, test):
        expected = score({name: MODIFIERS[name]}, train, test)
        found = score({"name": "modified", "modifier": {name: MODIFIERS[name]}}, train, test)
        assert_allclose(found, expected, rtol=1e-12)

    @pytest.mark.parametrize("variant", ["b", "p", "s"])
    def test_every_variant_of_ash(self, variant, train, test):
        ash = {"ash": {"variant": variant, "q": 0.6}}
        assert_allclose(score({"energy": {"modifier": ash}}, train, test), score(ash, train, test), rtol=1e-12)

    def test_gen_after_react_is_pytorch_oods_gen_of_pytorch_oods_react(self, net, train, test):
        """The peer's ReAct, asked for what its head sees."""
        threshold = float(torch.quantile(train.features.flatten(), 0.8))
        logits = net.fc(test.features.clamp(max=threshold))
        expected = 2 * peer.GEN(None, M=2).predict_logits(logits.detach())
        found = score({"name": "gen", "top": 2, "modifier": {"react": {"q": 0.8}}}, train, test)
        assert_allclose(found, expected, rtol=1e-6)

    def test_a_feature_detector_is_fitted_to_modified_training_features(self, train, test):
        threshold = float(torch.quantile(train.features.flatten(), 0.8))
        cut = [Outputs(side.labels, features=side.features.clamp(max=threshold)) for side in (train, test)]
        found = score({"mahalanobis": {"modifier": {"react": {"q": 0.8}}}}, train, test)
        assert_allclose(found, score("mahalanobis", *cut), rtol=1e-6)

    def test_its_label_is_the_detectors_and_says_what_comes_before(self):
        assert select_one(DETECTORS, {"gen": {"modifier": {"react": {"q": 0.9}}}}).label == "gen modifier=react"
        assert select_one(DETECTORS, {"name": "gen", "modifier": "ash", "label": "mine"}).label == "mine"

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ({"gen": {"modifier": "knn"}}, "'knn' modifies nothing; modifiers: ash, dice, react, scale, vra"),
            ({"odin": {"modifier": "react"}}, "'odin' reads images, model, which a modifier does not change"),
            ({"gen": {"modifier": "reakt"}}, "Unknown detector 'reakt'"),
        ],
    )
    def test_what_cannot_be_is_one_sentence(self, spec, message):
        with pytest.raises(GauntletError, match=message):
            build_detector(select_one(DETECTORS, spec))


class TestAtLayer:
    def layered(self, side: Outputs, **named: Tensor) -> Outputs:
        return Outputs(
            side.labels, side.logits, side.features, named={f"layer:{name}": value for name, value in named.items()}
        )

    def test_is_the_detector_of_the_layers_side_by_side(self, train, test):
        sides = [self.layered(side, a=side.features[:, :3], b=side.features[:, 3:]) for side in (train, test)]
        found = score({"mahalanobis": {"layer": ["a", "b"]}}, *sides)
        assert_allclose(found, score("mahalanobis", train, test), rtol=1e-9)

    def test_other_features_do_not_matter(self, train, test):
        sides = [self.layered(side, a=side.features[:, :3]) for side in (train, test)]
        part = [Outputs(side.labels, features=side.features[:, :3]) for side in (train, test)]
        assert_allclose(score({"knn": {"layer": "a", "k": 5}}, *sides), score({"knn": {"k": 5}}, *part), rtol=1e-9)

    def test_needs_the_layers_in_place_of_features(self):
        chosen = select_one(DETECTORS, {"mahalanobis": {"layer": ["body.3", "body.7"]}})
        assert chosen.needs == ("labels", "layer:body.3", "layer:body.7")
        assert build_detector(chosen).needs == chosen.needs
        assert chosen.label == "mahalanobis layer=body.3+body.7"

    def test_detectors_that_read_more_are_one_sentence(self):
        with pytest.raises(GauntletError, match="'vim' reads features, head, logits: on a layer by name stand"):
            build_detector(select_one(DETECTORS, {"vim": {"layer": "body.3"}}))


class TestCombine:
    MEMBERS = ("msp", {"knn": {"k": 5}})

    def members(self, train: Outputs, test: Outputs) -> list[tuple[Tensor, Tensor]]:
        return [(score(one, train, train), score(one, train, test)) for one in self.MEMBERS]

    def test_standardised_scores_are_averaged(self, train, test):
        z = [stats.zmap(own, known) for known, own in self.members(train, test)]
        found = score({"combine": {"detectors": list(self.MEMBERS)}}, train, test)
        assert_allclose(found, sum(z) / 2, rtol=1e-9)

    def test_ranks_are_shares_of_validation_images_that_score_less(self, train, test):
        ranks = [
            [stats.percentileofscore(known, one, "mean") / 100 for one in own]
            for known, own in self.members(train, test)
        ]
        found = score({"combine": {"detectors": list(self.MEMBERS), "how": "ranks"}}, train, test)
        assert_allclose(found, torch.tensor(ranks).double().mean(0), rtol=1e-6)

    def test_logistic_weights_are_scikit_learns(self, train, test):
        outliers = Outputs(test.labels, test.logits * 0.1, test.features + 1, head=test.head)
        sides = [self.members(train, side) for side in (train, outliers, test)]
        inside, outside, own = ([stats.zmap(got, known) for known, got in side] for side in sides)
        rows = torch.tensor([*zip(*inside, strict=True), *zip(*outside, strict=True)])
        truth = [0] * len(train) + [1] * len(outliers)
        weights = LogisticRegression(class_weight="balanced").fit(rows, truth).coef_[0]
        found = score({"combine": {"detectors": list(self.MEMBERS), "how": "logistic"}}, train, test, outliers)
        assert_allclose(found, weights @ np.stack(own), rtol=1e-6)

    def test_needs_what_its_members_need(self):
        chosen = select_one(DETECTORS, {"combine": {"detectors": ["odin", {"knn": {"layer": "body.3"}}]}})
        assert chosen.needs == ("images", "model", "layer:body.3")
        assert [part.entry.name for part in chosen.parts] == ["odin", "at-layer"]

    def test_one_detector_keeps_its_order(self, train, test):
        alone = score({"combine": {"detectors": ["energy"]}}, train, test)
        assert torch.equal(alone.argsort(), score("energy", train, test).argsort())

    def test_none_is_one_sentence(self):
        with pytest.raises(GauntletError, match="'combine' needs at least one of detectors"):
            build_detector(DETECTORS.get("combine"), {"detectors": []})
