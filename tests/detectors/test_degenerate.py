"""Inputs at the edge: a correct number, or one sentence that says what is wrong."""

from __future__ import annotations

import math

import pytest
import torch

from gauntlet import GauntletError
from gauntlet.detectors import Outputs, build_detector, check_scores
from gauntlet.registry import DETECTORS


def scores(name: str, train: Outputs | None, test: Outputs, **parameters) -> list[float]:
    built = build_detector(DETECTORS.get(name), parameters)
    if train is not None:
        built.fit(train, None, None)
    return check_scores(built.score(test), len(test), name).tolist()


def with_features(features: torch.Tensor, labels: torch.Tensor | None = None) -> Outputs:
    return Outputs(torch.zeros(len(features)).long() if labels is None else labels, features=features)


RANDOM = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


class TestSaturatedLogits:
    LOGITS = torch.tensor([[1e4, -1e4, -1e4], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]])

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("msp", [0.0, 0.5, 2 / 3]),
            ("max-logit", [-1e4, -1e4, 1e4]),
            ("energy", [-1e4, -1e4 - math.log(2), 1e4 - math.log(3)]),
            ("entropy", [0.0, math.log(2), math.log(3)]),
            ("cross-entropy", [-4e4 / 3, -2e4 / 3 - math.log(2), -math.log(3)]),
        ],
    )
    def test_give_the_limit(self, name, expected):
        found = scores(name, None, Outputs(torch.zeros(3), logits=self.LOGITS))
        assert found == pytest.approx(expected, rel=1e-14, abs=1e-11)

    def test_half_precision_logits_are_scored_in_double(self):
        logits = torch.tensor([[20.0, 0.0], [21.0, 0.0]], dtype=torch.float16)
        first, second = scores("msp", None, Outputs(torch.zeros(2), logits=logits))
        assert first == pytest.approx(math.exp(-20), rel=1e-6)
        assert second == pytest.approx(math.exp(-21), rel=1e-6)


class TestMahalanobis:
    def test_constant_features_have_no_distance(self):
        constant = torch.full((20, 3), 0.1)
        assert scores("mahalanobis", with_features(constant), with_features(constant)) == [0.0] * 20

    def test_a_constant_feature_among_others_is_left_out(self):
        labels = torch.arange(40) % 2
        train = torch.cat([RANDOM, torch.full((40, 1), 0.3)], dim=1)
        found = scores("mahalanobis", with_features(train, labels), with_features(train))
        assert found == pytest.approx(scores("mahalanobis", with_features(RANDOM, labels), with_features(RANDOM)))

    def test_a_repeated_feature_counts_once(self):
        labels = torch.arange(40) % 2
        train = torch.cat([RANDOM, RANDOM[:, :1] * 3], dim=1)
        found = scores("mahalanobis", with_features(train, labels), with_features(train))
        expected = scores("mahalanobis", with_features(RANDOM, labels), with_features(RANDOM))
        assert found == pytest.approx(expected, rel=1e-4)

    def test_one_feature_is_the_squared_z_score(self):
        train = torch.tensor([[1.0], [3.0], [10.0], [14.0]], dtype=torch.float64)
        labels = torch.tensor([0, 0, 1, 1])
        # means 2 and 12, variance (1 + 1 + 4 + 4) / 4
        test = torch.tensor([[2.0], [6.0], [13.0]], dtype=torch.float64)
        found = scores("mahalanobis", with_features(train, labels), with_features(test))
        assert found == pytest.approx([0.0, 16 / 2.5, 1 / 2.5], rel=1e-12, abs=1e-12)

    def test_a_class_with_one_image_has_its_mean_there(self):
        train = torch.cat([RANDOM, torch.full((1, 3), 50.0)])
        labels = torch.tensor([0] * 40 + [1])
        found = scores("mahalanobis", with_features(train, labels), with_features(torch.full((1, 3), 50.0)))
        assert found == pytest.approx([0.0], abs=1e-6)

    def test_a_class_without_images_is_left_out(self):
        gap = torch.arange(40) % 2 * 7  # classes 0 and 7
        close = torch.arange(40) % 2
        found = scores("mahalanobis", with_features(RANDOM, gap), with_features(RANDOM))
        assert found == scores("mahalanobis", with_features(RANDOM, close), with_features(RANDOM))

    def test_images_without_a_class_are_left_out(self):
        labels = torch.arange(40) % 2
        extra = with_features(torch.cat([RANDOM, 9 + RANDOM]), torch.cat([labels, torch.full((40,), -1)]))
        found = scores("mahalanobis", extra, with_features(RANDOM))
        assert found == pytest.approx(scores("mahalanobis", with_features(RANDOM, labels), with_features(RANDOM)))

    def test_fewer_images_than_features_is_no_problem(self):
        wide = torch.randn(6, 30, generator=torch.Generator().manual_seed(1))
        found = scores("mahalanobis", with_features(wide), with_features(wide))
        # N points in general position span N - 1 dimensions, in which each is at squared distance N - 1 of their mean.
        assert found == pytest.approx([5.0] * 6, rel=1e-6)

    def test_no_labelled_image_is_one_sentence(self):
        with pytest.raises(GauntletError, match="'mahalanobis' cannot be fitted: no training image has a class"):
            scores("mahalanobis", with_features(RANDOM, torch.full((40,), -1)), with_features(RANDOM))


