"""Calibrators: the NLL they minimise, what they leave alone, and the head they fold into."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gauntlet.models import Calibrated, Tap
from gauntlet.models.temperature import TEMPERATURE_RANGE, fit_temperature
from gauntlet.registry import CALIBRATORS, MODELS, GauntletError

NAMES = [entry.name for entry in CALIBRATORS if entry.factory.source == "logits"]
Nets = Callable[..., nn.Sequential]


def sample(scale: Tensor, shift: Tensor, count: int = 20_000) -> tuple[Tensor, Tensor]:
    """Logits z and labels drawn from softmax(scale * z + shift)."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial((scale * logits + shift).softmax(1), 1, generator=generator)[:, 0]


def nll(logits: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(logits, labels))


SCALE, SHIFT = torch.tensor([0.3, 0.5, 0.8, 1.2], dtype=torch.float64), torch.tensor([-1.0, 0.0, 0.5, 0.5])


def test_temperature_recovers_the_factor_of_the_logits():
    calibrator = CALIBRATORS.create("temperature")
    calibrator.fit(*sample(torch.tensor(0.4), torch.tensor(0.0)))
    assert calibrator.scale.tolist() == pytest.approx([0.4] * 4, rel=0.03)
    assert calibrator.shift.tolist() == [0.0] * 4


def test_vector_scaling_recovers_scales_and_shifts_up_to_a_common_shift():
    calibrator = CALIBRATORS.create("vector")
    calibrator.fit(*sample(SCALE, SHIFT))
    assert calibrator.scale.tolist() == pytest.approx(SCALE.tolist(), rel=0.1)
    centred = calibrator.shift - calibrator.shift.mean()
    assert centred.tolist() == pytest.approx((SHIFT - SHIFT.mean()).tolist(), abs=0.15)


def test_platt_has_one_scale_and_is_platts_sigmoid_for_two_classes():
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3000, 2, generator=generator, dtype=torch.float64)
    margin = logits[:, 1] - logits[:, 0]
    labels = (torch.rand(3000, generator=generator) < torch.sigmoid(2 * margin - 0.7)).long()
    calibrator = CALIBRATORS.create("platt", penalty=1e-9)
    calibrator.fit(logits, labels)
    known = LogisticRegression(C=1e9, tol=1e-10).fit(margin[:, None], labels)
    assert len(calibrator.scale.unique()) == 1
    assert float(calibrator.scale[0]) == pytest.approx(known.coef_.item(), rel=1e-3)
    assert float(calibrator.shift[1] - calibrator.shift[0]) == pytest.approx(known.intercept_.item(), abs=1e-3)


def test_more_freedom_gives_a_lower_nll_on_the_data_it_is_fitted_on():
    logits, labels = sample(SCALE, SHIFT, 3000)
    losses = [nll(logits, labels)]
    for name in ("temperature", "platt", "vector"):
        calibrator = CALIBRATORS.create(name)
        calibrator.fit(logits, labels)
        losses.append(nll(calibrator(logits), labels))
    assert losses == sorted(losses, reverse=True)


def test_a_temperature_changes_no_prediction():
    logits, labels = sample(SCALE, SHIFT, 2000)
    calibrator = CALIBRATORS.create("temperature")
    calibrator.fit(logits, labels)
    assert torch.equal(calibrator(logits).argmax(1), logits.argmax(1))


@pytest.mark.parametrize("name", NAMES)
def test_data_without_errors_are_refused_in_one_sentence(name: str):
    logits = 9 * torch.eye(4).repeat(5, 1)
    with pytest.raises(GauntletError, match="held-out images of which some are classified wrongly"):
        CALIBRATORS.create(name).fit(logits, torch.arange(20) % 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["plain", "m5", "ensemble"])
def test_the_head_of_a_calibrated_model_has_the_calibration_folded_in(name: str, kind: str, make_net: Nets):
    torch.manual_seed(0)
    if kind == "plain":
        net, shape = make_net(), (1, 8, 8)
    else:
        members = [MODELS.create("m5", width=0.1), MODELS.create("m7", width=0.1)]
        net, shape = MODELS.create("ensemble", members=members) if kind == "ensemble" else members[0], (1, 28, 28)
    x = torch.rand(6, *shape)
    calibrator = CALIBRATORS.create(name)
    logits = torch.randn(500, 10)
    calibrator.fit(logits, (logits + torch.randn(500, 10)).argmax(1))
    model = Calibrated(net.eval(), calibrator).eval()
    tap = Tap(model, x)
    outputs = tap(x)
    torch.testing.assert_close(outputs["logits"], calibrator(net(x)))
    torch.testing.assert_close(model(x), outputs["logits"])
    assert tap.why_no_head == ""
    weight, bias = tap.head
    torch.testing.assert_close(outputs["features"] @ weight.T + bias, outputs["logits"], rtol=1e-4, atol=1e-4)
    assert ("members" in outputs) == (kind == "ensemble")


