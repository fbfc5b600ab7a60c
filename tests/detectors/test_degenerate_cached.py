"""Inputs at the edge, for every cached detector: a correct number, or one sentence that says what is wrong."""

from __future__ import annotations

import math

import pytest
import torch

from gauntlet import GauntletError
from gauntlet.detectors import Head, Outputs, build_detector, check_scores
from gauntlet.registry import DETECTORS

CLASSES = 3
CACHED = [
    entry
    for entry in DETECTORS
    if entry.plugin is None and set(entry.needs) <= {"logits", "features", "labels", "head"}
]
FITTED_TO_FEATURES = [
    entry for entry in CACHED if entry.is_class and "features" in entry.needs and build_detector(entry).needs_fit
]
names = pytest.mark.parametrize("entry", CACHED, ids=lambda entry: entry.name)


def scene(features: torch.Tensor, head: Head | None = None, labels: torch.Tensor | None = None) -> Outputs:
    torch.manual_seed(1)
    width = features.shape[1]
    if head is None:
        head = Head(torch.randn(CLASSES, width), torch.zeros(CLASSES))
    logits = features @ head.weight.T + head.bias
    labels = logits.argmax(1) if labels is None else labels
    return Outputs(labels, logits, features, head=head)


def scores(entry, train: Outputs, test: Outputs) -> torch.Tensor:
    built = build_detector(entry, {"k": 5} if entry.has("k") else {})
    if built.needs_fit:
        built.fit(train, train, train.head)
    return check_scores(built.score(test), len(test), entry.name)


@pytest.fixture
def random() -> torch.Tensor:
    return torch.randn(90, 4, generator=torch.Generator().manual_seed(0))


@names
def test_rank_deficient_features_give_finite_scores(entry, random):
    """Dead units, a repeated one, and fewer directions than units."""
    wide = torch.cat([random, random[:, :1], torch.zeros(len(random), 3)], dim=1)
    assert scores(entry, scene(wide), scene(wide)).isfinite().all()


@names
def test_fewer_images_than_features_give_finite_scores(entry):
    wide = torch.randn(12, 40, generator=torch.Generator().manual_seed(2))
    assert scores(entry, scene(wide), scene(wide[:6])).isfinite().all()


@names
def test_saturated_logits_give_finite_scores(entry, random):
    head = Head(torch.randn(CLASSES, 4, generator=torch.Generator().manual_seed(3)) * 1e4, torch.zeros(CLASSES))
    assert scores(entry, scene(random, head), scene(random, head)).isfinite().all()


@names
def test_images_that_are_all_the_same_have_the_same_score(entry):
    """Only the class that all of them are predicted as has images."""
    same = torch.full((60, 4), 0.1)
    found = scores(entry, scene(same), scene(same))
    assert entry.name == "random" or found.max() - found.min() <= 1e-9


@names
def test_images_without_activation_give_finite_scores(entry, random):
    assert scores(entry, scene(random), scene(torch.zeros(5, 4))).isfinite().all()


@names
def test_a_class_without_training_images_is_left_out_or_named(entry, random):
    train = scene(random)
    train = train.subset(train.labels != 2)
    if entry.name == "she":
        with pytest.raises(GauntletError, match="no training image of class 2 is classified correctly"):
            scores(entry, train, scene(random))
        return
    assert scores(entry, train, scene(random)).isfinite().all()


@names
def test_a_class_without_training_images_that_is_never_predicted_takes_no_part(entry, random):
    train, test = scene(random), scene(random)
    train = train.subset((train.labels != 2) & (train.logits.argmax(1) != 2))
    assert scores(entry, train, test.subset(test.logits.argmax(1) != 2)).isfinite().all()


@names
def test_one_feature_is_enough(entry):
    one = torch.linspace(-2, 2, 41)[:, None]
    head = Head(torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([0.0, 0.0, 0.5]))
    assert scores(entry, scene(one, head), scene(one, head)).isfinite().all()


@names
def test_no_test_image_gives_no_score(entry, random):
    assert scores(entry, scene(random), scene(random[:0])).shape == (0,)


@pytest.mark.parametrize("entry", FITTED_TO_FEATURES, ids=lambda entry: entry.name)
def test_features_that_are_not_finite_are_named_in_the_fit(entry, random):
    broken = random.clone()
    broken[3, 0] = torch.nan
    with pytest.raises(GauntletError, match=f"'{entry.name}' cannot be fitted: 1 of 90 training images have features"):
        scores(entry, scene(broken, labels=scene(random).labels), scene(random))


