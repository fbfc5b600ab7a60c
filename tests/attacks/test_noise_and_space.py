"""Noise of fixed size, rotations and translations, and the momentum method."""

from __future__ import annotations

import foolbox
import pytest
import torch
import torchvision.transforms.functional as tv
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim, check_ball
from gauntlet.attacks.spatial import transformed
from gauntlet.registry import ATTACKS, GauntletError


def attack(name: str, model: nn.Module, data, epsilons, *, key: str = "k", **parameters):
    images, labels = data
    with Victim(model, memory_format=torch.contiguous_format) as victim:
        rng = PerImageRNG(key, torch.arange(len(images)))
        return ATTACKS.create(name, **parameters).run(victim, images, labels, epsilons, rng=rng)


def rate(result) -> float:
    return result.success.float().mean().item()


@pytest.mark.parametrize(
    ("name", "parameters", "original", "epsilon"),
    [
        ("gaussian-noise", {}, foolbox.attacks.L2AdditiveGaussianNoiseAttack(), 4.0),
        (
            "gaussian-noise",
            {"clipping_aware": True},
            foolbox.attacks.L2ClippingAwareAdditiveGaussianNoiseAttack(),
            3.0,
        ),
        ("gaussian-noise", {"repeats": 20}, foolbox.attacks.L2RepeatedAdditiveGaussianNoiseAttack(repeats=20), 2.0),
        ("uniform-noise", {"norm": "l2"}, foolbox.attacks.L2AdditiveUniformNoiseAttack(), 4.0),
        ("uniform-noise", {}, foolbox.attacks.LinfAdditiveUniformNoiseAttack(), 0.6),
    ],
)
def test_noise_succeeds_as_often_as_foolboxes(trained, correct, name, parameters, original, epsilon) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = foolbox.PyTorchModel(trained, (0, 1), device="cpu")
        theirs = original(model, *correct, epsilons=epsilon)[2].float().mean().item()
    (result,) = attack(name, trained, correct, [epsilon], **parameters)
    assert 0.1 < theirs < 0.95
    assert rate(result) == pytest.approx(theirs, abs=3 * (2 * theirs * (1 - theirs) / len(correct[0])) ** 0.5)


def test_noise_has_the_size_asked_for(trained, correct) -> None:
    inside = correct[0] / 4 + 0.375, correct[1]
    for name, norm in (("gaussian-noise", {}), ("uniform-noise", {"norm": "l2"})):
        (result,) = attack(name, trained, inside, [0.5], **norm)
        torch.testing.assert_close(result.norms, torch.full((300,), 0.5), rtol=1e-5, atol=0)
        (aware,) = attack(name, trained, correct, [1.0], clipping_aware=True, **norm)
        torch.testing.assert_close(aware.norms, torch.ones(300), rtol=1e-5, atol=0)
    (result,) = attack("uniform-noise", trained, inside, [0.2])
    assert 0.19 < result.norms.max() <= 0.2


def test_repeated_noise_only_adds_successes_and_spends_less_on_the_fooled(trained, correct) -> None:
    (once,) = attack("gaussian-noise", trained, correct, [2.0])
    (often,) = attack("gaussian-noise", trained, correct, [2.0], repeats=10)
    assert not (once.success & ~often.success).any()
    assert often.success.sum() > 2 * once.success.sum()
    assert 300 == once.forwards < often.forwards < 10 * 300


