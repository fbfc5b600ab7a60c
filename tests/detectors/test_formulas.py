"""Detectors that pytorch-ood lacks, or has in another form, against a slow recomputation in numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from gauntlet import GauntletError
from gauntlet.detectors import Head, Outputs, build_detector
from gauntlet.registry import DETECTORS

RNG = np.random.default_rng(0)


def score(name: str, test: Outputs, train: Outputs | None = None, val: Outputs | None = None, **parameters):
    built = build_detector(DETECTORS.get(name), parameters)
    if built.needs_fit:
        built.fit(train, val, test.head)
    return built.score(test).numpy()


def from_logits(logits: np.ndarray, labels: np.ndarray | None = None) -> Outputs:
    labels = np.zeros(len(logits), dtype=int) if labels is None else labels
    return Outputs(torch.as_tensor(labels), torch.as_tensor(logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


LOGITS = 3 * RNG.normal(size=(50, 5))


def test_doctor_is_the_odds_of_a_wrong_guess():
    agreement = (softmax(LOGITS) ** 2).sum(1)
    assert_allclose(score("doctor", from_logits(LOGITS)), (1 - agreement) / agreement, rtol=1e-12)


def test_max_2_max_is_one_minus_the_gap():
    ordered = np.sort(softmax(LOGITS), axis=1)
    assert_allclose(score("max-2-max", from_logits(LOGITS)), 1 - (ordered[:, -1] - ordered[:, -2]), rtol=1e-12)


@pytest.mark.parametrize("name", ["disagreement", "mc-disagreement"])
def test_disagreement_is_the_mutual_information(name):
    members = 3 * RNG.normal(size=(40, 4, 6))
    p = softmax(members)
    expected = stats.entropy(p.mean(1), axis=1) - stats.entropy(p, axis=2).mean(1)
    need = "members" if name == "disagreement" else "passes"
    found = score(name, Outputs(torch.zeros(40), named={need: torch.as_tensor(members)}))
    assert_allclose(found, expected, rtol=1e-10)


def test_mc_dropout_averages_probabilities_over_its_passes():
    passes = RNG.normal(size=(40, 12, 6))
    outputs = Outputs(torch.zeros(40), named={"passes": torch.as_tensor(passes)})
    assert_allclose(score("mc-dropout", outputs, n=7), 1 - softmax(passes[:, :7]).mean(1).max(1), rtol=1e-12)


def test_mc_dropout_says_how_many_passes_there_are():
    outputs = Outputs(torch.zeros(1), named={"passes": torch.zeros(1, 5, 2)})
    with pytest.raises(GauntletError, match="needs n from 1 to the 5 passes made, got 30"):
        score("mc-dropout", outputs)


def test_reconstruction_is_the_models_own_error():
    outputs = Outputs(torch.zeros(3), named={"reconstruction_error": torch.tensor([1.0, 3.0, 2.0])})
    assert score("reconstruction", outputs).tolist() == [1.0, 3.0, 2.0]


def test_constant_is_zero():
    assert score("constant", Outputs(torch.zeros(3))).tolist() == [0.0] * 3


def test_random_repeats_for_a_set_and_differs_between_sets_and_seeds():
    first = score("random", Outputs(torch.zeros(50), name="digits/test"))
    assert (first == score("random", Outputs(torch.zeros(50), name="digits/test"))).all()
    assert (first != score("random", Outputs(torch.zeros(50), name="glyphs/test"))).all()
    assert (first != score("random", Outputs(torch.zeros(50), name="digits/test"), seed=1)).all()
    assert stats.kstest(score("random", Outputs(torch.zeros(5000), name="x")), "uniform").pvalue > 0.01


class TestResidual:
    HEAD = Head(torch.as_tensor(RNG.normal(size=(4, 9))), torch.as_tensor(RNG.normal(size=4)))
    TRAIN = RNG.normal(size=(200, 9)) * np.arange(1, 10)
    TEST = RNG.normal(size=(30, 9)) * 3

    def outputs(self, features: np.ndarray) -> Outputs:
        return Outputs(torch.zeros(len(features)), features=torch.as_tensor(features), head=self.HEAD)

    def test_is_the_length_outside_the_leading_right_singular_vectors(self):
        origin = -np.linalg.pinv(self.HEAD.weight.numpy()) @ self.HEAD.bias.numpy()
        _, _, rows = np.linalg.svd(self.TRAIN - origin)
        inside = (self.TEST - origin) @ rows[:3].T
        expected = np.sqrt(((self.TEST - origin) ** 2).sum(1) - (inside**2).sum(1))
        found = score("residual", self.outputs(self.TEST), self.outputs(self.TRAIN), dim=3)
        assert_allclose(found, expected, rtol=1e-9)

    def test_takes_half_the_features_unless_told_otherwise(self):
        default, half = (
            score("residual", self.outputs(self.TEST), self.outputs(self.TRAIN), dim=dim) for dim in (None, 4)
        )
        assert (default == half).all()

    def test_a_dimension_that_leaves_nothing_is_one_sentence(self):
        with pytest.raises(GauntletError, match="'residual' needs dim of at least 0 and below the 9 features, got 9"):
            score("residual", self.outputs(self.TEST), self.outputs(self.TRAIN), dim=9)


def test_vra_clips_at_quantiles_of_all_activations():
    head = Head(torch.as_tensor(RNG.normal(size=(3, 8))), torch.as_tensor(RNG.normal(size=3)))
    val, test = RNG.normal(size=(60, 8)), 2 * RNG.normal(size=(20, 8))
    low, high = np.quantile(val, [0.2, 0.7])
    expected = -np.log(np.exp(np.clip(test, low, high) @ head.weight.numpy().T + head.bias.numpy()).sum(1))
    sides = [Outputs(torch.zeros(len(z)), features=torch.as_tensor(z), head=head) for z in (val, test)]
    assert_allclose(score("vra", sides[1], sides[0], sides[0], low=0.2, high=0.7), expected, rtol=1e-12)


class TestOpenMax:
    def test_is_the_recipe_step_by_step(self):
        labels = np.arange(300) % 4
        train = RNG.normal(size=(300, 4)) + 4 * np.eye(4)[labels]
        test = RNG.normal(size=(25, 4)) * 3
        right = train.argmax(1) == labels
        expected = []
        for image in test:
            revised, unknown = image.copy(), 0.0
            for rank, label in enumerate(np.argsort(-image)[:3]):
                own = train[right & (labels == label)]
                distances = np.linalg.norm(own - own.mean(0), axis=1)
                tail = np.sort(distances)[-20:]
                shape, _, scale = stats.weibull_min.fit(tail - tail[0] + 1, floc=0)
                distance = np.linalg.norm(image - own.mean(0)) - tail[0] + 1
                loss = image[label] * stats.weibull_min.cdf(distance, shape, 0, scale) * (3 - rank) / 3
                revised[label] -= loss
                unknown += loss
            expected.append(softmax(np.append(revised, unknown))[-1])
        found = score("openmax", from_logits(test), from_logits(train, labels))
        assert_allclose(found, expected, rtol=1e-3, atol=1e-5)

    def test_equal_distances_make_a_step(self):
        train = from_logits(np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]), np.array([0, 0, 1, 1]))
        near, far = score("openmax", from_logits(np.array([[2.0, 0.0], [20.0, -18.0]])), train)
        assert 0 <= near < far <= 1

    def test_a_class_never_classified_correctly_is_unknown(self):
        train = from_logits(np.array([[2.0, 0.0], [3.0, 0.0], [2.5, 0.1]]), np.array([0, 0, 1]))
        assert np.isfinite(score("openmax", from_logits(LOGITS[:, :2]), train)).all()

    def test_no_correct_image_at_all_is_one_sentence(self):
        train = from_logits(np.array([[2.0, 0.0]]), np.array([1]))
        with pytest.raises(GauntletError, match="'openmax' cannot be fitted: no training image is classified corre"):
            score("openmax", from_logits(LOGITS[:, :2]), train)
