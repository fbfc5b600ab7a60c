"""EuiNet's decision: the threshold that h moves, its calibration, and the step that raises the top probability."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gauntlet import GauntletError
from gauntlet.detectors import Outputs, build_detector
from gauntlet.registry import DETECTORS


class Linear(nn.Module):
    """Logits and h that are linear in four pixels, so that every step has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64))
        self.judge = torch.randn(4, generator=generator, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self(x), "h": (x.flatten(1) @ self.judge).sigmoid()}


@pytest.fixture
def model() -> Linear:
    return Linear().eval()


@pytest.fixture
def look(model: Linear) -> Callable[..., Outputs]:
    """Outputs on random images, or with given logits and h on images that no step moves."""

    def make(n: int = 60, seed: int = 1, h: Tensor | None = None) -> Outputs:
        images = torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = {name: value.detach() for name, value in model.outputs(images).items()}
        return Outputs(
            labels=torch.zeros(n, dtype=torch.long),
            logits=found["logits"],
            named={"h": found["h"] if h is None else h},
            model=model,
            tap=model.outputs,
            image_batches=lambda: iter(images.split(7)),
        )

    return make


def built(outputs: Outputs, **parameters):
    detector = build_detector(DETECTORS.get("euinet"), parameters)
    detector.fit(outputs, outputs, None)
    return detector


def given(logits: Tensor, h: Tensor) -> Outputs:
    """Outputs of a model whose logits are what its images hold."""
    return Outputs(
        labels=torch.zeros(len(h), dtype=torch.long),
        named={"h": h},
        model=nn.Flatten(),
        tap=lambda x: {"logits": x.flatten(1)},
        image_batches=lambda: iter([logits[:, None, None, :]]),
    )


def test_the_decision_of_three_images_worked_by_hand():
    # T = 0.001: scores z / 1000; alpha h + gamma = 0.008 + 0.004 h
    logits = torch.tensor([[9.0, 1.0, 0.0], [9.0, 1.0, 0.0], [2.0, 7.0, 3.0]], dtype=torch.float64)
    outputs = given(logits, torch.tensor([0.1, 0.9, 0.0], dtype=torch.float64))
    detector = built(outputs, alpha=0.004, gamma=0.008, epsilon=0)
    assert detector.score(outputs).tolist() == pytest.approx([0.0084 - 0.009, 0.0116 - 0.009, 0.008 - 0.007])
    assert detector.predict(outputs).tolist() == [0, -1, -1]
    four = torch.tensor([[0.009, 0.001, 0.0, 0.0084]], dtype=torch.float64).softmax(1)
    torch.testing.assert_close(detector.probabilities(outputs)[:1], four)


def test_as_printed_no_score_below_8e_3_is_a_class_and_none_above_12e_3_is_ood():
    """The decision's bounds, over the whole range of h."""
    largest = torch.linspace(0, 20, 41, dtype=torch.float64).repeat_interleave(11)
    h = torch.linspace(0, 1, 11, dtype=torch.float64).repeat(41)
    logits = torch.stack([largest, largest - 30, largest - 40], dim=1)
    outputs = given(logits, h)
    detector = built(outputs, alpha=0.004, gamma=0.008, epsilon=0)
    bar = detector.score(outputs) + largest / 1000
    assert bar.min().item() == pytest.approx(0.008)
    assert bar.max().item() == pytest.approx(0.012)
    predicted = detector.predict(outputs)
    assert bool((predicted[largest < 8 - 1e-9] == -1).all())
    assert bool((predicted[largest > 12 + 1e-9] == 0).all())
    between = (largest > 8.1) & (largest < 11.9)
    assert set(predicted[between].tolist()) == {-1, 0}  # there h decides


def test_without_alpha_the_discriminator_has_no_say(look):
    low, high = look(h=torch.zeros(60, dtype=torch.float64)), look(h=torch.ones(60, dtype=torch.float64))
    for without in (built(low, alpha=0), built(high, alpha=0)):
        assert torch.equal(without.score(low), without.score(high))
        assert torch.equal(without.predict(low), without.predict(high))
    assert not torch.equal(built(low).score(low), built(low).score(high))


def test_alpha_and_gamma_are_quantiles_of_the_largest_validation_scores(look):
    val = look(400, 2)
    detector = built(val, epsilon=0, false_alarms=0.1, most_false_alarms=0.3)
    largest = val.logits.amax(1) / 1000
    gamma = largest.quantile(0.1)
    at_zero = look(400, 2, h=torch.zeros(400, dtype=torch.float64))
    at_one = look(400, 2, h=torch.ones(400, dtype=torch.float64))
    torch.testing.assert_close(detector.score(at_zero) + largest, gamma.expand(400))
    torch.testing.assert_close(detector.score(at_one) + largest, largest.quantile(0.3).expand(400))
    assert (detector.predict(at_zero) == -1).double().mean().item() == pytest.approx(0.1, abs=1 / 400)
    assert (detector.predict(at_one) == -1).double().mean().item() == pytest.approx(0.3, abs=1 / 400)