class TestKNN:
    def test_fewer_training_images_than_k_is_one_sentence(self):
        with pytest.raises(GauntletError, match=r"^Detector 'knn' looks for neighbour k=50 among only 40 training im"):
            scores("knn", with_features(RANDOM), with_features(RANDOM))

    def test_k_of_zero_is_one_sentence(self):
        with pytest.raises(GauntletError, match="'knn' needs k of at least 1, got 0"):
            build_detector(DETECTORS.get("knn"), {"k": 0})

    def test_constant_features_have_no_distance(self):
        constant = torch.full((60, 3), 0.1)
        assert scores("knn", with_features(constant), with_features(constant)) == [0.0] * 60

    def test_one_feature_leaves_only_its_sign(self):
        train = with_features(torch.tensor([[1.0], [2.0], [-5.0]]))
        test = with_features(torch.tensor([[9.0], [-0.1], [0.0]]))
        assert scores("knn", train, test, k=2) == pytest.approx([0.0, 2.0, 1.0])


@pytest.mark.parametrize("name", ["mahalanobis", "knn"])
class TestFits:
    def test_no_training_image_is_one_sentence(self, name):
        with pytest.raises(GauntletError, match=f"Detector '{name}' cannot be fitted to an empty training set"):
            scores(name, with_features(torch.zeros(0, 3)), with_features(RANDOM))

    def test_features_that_are_not_finite_are_counted(self, name):
        bad = RANDOM.clone()
        bad[3, 0], bad[5] = torch.nan, torch.inf
        with pytest.raises(GauntletError, match=f"'{name}' cannot be fitted: 2 of 40 training images have features"):
            scores(name, with_features(bad), with_features(RANDOM))

    def test_features_of_another_width_are_one_sentence(self, name):
        with pytest.raises(GauntletError, match=f"'{name}' was fitted to 3 features per image but got 2"):
            scores(name, with_features(RANDOM.repeat(2, 1)), with_features(RANDOM[:, :2]))

    def test_a_test_image_that_is_not_finite_is_an_error_and_no_number(self, name):
        bad = RANDOM.clone()
        bad[3] = torch.nan
        with pytest.raises(GauntletError, match=f"Detector '{name}' gave 1 of 40 scores that are not finite"):
            scores(name, with_features(RANDOM.repeat(2, 1)), with_features(bad))

    def test_no_test_image_gives_no_score(self, name):
        assert scores(name, with_features(RANDOM.repeat(2, 1)), with_features(RANDOM[:0])) == []


def test_a_layer_that_never_overshot_while_fitting_does_not_divide_by_it():
    labels = torch.arange(40) % 2
    known = {"logits": torch.eye(2)[labels], "layers": (1, 2)}
    fitted = Outputs(labels, named={"gram-statistics": torch.ones(40, 3)}, **known)
    found = scores("gram", fitted, Outputs(labels, named={"gram-statistics": torch.full((40, 3), 3.0)}, **known))
    assert found == pytest.approx([6.0] * 40, rel=1e-5)  # (3 - 1) / 1 of each of the three statistics