def mixture(weights: list[float], count: int = 20_000) -> tuple[Tensor, Tensor]:
    """Members' logits, and labels drawn from the mixture of their probabilities with these weights."""
    generator = torch.Generator().manual_seed(2)
    members = 3 * torch.randn(count, len(weights), 4, generator=generator, dtype=torch.float64)
    probabilities = (members.softmax(2) * torch.tensor(weights)[:, None]).sum(1)
    return members, torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def test_member_weights_are_recovered_and_a_member_that_knows_nothing_gets_none():
    calibrator = CALIBRATORS.create("member-weights")
    calibrator.fit(*mixture([0.6, 0.3, 0.1]))
    assert calibrator.weights.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    calibrator.fit(*mixture([0.5, 0.5, 0.0]))
    assert float(calibrator.weights[2]) < 0.01


def test_member_weights_minimise_the_nll_of_the_mixture_as_scipy_does():
    from scipy.optimize import minimize

    members, labels = mixture([0.7, 0.1, 0.2], 2000)
    likelihoods = members.softmax(2)[torch.arange(2000), :, labels].numpy()
    calibrator = CALIBRATORS.create("member-weights")
    calibrator.fit(members, labels)
    simplex = [{"type": "eq", "fun": lambda w: w.sum() - 1}]
    known = minimize(
        lambda w: -np.log(likelihoods @ w).mean(), [1 / 3] * 3, bounds=[(1e-9, 1)] * 3, constraints=simplex, tol=1e-12
    )
    assert calibrator.weights.tolist() == pytest.approx(known.x.tolist(), abs=2e-3)
    assert nll(calibrator(members), labels) == pytest.approx(known.fun, abs=1e-6)


def test_equal_member_weights_are_prob_mean():
    ensemble = MODELS.create(
        "ensemble", members=[MODELS.create("m7", width=0.1) for _ in range(2)], combine="prob_mean"
    )
    x = torch.rand(5, 1, 28, 28)
    calibrator = CALIBRATORS.create("member-weights")
    calibrator.weights = torch.full((2,), 0.5)
    model = Calibrated(ensemble.eval(), calibrator).eval()
    torch.testing.assert_close(model(x), ensemble(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Tap(model, x)(x)["logits"], model(x))


def test_member_weights_of_a_model_without_members_are_one_sentence(make_net: Nets):
    with pytest.raises(GauntletError, match="needs members, which an ensemble has and this model has not"):
        CALIBRATORS.create("member-weights").read(make_net().eval(), torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("true", [0.005, 2.5, 34.0, 300.0])
def test_temperatures_that_occur_are_found(true: float):
    z = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0)).double() * 2.4 * true
    labels = torch.multinomial((z / true).softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    value, low, high = fit_temperature(z, labels)
    assert low < true < high
    assert value == pytest.approx(true, rel=0.25)


def test_an_interval_without_an_end_ends_where_the_search_does():
    generator = torch.Generator().manual_seed(276)
    z = torch.randn(20, 2, generator=generator).double()
    value, low, high = fit_temperature(z, torch.randint(0, 2, (20,), generator=generator))
    assert value == pytest.approx(17.0426, rel=1e-4)
    assert (low, high) == pytest.approx(TEMPERATURE_RANGE)


def test_the_bound_that_is_hit_is_named():
    z = torch.eye(3).double().repeat(5, 1)
    with pytest.raises(GauntletError, match=r"falls up to 0\.001\): .* of which some are classified wrongly"):
        fit_temperature(z, z.argmax(1))
    with pytest.raises(GauntletError, match=r"falls up to 1000\): .* that it gets right"):
        fit_temperature(z, (z.argmax(1) + 1) % 3)


def test_masked_classes_change_nothing_unless_they_are_true():
    z = torch.randn(200, 5, generator=torch.Generator().manual_seed(2)).double()
    labels = torch.multinomial((z / 2).softmax(1), 1, generator=torch.Generator().manual_seed(3))[:, 0]
    masked = z.scatter(1, ((labels + 1) % 5)[:, None], -torch.inf)
    low = z.scatter(1, ((labels + 1) % 5)[:, None], -1e9)
    assert fit_temperature(masked, labels) == pytest.approx(fit_temperature(low, labels))
    with pytest.raises(GauntletError, match="The NLL is infinite: the class of 200 images is masked"):
        fit_temperature(masked, (labels + 1) % 5)
