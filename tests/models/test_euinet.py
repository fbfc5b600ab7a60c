"""EuiNet: its networks, each term of its losses by hand, who learns in which step, and its recipe's errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gauntlet.datasets import ImageSet
from gauntlet.models import Tap
from gauntlet.models.euinet import EuiNet
from gauntlet.models.gan import Discriminator, Generator
from gauntlet.models.training.batch import Batch
from gauntlet.models.training.euinet import EuiNetRecipe
from gauntlet.models.training.euinet_game import (
    Game,
    classification_loss,
    discrimination_loss,
    generator_loss,
    log_complement,
)
from gauntlet.models.training.loop import Loop
from gauntlet.registry import MODELS, RECIPES, GauntletError

MakeSet = Callable[..., ImageSet]
TINY = {"width": 0.05, "latent": 4, "classes": 3}
PREDICTING, PLAYING = ("classifier", "discriminator"), ("gan_discriminator", "generator")


def tiny(**changes) -> EuiNet:
    torch.manual_seed(0)
    return MODELS.create("euinet", **{**TINY, **changes})


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def images(n: int, seed: int = 0, shape: tuple[int, int, int] = (1, 28, 28)) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sets(make_set: MakeSet) -> tuple[ImageSet, ImageSet]:
    return tuple(
        make_set(images(n, n), torch.arange(n) % 3, split, classes=3) for n, split in ((48, "train"), (9, "val"))
    )


# -- the networks ----------------------------------------------------------------------------------------------


def test_parameter_counts_are_as_documented():
    net = MODELS.create("euinet")
    parts = {name: count(getattr(net, name)) for name in (*PREDICTING, *PLAYING)}
    assert parts == {
        "classifier": 77_689,
        "discriminator": 138_625,
        "gan_discriminator": 138_625,
        "generator": 1_781_504,
    }
    assert count(net) == 2_136_443
    assert count(MODELS.create("residual-small", classes=9, blocks=3)) == 272_121
    assert count(MODELS.create("residual-small")) == 77_754


def test_no_convolution_has_a_bias():
    convolutions = [layer for layer in tiny().modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
    assert len(convolutions) == 9 + 2 + 2 + 3
    assert all(layer.bias is None for layer in convolutions)


def test_the_gan_starts_as_dcgan_does():
    torch.manual_seed(0)
    for net in (Generator((1, 28, 28)), Discriminator((1, 28, 28))):
        for layer in net.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                # Ten standard errors of a standard deviation.
                assert layer.weight.std().item() == pytest.approx(0.02, rel=10 / math.sqrt(2 * layer.weight.numel()))
            elif isinstance(layer, nn.BatchNorm2d):
                assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
                assert layer.bias.abs().max() == 0


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_part_fits_the_images(shape: tuple[int, int, int]):
    net = tiny(shape=shape).eval()
    outputs = net.forward_outputs(images(5, shape=shape))
    assert outputs["logits"].shape == (5, 3)
    assert outputs["h"].shape == (5,)
    assert bool(((outputs["h"] > 0) & (outputs["h"] < 1)).all())
    made = net.generate(5, torch.Generator().manual_seed(0))
    assert made.shape == (5, *shape)


def test_the_generator_gives_minus_one_to_one_and_the_model_zero_to_one():
    net = tiny()
    raw = net.generator(100 * torch.randn(64, 4))
    assert -1 <= raw.min() < -0.05
    assert 0.05 < raw.max() <= 1
    net.eval()
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = net.generator(z) / 2 + 0.5
    torch.testing.assert_close(net.generate(6, torch.Generator().manual_seed(3)), expected)
    assert bool(((expected >= 0) & (expected <= 1)).all())


def test_logits_and_head_are_those_of_the_classifier():
    net = tiny().eval()
    tap = Tap(net, images(4))
    assert not tap.why_no_head
    torch.testing.assert_close(tap(images(4))["logits"], net(images(4)))
    with torch.no_grad():
        net.discriminator.fc.bias += 5  # changes h alone
    torch.testing.assert_close(tap(images(4))["logits"], net(images(4)))


def test_the_generator_takes_no_part_in_a_forward_pass():
    net = tiny().eval()
    for part in PLAYING:
        getattr(net, part).register_forward_hook(lambda *_: pytest.fail("it ran"))
    net(images(2))
    net.forward_outputs(images(2))


@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 28, 32), (3, 64, 64)])
def test_another_size_is_one_sentence(shape: tuple[int, int, int]):
    size = f"{shape[1]}x{shape[2]}"
    with pytest.raises(GauntletError, match=rf"^The generator makes 28x28 or 32x32 images and these are {size}: .*\.$"):
        tiny(shape=shape)


@pytest.mark.parametrize("parameters", [{"width": 0.0}, {"blocks": 0}, {"latent": 0}])
def test_a_size_that_does_not_exist_is_one_sentence(parameters: dict):
    with pytest.raises(GauntletError, match=r"needs a .*, got|needs at least one"):
        tiny(**parameters)


# -- the losses -----------------------------------------------------------------------------------------------


def test_the_loss_of_two_examples_is_the_one_worked_out_by_hand():
    # p = (1/8, 1/4, 5/8), class 2:  -(log 5/8 + log 7/8 + log 3/4) = 0.891217
    # p = (1/2, 1/4, 1/4), class 1:  -(log 1/4 + log 1/2 + log 3/4) = 2.367124;  mean 1.629170
    scores = torch.tensor([[1.0, 2.0, 5.0], [2.0, 1.0, 1.0]]).log()
    found = classification_loss(scores, torch.tensor([2, 1]), "bce")
    assert float(found) == pytest.approx(1.629170, abs=1e-6)
    # real h = 0.2, 0.5 (wanted 0):  -(log 0.8 + log 0.5) / 2 = 0.458145
    # fake h = 0.9, 0.6 (wanted 1):  -(log 0.9 + log 0.6) / 2 = 0.308093
    found = found + discrimination_loss(torch.tensor([0.2, 0.5]).logit(), torch.tensor([0.9, 0.6]).logit())
    assert float(found) == pytest.approx(1.629170 + 0.458145 + 0.308093, abs=2e-6)
    # cross entropy alone:  -(log 5/8 + log 1/4) / 2 = 0.928149
    assert float(classification_loss(scores, torch.tensor([2, 1]), "ce")) == pytest.approx(0.928149, abs=1e-6)


def test_every_term_pulls_its_own_way():
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    discrimination_loss(real, fake).backward()
    assert bool((real.grad > 0).all())  # down the gradient h of real images falls to 0
    assert bool((fake.grad < 0).all())
    scores = torch.zeros(2, 3, requires_grad=True)
    classification_loss(scores, torch.tensor([1, 2]), "bce").backward()
    assert torch.equal(scores.grad < 0, F.one_hot(torch.tensor([1, 2]), 3).bool())


def test_the_complement_of_a_certain_class_does_not_round_away():
    scores = torch.tensor([[50.0, 0.0, 0.0]], requires_grad=True)
    found = log_complement(scores)
    assert float(found[0, 0].detach()) == pytest.approx(math.log(2) - 50, rel=1e-6)
    found.sum().backward()
    assert bool(scores.grad.isfinite().all())
    random = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_complement(random), (1 - random.softmax(1)).log())


def test_soft_targets_share_the_loss():
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    one, other = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2])
    mixed = 0.3 * F.one_hot(one, 3) + 0.7 * F.one_hot(other, 3)
    expected = 0.3 * classification_loss(scores, one, "bce") + 0.7 * classification_loss(scores, other, "bce")
    torch.testing.assert_close(classification_loss(scores, mixed, "bce"), expected)


def test_the_generators_losses_are_those_of_the_papers():
    net = Discriminator((1, 28, 28), 0.05).eval()
    real, fake = 2 * images(6) - 1, 2 * images(6, 1) - 1
    judged = net(fake).sigmoid()
    torch.testing.assert_close(generator_loss(net, real, fake, "non-saturating"), -judged.log().mean())
    torch.testing.assert_close(generator_loss(net, real, fake, "saturating"), (1 - judged).log().mean())
    apart = net.features(real).mean(0) - net.features(fake).mean(0)
    torch.testing.assert_close(generator_loss(net, real, fake, "feature-matching"), apart.norm() ** 2)


# -- who learns in which step ---------------------------------------------------------------------------------


def game_of(net: EuiNet, train: ImageSet, **settings) -> tuple[Loop, Game, Batch]:
    recipe = EuiNetRecipe(batch_size=16, **settings)
    (game,) = recipe.own_hooks()
    loop = Loop(net, train, {}, recipe._settings, recipe._optimisation, [game], device=torch.device("cpu"), seed=0)
    game.start(loop)
    return loop, game, Batch(train.images[:16], train.labels[:16], torch.arange(16))


def weights(net: EuiNet, parts: tuple[str, ...]) -> list[torch.Tensor]:
    return [parameter.detach().clone() for part in parts for parameter in getattr(net, part).parameters()]


def test_the_game_moves_generator_and_its_discriminator_and_nobody_else(sets):
    net = tiny().train()
    loop, game, batch = game_of(net, sets[0])
    before = {part: weights(net, (part,)) for part in (*PREDICTING, *PLAYING)}
    fakes = game.play(loop, net, 2 * batch.images - 1)
    assert not fakes.requires_grad
    for part, old in before.items():
        moved = any(not torch.equal(a, b) for a, b in zip(old, weights(net, (part,)), strict=True))
        assert moved == (part in PLAYING), part


def test_the_objective_sends_no_gradient_into_the_generator_and_equals_the_direct_formula(sets):
    net = tiny().train()
    loop, game, batch = game_of(net, sets[0], temperature=0.5, temperature_convention="divide")
    fakes: list[torch.Tensor] = []
    play = game.play
    game.play = lambda *inputs: fakes.append(play(*inputs)) or fakes[0]
    found = loop.objective()(batch)
    loop.optimizer.zero_grad(set_to_none=True)
    found.loss.backward()
    assert all(parameter.grad is None for part in PLAYING for parameter in getattr(net, part).parameters())
    assert all(bool((parameter.grad != 0).any()) for parameter in net.discriminator.parameters() if parameter.ndim > 1)
    assert bool((net.classifier.fc.weight.grad != 0).any())
    p = (net(batch.images) / 0.5).softmax(1)
    h = net.discriminator(torch.cat([2 * batch.images - 1, fakes[0]])).sigmoid()
    wanted = torch.cat([torch.zeros(16), torch.ones(16)])
    direct = F.binary_cross_entropy(p, F.one_hot(batch.targets, 3).float(), reduction="sum") / 16
    direct = direct + F.binary_cross_entropy(h, wanted, reduction="sum") / 16
    torch.testing.assert_close(found.loss, direct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("convention", "factor"), [("test-multiply", 1.0), ("multiply", 1e-3), ("divide", 1e3)])
def test_the_temperature_enters_training_as_its_convention_says(convention: str, factor: float):
    assert EuiNetRecipe(temperature_convention=convention).factor == pytest.approx(factor)


def test_adam_has_the_betas_of_the_report(sets):
    loop, game, _ = game_of(tiny(), sets[0])
    assert loop.optimizer.defaults["betas"] == (0.5, 0.599)
    assert {made.defaults["betas"] for made in game._optimizers.values()} == {(0.35, 0.699)}
    assert (loop.optimizer.defaults["lr"], game.lr) == (2e-4, 1e-4)


# -- whole trainings ------------------------------------------------------------------------------------------


def test_a_resumed_training_equals_an_unbroken_one(sets, tmp_path: Path):
    class Stop(Exception):
        pass

    def stop(done: int, total: int, figures: dict) -> None:
        if done == 8:
            raise Stop

    def train(net: EuiNet, **options) -> list[dict]:
        made = RECIPES.create("euinet", epochs=4, batch_size=16)
        return made.train(net, *sets, device=torch.device("cpu"), seed=1, **options)

    unbroken, broken, fresh = tiny(), tiny(), tiny()
    expected = train(unbroken)
    file = tmp_path / "progress"
    with pytest.raises(Stop):
        train(broken, resume=file, progress=stop)
    history = train(fresh, resume=file)
    for (name, value), other in zip(unbroken.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    dropped = {"seconds"}
    assert [{k: v for k, v in log.items() if k not in dropped} for log in history] == [
        {k: v for k, v in log.items() if k not in dropped} for log in expected
    ]
    assert {"h_real", "h_fake", "generator_loss", "gan_discriminator_loss", "val_h"} <= history[0].keys()


def test_a_temperature_of_zero_is_one_sentence():
    with pytest.raises(GauntletError, match=r"^recipe 'euinet' needs a temperature above 0, got 0\.0\.$"):
        RECIPES.create("euinet", temperature=0)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"betas": [0.5, 1.0]}, "two betas in"),
        ({"gan_lr": 0}, "a positive gan_lr"),
        ({"gan_betas": [-1, 0]}, "gan_betas"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(settings: dict, problem: str):
    with pytest.raises(GauntletError, match=problem):
        RECIPES.create("euinet", **settings)


def test_another_model_or_a_generator_of_another_size_is_one_sentence(sets, make_set: MakeSet):
    recipe = EuiNetRecipe(batch_size=16)
    where = {"device": torch.device("cpu"), "seed": 0}
    with pytest.raises(GauntletError, match=r"trains the model 'euinet', got a ResidualSmall"):
        recipe.train(MODELS.create("residual-small"), *sets, **where)
    with pytest.raises(
        GauntletError, match=r"^The generator makes 1x32x32 images and those of dataset .* are 1x28x28: "
    ):
        recipe.train(tiny(shape=(1, 32, 32)), *sets, **where)


def test_the_reports_own_profile_comes_with_a_warning():
    meta = RECIPES.get("euinet").meta
    assert RECIPES.create("euinet", **meta["profiles"]["r3"]).factor == pytest.approx(1e-3)
    assert "hardly learns" in meta["warnings"]["r3"]
