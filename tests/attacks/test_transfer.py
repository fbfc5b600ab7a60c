"""Transfer: images made on a surrogate, judged on the victim."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim, check_ball
from gauntlet.registry import ATTACKS, GauntletError

from .conftest import small_net


@pytest.fixture(scope="module")
def other(digits) -> nn.Module:
    """A network of the same kind as ``trained``, from another start."""
    images, labels = digits[0][:1200], digits[1][:1200]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = small_net()
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(4):
            for batch in torch.randperm(len(images)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def some(correct) -> tuple[torch.Tensor, torch.Tensor]:
    return correct[0][:120], correct[1][:120]


def run(victim_model: nn.Module, surrogate: nn.Module | None, data, epsilons=(0.1,), **parameters):
    images, labels = data
    second = None if surrogate is None else Victim(surrogate)
    with Victim(victim_model, surrogate=second) as victim:
        draws = PerImageRNG("k", torch.arange(len(images)))
        results = ATTACKS.create("transfer", **parameters).run(victim, images, labels, list(epsilons), rng=draws)
        return results, victim


def test_the_images_are_those_that_the_attack_makes_on_the_surrogate(trained, other, some) -> None:
    results, victim = run(trained, other, some, (0.05, 0.1))
    with Victim(other) as alone:
        draws = PerImageRNG("k", torch.arange(len(some[0])))
        made = ATTACKS.create("pgd", stop_when_fooled=False).run(alone, *some, [0.05, 0.1], rng=draws)
    for ours, theirs in zip(results, made, strict=True):
        assert torch.equal(ours.images, theirs.images)
        check_ball(ours.images, some[0], "linf", ours.epsilon)
        with torch.no_grad():
            assert torch.equal(ours.success, trained(ours.images).argmax(dim=1) != some[1])
    assert (victim.backwards, [result.forwards for result in results]) == (0, [len(some[0])] * 2)


def test_it_is_weaker_than_its_attack_on_the_victim_and_stronger_than_noise(trained, other, some) -> None:
    (moved,), _ = run(trained, other, some)
    with Victim(trained) as victim:
        draws = PerImageRNG("k", torch.arange(len(some[0])))
        (direct,), (noise,) = (
            ATTACKS.create(name).run(victim, *some, [0.1], rng=draws) for name in ("pgd", "uniform-noise")
        )
    white, carried, random = (result.success.float().mean().item() for result in (direct, moved, noise))
    assert random + 0.05 < carried < white


def test_on_the_victim_itself_it_is_the_attack(trained, some) -> None:
    (moved,), _ = run(trained, trained, some)
    with Victim(trained) as victim:
        draws = PerImageRNG("k", torch.arange(len(some[0])))
        (direct,) = ATTACKS.create("pgd", stop_when_fooled=False).run(victim, *some, [0.1], rng=draws)
    assert torch.equal(moved.success, direct.success)


@pytest.mark.parametrize(
    ("inner", "norm", "epsilon"), [("fgm-l2", "l2", 1.0), ({"name": "fmn", "steps": 20}, "l0", 8), ("ddn", "l2", 1.0)]
)
def test_any_attack_with_a_budget_can_be_carried_over(trained, other, some, inner, norm, epsilon) -> None:
    data = some[0][:50], some[1][:50]
    (result,), _ = run(trained, other, data, [epsilon], attack=inner, norm=norm)
    check_ball(result.images, data[0], norm, epsilon)
    assert not torch.equal(result.images, data[0])


def test_both_models_come_back_as_they_were(trained, other, some) -> None:
    other.train()
    try:
        run(trained, other, (some[0][:4], some[1][:4]))
        assert other.training
        assert all(parameter.requires_grad for model in (trained, other) for parameter in model.parameters())
    finally:
        other.eval()


def test_a_victim_without_a_surrogate_is_one_sentence(trained, some) -> None:
    with pytest.raises(GauntletError, match=r"^transfer needs a victim with a surrogate"):
        run(trained, None, some)


def test_a_surrogate_with_other_classes_is_one_sentence(trained, some) -> None:
    five = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(GauntletError, match=r"^The surrogate has 5 classes and the attacked model 10"):
        run(trained, five, some)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"attack": "ddn"}, "the attack 'ddn' works in l2 and not in linf"),
        ({"attack": "spatial"}, "works in none and not in linf"),
        ({"attack": "transfer"}, "cannot be a transfer itself"),
        ({"attack": "pdg"}, "Unknown attack 'pdg'; did you mean 'pgd'"),
        ({"norm": "l0"}, "must be one of linf, l2, l1, got .l0."),
    ],
)
def test_an_attack_that_does_not_fit_is_one_sentence(parameters, message) -> None:
    with pytest.raises(GauntletError, match=message):
        ATTACKS.create("transfer", **parameters)