def test_alpha_is_not_below_zero_where_gamma_is_large(look):
    outputs = look()
    fixed = built(outputs, gamma=100.0)
    assert fixed.score(outputs).min() > 99
    assert torch.equal(fixed.score(outputs), built(outputs, gamma=100.0, alpha=0).score(outputs))


def test_score_and_prediction_agree_and_probabilities_sum_to_one(look):
    outputs = look(200, 3)
    detector = built(look(), most_false_alarms=0.6)
    flagged = detector.predict(outputs) < 0
    assert 0 < int(flagged.sum()) < 200
    assert torch.equal(flagged, detector.score(outputs) > 0)
    probabilities = detector.probabilities(outputs)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(200, dtype=torch.float64))
    assert torch.equal(probabilities.argmax(1) == 3, flagged)
    classes = outputs.logits.argmax(1)
    assert torch.equal(built(look(), epsilon=0, gamma=-1.0, alpha=0).predict(outputs), classes)


def test_the_step_raises_the_top_tempered_probability_by_its_closed_form(model, look):
    outputs = look()
    images = torch.cat(list(outputs.image_batches()))
    p = (outputs.logits / 1000).softmax(1)  # z * 0.001: temperature 1000
    top = p.argmax(1)
    gradient = model.weight.detach()[top] - p @ model.weight.detach()
    moved = images.flatten(1) + 0.15 * gradient.sign()
    expected = (moved @ model.weight.detach().T) / 1000
    found = built(outputs, alpha=0.0, gamma=0.0).score(outputs)
    torch.testing.assert_close(found, -expected.amax(1))
    assert bool(((expected.softmax(1).gather(1, top[:, None])) > p.gather(1, top[:, None])).all())


def test_h_is_of_the_clean_image_unless_the_switch_says_otherwise(model, look):
    outputs = look()
    settings = {"alpha": 1.0, "gamma": 0.0, "epsilon": 0.5}
    clean, perturbed = (built(outputs, discriminator_input=kind, **settings) for kind in ("clean", "perturbed"))
    largest = -built(outputs, **{**settings, "alpha": 0.0}).score(outputs)
    torch.testing.assert_close(clean.score(outputs) + largest, outputs.named["h"])
    assert not torch.allclose(perturbed.score(outputs) + largest, outputs.named["h"])
    still = {**settings, "epsilon": 0.0, "discriminator_input": "perturbed"}
    torch.testing.assert_close(
        built(outputs, **still).score(outputs), built(outputs, **{**settings, "epsilon": 0.0}).score(outputs)
    )


def test_under_divide_the_scores_are_logits_less_their_mean(look):
    outputs = look()
    detector = built(outputs, temperature_convention="divide", epsilon=0, alpha=0.0, gamma=0.0)
    expected = -(outputs.logits - outputs.logits.mean(1, keepdim=True)).amax(1)
    torch.testing.assert_close(detector.score(outputs), expected)
    multiply = built(outputs, temperature_convention="multiply", temperature=0.5)
    torch.testing.assert_close(multiply.score(outputs), built(outputs, temperature=0.5).score(outputs))


def test_every_set_has_its_own_answer(look):
    one, other = look(20, 4), look(30, 5)
    detector = built(look())
    assert len(detector.score(one)) == 20
    assert len(detector.predict(other)) == 30
    assert torch.equal(detector.predict(one) < 0, detector.score(one) > 0)


def test_the_discriminator_alone_is_its_output(look):
    outputs = look()
    assert torch.equal(build_detector(DETECTORS.get("discriminator")).score(outputs), outputs.named["h"])


def test_other_detectors_decide_nothing(look):
    for name in ("msp", "discriminator"):
        other = build_detector(DETECTORS.get(name))
        assert other.predict(look()) is None
        assert other.probabilities(look()) is None


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"temperature": 0}, r"^Detector 'euinet' needs a temperature above 0, got 0\.0\.$"),
        ({"epsilon": -0.1}, "needs an epsilon >= 0, got -0.1"),
        ({"alpha": -1}, "needs an alpha >= 0, got -1.0"),
        ({"false_alarms": 0.2}, "needs 0 <= false_alarms <= most_false_alarms <= 1"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(parameters: dict, problem: str):
    with pytest.raises(GauntletError, match=problem):
        build_detector(DETECTORS.get("euinet"), parameters)


def test_calibration_needs_validation_images_and_literal_values_do_not(look):
    detector = build_detector(DETECTORS.get("euinet"))
    with pytest.raises(GauntletError, match="must be fitted"):
        detector.score(look())
    with pytest.raises(GauntletError, match="is fitted to validation images, and there are none"):
        detector.fit(look(), None, None)
    build_detector(DETECTORS.get("euinet"), {"alpha": 0.004, "gamma": 0.008}).fit(look(), None, None)