def test_another_key_draws_other_noise(trained, correct) -> None:
    one, same, other = (attack("gaussian-noise", trained, correct, [1.0], key=key)[0].images for key in "aab")
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("degrees", "right", "down"), [(20.0, 0.0, 0.0), (0.0, 2.0, -1.0), (-35.0, 1.0, 2.0)])
def test_rotations_and_translations_are_torchvisions(degrees, right, down) -> None:
    images = torch.rand(3, 2, 9, 7)
    ours = transformed(images, *(torch.full((3,), value) for value in (degrees, right, down)))
    theirs = tv.affine(
        images,
        angle=degrees,
        translate=[right, down],
        scale=1,
        shear=[0.0],
        interpolation=tv.InterpolationMode.BILINEAR,
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_spatial_goes_from_small_changes_to_large_ones(trained, correct) -> None:
    grid = ATTACKS.create("spatial").grid
    assert grid.shape == (7 * 5 * 5, 3)
    assert (grid[0] == 0).all()
    assert (grid[-1].abs() == torch.tensor([30.0, 3.0, 3.0])).all()
    small, large = (rate(attack("spatial", trained, correct, [1.0], max_translation=t)[0]) for t in (0.3, 2.0))
    assert 0 < small < large


def test_spatial_knows_no_budget(trained, correct) -> None:
    zero, one, other = attack("spatial", trained, correct, [0.0, 0.1, 5.0], max_translation=0.5)
    assert torch.equal(zero.images, correct[0])
    assert torch.equal(one.images, other.images)
    assert [result.epsilon for result in (zero, one, other)] == [0.0, 0.1, 5.0]


def test_spatial_that_does_not_move_fools_nobody(trained, correct) -> None:
    (result,) = attack("spatial", trained, correct, [1.0], max_rotation=0.0, max_translation=0.0)
    assert torch.equal(result.images, correct[0])
    assert not result.success.any()


def test_momentum_by_hand() -> None:
    """Two steps on a model whose gradient turns between them: the second follows the sum, not the new gradient."""

    class Bent(nn.Module):
        def forward(self, images):
            first, second = images.flatten(1).unbind(dim=1)
            return torch.stack([torch.zeros_like(first), 4 * (first - 0.5) + second * (first < 0.55)], dim=1)

    images = torch.full((1, 1, 1, 2), 0.5)
    (result,) = attack("mi-fgsm", Bent(), (images, torch.tensor([0])), [0.2], steps=2, stop_when_fooled=False)
    # Gradients of direction (4, 1), then (4, 0): the velocity keeps the second pixel moving; a plain step would not.
    torch.testing.assert_close(result.images.flatten(), torch.tensor([0.7, 0.7]))
    (plain,) = attack(
        "bim", Bent(), (images, torch.tensor([0])), [0.2], steps=2, rel_stepsize=0.5, stop_when_fooled=False
    )
    torch.testing.assert_close(plain.images.flatten(), torch.tensor([0.7, 0.6]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_momentum_without_memory_is_the_basic_method(trained, correct, norm) -> None:
    path = {"norm": norm, "steps": 5, "rel_stepsize": 0.2, "stop_when_fooled": False}
    (ours,) = attack("mi-fgsm", trained, correct, [0.1], decay=0.0, **path)
    (basic,) = attack("bim", trained, correct, [0.1], **path)
    torch.testing.assert_close(ours.images, basic.images, rtol=0, atol=1e-5)


def test_l1_pgd_beats_foolboxes(trained, correct) -> None:
    theirs = foolbox.attacks.L1PGD()(foolbox.PyTorchModel(trained, (0, 1), device="cpu"), *correct, epsilons=1.0)[2]
    (result,) = attack("pgd", trained, correct, [1.0], norm="l1")
    check_ball(result.images, correct[0], "l1", 1.0)
    assert rate(result) > theirs.float().mean().item() + 0.1


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("gaussian-noise", {"repeats": 0}, "repeats >= 1"),
        ("uniform-noise", {"clipping_aware": True}, "clipping_aware in l2 only"),
        ("spatial", {"rotations": 0}, "rotations, translations >= 1"),
        ("mi-fgsm", {"decay": -1.0}, "decay >= 0"),
        ("pgd", {"loss": "hinge"}, "must be one of xent, margin, dlr"),
    ],
)
def test_bad_parameters_are_one_sentence(name, parameters, message) -> None:
    with pytest.raises(GauntletError, match=message):
        ATTACKS.create(name, **parameters)