@pytest.mark.parametrize("entry", FITTED_TO_FEATURES, ids=lambda entry: entry.name)
def test_scoring_before_fitting_is_one_sentence(entry, random):
    built = build_detector(entry)
    with pytest.raises(GauntletError, match=f"Detector '{entry.name}' must be fitted"):
        built.score(scene(random))


@pytest.mark.parametrize("name", ["temperature-scaled", "kl-matching", "react", "vra"])
def test_detectors_fitted_to_validation_images_say_that_there_are_none(name, random):
    built = build_detector(DETECTORS.get(name))
    assert built.needs_val
    with pytest.raises(GauntletError, match=f"Detector '{name}' is fitted to validation images, and there are none"):
        built.fit(scene(random), None, None)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ash", {"q": 1.0}, "share of at least 0 and below 1, got 1.0"),
        ("scale", {"q": -0.1}, "share of at least 0 and below 1, got -0.1"),
        ("lts", {"p": 0.0}, "p above 0 and at most 1, got 0.0"),
        ("gen", {"gamma": 0.0}, "gamma above 0"),
        ("react", {"q": 90.0}, "share of at least 0 and below 1, got 90.0"),
        ("dice", {"dropped": 65.0}, "share of at least 0 and below 1, got 65.0"),
        ("vra", {"low": 0.9, "high": 0.1}, "0 <= low <= high <= 1"),
        ("gmm", {"reg": 0.0}, "reg above 0"),
        ("openmax", {"tail": 0}, "tail and alpha of at least 1"),
        ("nnguide", {"k": 0}, "k of at least 1"),
        ("nac", {"bins": 5}, "even number of bins, at least 2, got 5"),
        ("nac", {"bins": 0}, "even number of bins, at least 2, got 0"),
        ("nac", {"steepness": 0.0}, "finite steepness above 0, got 0"),
        ("nac", {"full": 0}, "full of at least 1 image, got 0"),
    ],
)
def test_parameters_out_of_range_are_one_sentence(name, parameters, message, random):
    def use() -> None:
        built = build_detector(DETECTORS.get(name), parameters)
        if built.needs_fit:
            built.fit(scene(random), scene(random), scene(random).head)
        built.score(scene(random))

    with pytest.raises(GauntletError, match=message):
        use()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["msp", "energy", "gradnorm", "odin"])
def test_temperatures_that_are_not_above_zero_are_one_sentence(name, temperature):
    with pytest.raises(GauntletError, match=rf"Detector '{name}' needs a finite temperature above 0, got [-\w]+\.$"):
        build_detector(DETECTORS.get(name), {"temperature": temperature})


def test_nnguide_wants_k_training_images(random):
    with pytest.raises(GauntletError, match="looks for k=100 neighbours among only 90 training images"):
        build_detector(DETECTORS.get("nnguide")).fit(scene(random), None, None)


class TestKnownNumbers:
    """What the limit is, where the formula alone would give 0/0 or round."""

    SATURATED = torch.tensor([[1e4, -1e4, -1e4], [0.0, 0.0, 0.0]])

    @pytest.mark.parametrize(
        ("name", "expected"), [("doctor", [0.0, 2.0]), ("max-2-max", [0.0, 1.0]), ("gen", [0.0, 3 * (2 / 9) ** 0.1])]
    )
    def test_of_saturated_and_of_uniform_logits(self, name, expected):
        found = build_detector(DETECTORS.get(name)).score(Outputs(torch.zeros(2), self.SATURATED.double()))
        assert found.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-300)

    def test_gen_tells_confident_images_apart_beyond_what_float64_probabilities_can(self):
        logits = torch.tensor([[50.0, 0.0], [60.0, 0.0]], dtype=torch.float64)
        found = build_detector(DETECTORS.get("gen")).score(Outputs(torch.zeros(2), logits))
        assert found.tolist() == pytest.approx([2 * math.exp(-5.0), 2 * math.exp(-6.0)], rel=1e-12)

    def test_kl_matching_of_the_typical_prediction_is_zero(self):
        logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        built = build_detector(DETECTORS.get("kl-matching"))
        built.fit(Outputs(torch.zeros(0)), Outputs(torch.zeros(2), logits), None)
        assert built.score(Outputs(torch.zeros(2), logits)).tolist() == pytest.approx([0.0, 0.0], abs=1e-15)

    def test_vim_is_the_energy_where_training_features_have_no_residual(self):
        line = torch.linspace(-1, 1, 30)[:, None] * torch.tensor([[1.0, 2.0, 0.0, 0.0]])
        head = Head(torch.eye(4)[:3], torch.zeros(3))
        built = build_detector(DETECTORS.get("vim"))
        built.fit(scene(line, head), None, head)
        test = scene(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), head)
        assert torch.allclose(built.score(test), -test.logits.double().logsumexp(1))
