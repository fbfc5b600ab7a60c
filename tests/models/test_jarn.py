"""JARN: its networks, its loss and second-order gradients against formulas, its schedule, and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gauntlet.datasets import ImageSet
from gauntlet.models.training import Batch, Hook, LossOutput, Trainer
from gauntlet.models.training.jarn import JacobianGame, adversarial_term, discriminator_loss, jacobian
from gauntlet.models.training.jarn_networks import Adapter, Discriminator, standardise
from gauntlet.models.training.loop import Loop
from gauntlet.registry import MODELS, RECIPES, GauntletError

CPU = torch.device("cpu")
Sets = Callable[..., ImageSet]
Nets = Callable[..., nn.Sequential]


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def conv_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
    )


def at_start(net: nn.Module, data: ImageSet, **settings: Any) -> tuple[Loop, JacobianGame, Batch]:
    """A loop before its first step, its game and a batch; without noise, so that images are known."""
    settings = {"epsilon": 0.0, "start_ratio": 0.0, "disc_width": 4, "batch_size": 50, "epochs": 4, **settings}
    recipe = RECIPES.create("jarn", **settings)
    loop = Loop(net, data, {}, recipe._settings, recipe._optimisation, recipe.hooks(), device=CPU, seed=0)
    (game,) = loop.hooks
    return loop, game, Batch(data.images[:16], data.labels[:16], torch.arange(16))


# -- networks ---------------------------------------------------------------------------------------------------


def test_the_networks_have_the_parameters_that_were_published():
    assert count(Adapter(3)) == 12
    assert count(Discriminator((3, 32, 32), 16)) == 698_833
    assert count(Discriminator((3, 32, 32), 32)) == 2_790_305


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 96, 96), (1, 8, 8), (1, 2, 3)])
def test_the_discriminator_fits_images_of_any_size(shape: tuple[int, int, int]):
    net = Discriminator(shape, 2)
    assert net(torch.rand(3, *shape)).shape == (3,)
    assert not list(net.buffers())


def test_images_of_one_pixel_are_refused():
    with pytest.raises(GauntletError, match=r"needs images of at least 2x2 pixels, got 1x5"):
        Discriminator((1, 1, 5))


def test_standardised_images_have_mean_zero_and_length_one_whatever_their_scale():
    images = torch.rand(5, 3, 4, 4, dtype=torch.float64)
    found = standardise(images)
    torch.testing.assert_close(found.sum((1, 2, 3)), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.square().sum((1, 2, 3)), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(standardise(images * 1e-7 + 3), found, rtol=1e-6, atol=1e-6)
    flat = torch.full((1, 1, 2, 2), 0.25, requires_grad=True)
    standardise(flat).sum().backward()
    assert bool((standardise(flat) == 0).all())
    assert bool(flat.grad.isfinite().all())  # type: ignore[union-attr]


# -- the loss ---------------------------------------------------------------------------------------------------


def test_the_terms_are_those_of_the_paper():
    judged, real = torch.tensor([0.3, -2.0], dtype=torch.float64), torch.tensor([1.0, 4.0], dtype=torch.float64)
    d, r = [1 / (1 + math.exp(-z)) for z in judged.tolist()], [1 / (1 + math.exp(-z)) for z in real.tolist()]
    saturating = sum(math.log(1 - p) for p in d) / 2
    assert float(adversarial_term(judged, "saturating")) == pytest.approx(saturating)
    assert float(adversarial_term(judged, "non-saturating")) == pytest.approx(-sum(math.log(p) for p in d) / 2)
    assert float(discriminator_loss(real, judged)) == pytest.approx(-sum(map(math.log, r)) / 2 - saturating)


@pytest.mark.parametrize("adapter", ["none", "conv"])
def test_the_loss_is_the_sum_of_both_terms_image_by_image(adapter: str, eights: Sets, make_net: Nets):
    net = make_net()
    loop, game, batch = at_start(net, eights("train"), adv_weight=0.7, adapter=adapter)
    found = loop.objective()(batch)
    made = []
    for x, y in zip(batch.images, batch.targets, strict=True):  # slow: one image, one Jacobian
        (one,) = torch.autograd.functional.jacobian(lambda image, y=y: F.cross_entropy(net(image[None]), y[None]), (x,))
        centred = one - one.mean()
        made.append(game.adapter((centred / centred.norm())[None])[0])
    term = torch.log(1 - torch.sigmoid(game.discriminator(torch.stack(made)))).mean()
    torch.testing.assert_close(found.loss, F.cross_entropy(net(batch.images), batch.targets) + 0.7 * term)


def test_the_gradient_of_the_true_probability_differs_in_sign_alone(make_net: Nets):
    net = make_net().double()
    x, y = torch.rand(6, 1, 8, 8, dtype=torch.float64, requires_grad=True), torch.arange(6)
    ours = jacobian(F.cross_entropy(net(x), y, reduction="sum"), x)
    theirs = jacobian(net(x).softmax(1).gather(1, y[:, None]).sum(), x)
    torch.testing.assert_close(theirs, -net(x).softmax(1)[range(6), y].view(6, 1, 1, 1) * ours)
    torch.testing.assert_close(standardise(theirs), -standardise(ours))


def test_second_order_gradients_are_those_of_finite_differences(eights: Sets):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 10)).double()
    judge, adapter = Discriminator((1, 8, 8), 2).double(), Adapter(1).double()
    x, y = eights("train", 4).images.double(), eights("train", 4).labels

    def term() -> Tensor:
        images = x.clone().requires_grad_()
        made = adapter(standardise(jacobian(F.cross_entropy(net(images), y), images)))
        return adversarial_term(judge(made), "saturating")

    weights = [*net.parameters(), *adapter.parameters()]
    gradients = torch.autograd.grad(term(), weights, allow_unused=True)
    rng, step = torch.Generator().manual_seed(0), 1e-5
    for weight, gradient in zip(weights[:-3], gradients, strict=False):  # the convolution and the linear weight
        direction = torch.randn(weight.shape, generator=rng, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * step * direction)
            values.append(float(term().detach()))
            with torch.no_grad():
                weight.sub_(sign * step * direction)
        expected = (values[0] - values[1]) / (2 * step)
        assert gradient is not None
        assert abs(expected) > 1e-7
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-4)


# -- who is trained, and when -----------------------------------------------------------------------------------


def test_the_term_reaches_the_classifier_after_the_start_point_and_not_before(eights: Sets):
    for step, reached in ((0, False), (19, False), (60, True)):
        net = conv_net()
        loop, _, batch = at_start(net, eights("train"), start_ratio=0.75)
        loop.step = step
        both = torch.autograd.grad(loop.objective()(batch).loss, list(net.parameters()))
        clean = torch.autograd.grad(F.cross_entropy(net(batch.images), batch.targets), list(net.parameters()))
        differ = [float((a - b).norm()) for a, b in zip(both, clean, strict=True)]
        assert (max(differ) > 1e-4) == reached
        assert reached or max(differ) < 1e-6


@pytest.mark.parametrize("adapter", ["none", "conv"])
def test_a_weight_of_zero_is_plain_training_on_noisy_images_bit_for_bit(adapter: str, eights: Sets):
    class Noise(Hook):
        def objective(self, loop: Loop, batch: Batch, inner: Any) -> LossOutput:
            draws = torch.rand(batch.images.shape, generator=loop.rng)
            noisy = (batch.images + 0.1 * (2 * draws - 1)).clamp(0, 1)
            return inner(Batch(noisy, batch.targets, batch.indices))

    class Noisy(Trainer):
        def own_hooks(self) -> list[Hook]:
            return [Noise()]

    nets = conv_net(), conv_net()
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 50}
    game = RECIPES.create("jarn", adv_weight=0.0, epsilon=0.1, adapter=adapter, start_ratio=0.0, **settings)
    for recipe, net in zip((game, Noisy(**settings)), nets, strict=True):
        torch.manual_seed(5)
        recipe.train(net, eights("train", 300), eights("val"), device=CPU, seed=3)
    for first, second in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(first, second)


def test_the_discriminator_learns_every_k_updates_and_the_adapter_at_each(eights: Sets):
    loop, game, batch = at_start(conv_net(), eights("train"), disc_update_every=3)
    changed = []
    for _ in range(7):
        before = [[p.clone() for p in part.parameters()] for part in (game.discriminator, game.adapter)]
        loop._update(batch)
        after = game.discriminator.parameters(), game.adapter.parameters()
        changed.append(tuple(any(not torch.equal(*pair) for pair in zip(*both)) for both in zip(before, after)))  # noqa: B905
    assert changed == [(step % 3 == 0, True) for step in range(7)]
    assert all(parameter.grad is None or not parameter.requires_grad for parameter in game.discriminator.parameters())


def test_the_discriminator_learns_to_tell_images_from_jacobians(eights: Sets):
    loop, game, batch = at_start(conv_net(), eights("train"), disc_update_every=1, disc_lr=0.01, lr=1e-6)
    for _ in range(60):
        loop._update(batch)
    images = batch.images.clone().requires_grad_()
    made = game.adapter(standardise(jacobian(F.cross_entropy(loop.module(images), batch.targets), images)))
    assert float(game.discriminator(batch.images).detach().min()) > 0 > float(game.discriminator(made).detach().max())


@pytest.mark.parametrize("loss", ["saturating", "non-saturating"])
def test_the_classifier_learns_to_fool_a_discriminator_that_stands_still(loss: str, eights: Sets):
    judged = []
    for weight in (10.0, 1e-9):
        settings = {"disc_update_every": 1, "disc_lr": 1e-3, "lr": 1e-6, "adv_weight": weight, "loss": loss}
        loop, game, batch = at_start(conv_net(), eights("train"), **settings)
        for _ in range(10):  # batch-norm leaves little to move until the discriminator knows something
            loop._update(batch)
        game.update_every, loop.optimizer.param_groups[0]["lr"] = 10**6, 0.01
        judged.append([float(game._terms[-1]), *(loop._update(batch) and float(game._terms[-1]) for _ in range(30))])
    with_term, without = judged
    assert with_term[0] == pytest.approx(without[0], abs=1e-3)
    assert with_term[-1] < min(with_term[0], without[-1]) - 0.03


def test_images_start_in_the_ball_and_those_of_fgsm_are_harder(eights: Sets, make_net: Nets):
    found = {}
    for start in ("uniform", "fgsm"):
        loop, game, batch = at_start(make_net(), eights("train"), start=start, epsilon=0.1)
        moved = game._start(loop, batch)
        assert 0.09 < float((moved - batch.images).abs().max()) <= 0.1 + 1e-6
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
        found[start] = float(F.cross_entropy(loop.module(moved), batch.targets).detach())
    assert found["fgsm"] > found["uniform"]


def test_a_resumed_run_equals_an_unbroken_one(eights: Sets, tmp_path: Path):
    class Stop(Exception):
        pass

    def stop(done: int, total: int, figures: dict[str, Any]) -> None:
        if done == 21:  # in the fourth of five epochs of six batches, after the start point
            raise Stop

    recipe = RECIPES.create("jarn", epochs=5, batch_size=50, start_ratio=0.3, disc_update_every=4, disc_width=4)
    nets, file = [conv_net(), conv_net(), conv_net(9)], tmp_path / "epoch.safetensors"
    data = eights("train", 300), eights("val")
    torch.manual_seed(5)
    expected = recipe.train(nets[0], *data, device=CPU, seed=3)
    torch.manual_seed(5)
    with pytest.raises(Stop):
        recipe.train(nets[1], *data, device=CPU, seed=3, resume=file, progress=stop)
    history = recipe.train(nets[2], *data, device=CPU, seed=3, resume=file)
    for first, second in zip(nets[0].state_dict().values(), nets[2].state_dict().values(), strict=True):
        assert torch.equal(first, second)
    assert [log.get("adversarial") for log in history] == [log.get("adversarial") for log in expected]


def test_a_trained_network_has_the_layout_of_a_loaded_one(eights: Sets):
    net = conv_net()
    net.insert(1, nn.Conv2d(4, 4, 3, padding=1))
    net = net.to(memory_format=torch.channels_last)
    recipe = RECIPES.create("jarn", epochs=1, batch_size=50, start_ratio=0.0, disc_width=4)
    recipe.train(net, eights("train", 100), eights("val"), device=CPU, seed=3)
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert not net[1].weight.is_contiguous()


def test_gradients_of_gradients_are_in_float32_whatever_the_precision(eights: Sets):
    seen: list[tuple[int, torch.dtype]] = []
    net = conv_net()
    net[0].register_forward_hook(lambda *given: seen.append((len(seen), given[2].dtype)))
    loop, _, batch = at_start(net, eights("train"), start_ratio=0.5, precision="bfloat16")
    for step in (0, loop.total - 1):
        loop.step = step
        loop.objective()(batch)
    assert [dtype for _, dtype in seen] == [torch.bfloat16, torch.float32]


def test_jacobians_of_the_networks_of_the_reports_can_be_trained():
    for name, shape in (("cnn-small", (1, 28, 28)), ("m5", (1, 28, 28)), ("cnn-plus", (3, 32, 32))):
        net = MODELS.create(name, **({} if name == "cnn-small" else {"width": 0.125})).train()
        images = torch.rand(4, *shape, requires_grad=True)
        jacobian(F.cross_entropy(net(images), torch.arange(4)), images).square().sum().backward()
        assert all(float(part.weight.grad.abs().max()) > 0 for part in net.modules() if isinstance(part, nn.Conv2d))


# -- refusals ---------------------------------------------------------------------------------------------------

BAD = [
    ({"adv_weight": -1.0}, "needs an adv_weight >= 0, got -1.0"),
    ({"adv_weight": math.nan}, "needs an adv_weight >= 0, got nan"),
    ({"start_ratio": 1.0}, r"needs a start_ratio in \[0, 1\), got 1.0"),
    ({"start_ratio": -0.1}, r"needs a start_ratio in \[0, 1\), got -0.1"),
    ({"epsilon": -0.1}, "needs an epsilon >= 0, got -0.1"),
    ({"disc_update_every": 0}, "needs disc_update_every >= 1, got 0"),
    ({"disc_width": 0}, "needs a disc_width >= 1, got 0"),
    ({"disc_lr": 0.0}, "needs a positive disc_lr, got 0.0"),
    ({"loss": "saturated"}, "loss"),
    ({"adapter": "linear"}, "adapter"),
    ({"start": "pgd"}, "start"),
]


@pytest.mark.parametrize(("settings", "problem"), BAD)
def test_settings_that_cannot_work_are_one_sentence(settings: dict, problem: str):
    with pytest.raises(GauntletError, match=problem) as caught:
        RECIPES.create("jarn", **settings)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_changes_images_comes_before_it(eights: Sets, make_net: Nets):
    data = eights("train", 300), eights("val")
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 50}
    for names, fits in ((("fast-at", "jarn"), True), (("jarn", "fast-at"), False)):
        first, second = (RECIPES.create(name, **settings) for name in names)
        first.join([second])
        if fits:
            first.train(make_net(), *data, device=CPU, seed=0)
            continue
        with pytest.raises(GauntletError, match=r"'jarn' must be the last of a list .* of FastAdversarial\."):
            first.train(make_net(), *data, device=CPU, seed=0)


def test_a_network_that_detaches_its_images_is_refused(eights: Sets):
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach().flatten(1))

    loop, _, batch = at_start(Detached(64, 10), eights("train"))
    with pytest.raises(GauntletError, match=r"none reaches them; remove the detach\(\)"):
        loop.objective()(batch)


def test_the_profiles_keep_what_paper_and_report_say():
    profiles = RECIPES.get("jarn").meta["profiles"]
    assert profiles["r1"]["disc_lr"] == 0.0072
    assert (profiles["r1"]["epsilon"], profiles["r1"]["epochs"], profiles["r1"]["lr"]) == (0.031, 50, 1e-3)
    assert profiles["paper"]["epochs"] * (50_000 // profiles["paper"]["batch_size"]) == pytest.approx(160_000, rel=0.01)
    assert "far too high" in RECIPES.get("jarn").meta["warnings"]["r1"]
