"""Every recipe: its loss against formulas, its schedule, its profiles, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gauntlet.datasets import ImageSet
from gauntlet.models.training import Batch, LossOutput, Trainer
from gauntlet.models.training.adversarial import Adversarial, Trades
from gauntlet.models.training.loop import Loop
from gauntlet.models.training.outliers import EnergyMargins, UniformOnOutliers
from gauntlet.models.training.single_step import FastAdversarial, FGSMAugmentation, input_gradient
from gauntlet.models.training.standard import NormalisedLogits
from gauntlet.registry import ATTACKS, RECIPES, GauntletError

CPU = torch.device("cpu")
NAMES = [entry.name for entry in RECIPES if not entry.needs and entry.has("epochs")]  # of classifiers, in the loop
Sets = Callable[..., ImageSet]
Nets = Callable[..., nn.Sequential]


def make(name: str, eights: Sets, **settings: Any) -> Trainer:
    if name in ("outlier-exposure", "energy-bounded"):
        settings.setdefault("outliers", [noise_set()])
    return RECIPES.create(name, **settings)


def noise_set(shape: tuple[int, int, int] = (1, 8, 8), count: int = 100, value: float | None = None) -> ImageSet:
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(2))
    pixels = pixels if value is None else torch.full_like(pixels, value)
    return ImageSet(pixels, torch.full((count,), -1), (), torch.arange(count), "noise", "train")


def loop_of(recipe: Trainer, net: nn.Module, data: ImageSet) -> Loop:
    loop = Loop(
        net, data, {}, recipe._settings, recipe._optimisation, recipe.hooks(), device=CPU, seed=0
    )  # fmt: skip
    for hook in loop.hooks:
        hook.start(loop)
    return loop


def batch_of(data: ImageSet, count: int = 32) -> Batch:
    return Batch(data.images[:count], data.labels[:count], torch.arange(count))


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_learns(name: str, eights: Sets, make_net: Nets):
    settings = {"epsilon": 0.05} if RECIPES.get(name).has("epsilon") else {}
    net = make_net()
    recipe = make(name, eights, epochs=6, batch_size=50, lr=0.01, **settings)
    history = recipe.train(net, eights("train"), eights("val"), device=CPU, seed=0)
    assert history[-1]["val_accuracy"] > 0.85
    assert not net.training


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_takes_mixed_targets(name: str, eights: Sets, make_net: Nets):
    recipe = make(name, eights, epochs=1, batch_size=50, augment=["mixup"])
    (log,) = recipe.train(make_net(norm=True), eights("train", 200), eights("val"), device=CPU, seed=0)
    assert math.isfinite(log["loss"])


# -- outliers -------------------------------------------------------------------------------------------------


def test_the_outlier_term_is_the_cross_entropy_to_uniform():
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    term = UniformOnOutliers([noise_set()], 1, "r", 0.5).penalty(torch.zeros(1, 10), logits)
    uniform = torch.full((20, 10), 0.1)
    torch.testing.assert_close(term, 0.5 * F.cross_entropy(logits, uniform))
    assert term / 0.5 >= math.log(10)
    flat = torch.full((4, 10), 3.0, requires_grad=True)
    UniformOnOutliers([noise_set()], 1, "r", 1.0).penalty(flat, flat).backward()
    torch.testing.assert_close(flat.grad, torch.zeros(4, 10), rtol=0, atol=1e-7)


def test_the_energy_term_is_zero_beyond_both_margins_and_a_square_within():
    hook = EnergyMargins([noise_set()], 1, "r", 2.0, inside=-5.0, outside=-1.0)
    far_in, far_out = torch.tensor([[9.0, 0.0]]), torch.tensor([[-9.0, -9.0]])
    assert hook.penalty(far_in, far_out) == 0
    energy_in, energy_out = -torch.tensor([[1.0, 1.0]]).logsumexp(1), -torch.tensor([[3.0, 0.0]]).logsumexp(1)
    expected = 2.0 * ((energy_in + 5).square() + (-1 - energy_out).square())
    found = hook.penalty(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 0.0]]))
    torch.testing.assert_close(found, expected[0])


def test_one_pass_over_images_and_outliers_and_coefficient_zero_is_plain_training(eights: Sets, make_net: Nets):
    seen: list[int] = []
    net = make_net()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    recipe = make("outlier-exposure", eights, coefficient=0.0, ratio=1.5)
    loop = loop_of(recipe, net, eights("train"))
    batch = loop.hooks[0].transform(loop, batch_of(eights("train")))
    result = loop.objective()(batch)
    assert seen == [32 + 48]
    torch.testing.assert_close(result.loss, F.cross_entropy(net(batch.images), batch.targets))


def test_all_outlier_sets_count_alike_whatever_their_sizes(eights: Sets, make_net: Nets):
    sets = [noise_set(count=10, value=0.1), noise_set(count=2000, value=0.9)]
    loop = loop_of(make("outlier-exposure", eights, outliers=sets, ratio=10.0), make_net(), eights("train"))
    drawn = loop.hooks[0].transform(loop, batch_of(eights("train"), 200)).outliers
    assert drawn is not None
    assert 0.45 < float((drawn[:, 0, 0, 0] < 0.5).float().mean()) < 0.55


def test_outliers_of_another_shape_are_refused(eights: Sets, make_net: Nets):
    recipe = RECIPES.create("outlier-exposure", outliers=[noise_set((3, 8, 8))])
    with pytest.raises(GauntletError, match=r"'noise' are 3x8x8, but the training images 'eights' are 1x8x8; give the"):
        recipe.train(make_net(), eights("train"), eights("val"), device=CPU, seed=0)


def test_exposed_networks_are_less_sure_of_outliers(eights: Sets, make_net: Nets):
    def confidence(name: str) -> float:
        net = make_net()
        make(name, eights, epochs=5, batch_size=50, lr=0.01).train(
            net, eights("train"), eights("val"), device=CPU, seed=0
        )
        return net(noise_set().images).softmax(1).amax(1).mean().item()

    assert confidence("outlier-exposure") < 0.2 < confidence("standard") - 0.2


# -- logit normalisation --------------------------------------------------------------------------------------


def test_logitnorm_does_not_see_the_length_of_logits():
    logits, labels = torch.randn(8, 10), torch.arange(8)
    criterion = NormalisedLogits(0.04).criterion
    torch.testing.assert_close(criterion(logits, labels), criterion(7 * logits, labels))
    by_hand = F.cross_entropy(F.normalize(logits, dim=1) / 0.04, labels)
    torch.testing.assert_close(criterion(logits, labels), by_hand)


# -- single-step examples -------------------------------------------------------------------------------------


def test_the_input_gradient_is_that_of_eval_mode_and_leaves_no_trace(eights: Sets, make_net: Nets):
    net = make_net(norm=True, dropout=0.5).train()
    loop, batch = SimpleNamespace(module=net, logits=net), batch_of(eights("train"))
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    found = input_gradient(loop, batch.images, batch.targets)
    assert all(part.training for part in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())
    x = batch.images.clone().requires_grad_()
    F.cross_entropy(net.eval()(x), batch.targets, reduction="sum").backward()
    torch.testing.assert_close(found, x.grad)


def test_fgsm_examples_lie_on_the_ball_and_are_harder(eights: Sets, make_net: Nets):
    net = make_net()
    loop = loop_of(make("fgsm-augmentation", eights, epsilon=0.1), net, eights("train"))
    batch = batch_of(eights("train"))
    clean, adversarial = loop._parts(batch)
    assert clean is batch
    assert (adversarial.images - batch.images).abs().max() == pytest.approx(0.1, abs=1e-6)
    assert F.cross_entropy(net(adversarial.images), batch.targets) > F.cross_entropy(net(batch.images), batch.targets)


def test_a_drawn_epsilon_stays_in_its_interval(eights: Sets, make_net: Nets):
    loop = loop_of(make("fgsm-augmentation", eights, interval=[0.02, 0.04]), make_net(), eights("train"))
    batch = batch_of(eights("train"))
    radii = [float((list(loop._parts(batch))[1].images - batch.images).abs().max()) for _ in range(30)]
    assert 0.02 <= min(radii) < 0.025
    assert 0.035 < max(radii) <= 0.04 + 1e-6


def test_the_joint_mode_is_the_mean_of_both_losses(eights: Sets, make_net: Nets):
    net = make_net()
    hook = FGSMAugmentation(0.1, (0, 0), "joint")
    loop, batch = SimpleNamespace(module=net, logits=net), batch_of(eights("train"))
    losses: list[float] = []

    def inner(given: Batch) -> LossOutput:
        logits = net(given.images)
        losses.append(float(F.cross_entropy(logits, given.targets).detach()))
        return LossOutput(F.cross_entropy(logits, given.targets), logits)

    found = hook.objective(loop, batch, inner)
    assert float(found.loss.detach()) == pytest.approx(sum(losses) / 2)
    assert len(list(hook.expand(loop, batch))) == 1


def test_fast_at_stays_in_the_ball_whatever_its_stride(eights: Sets, make_net: Nets):
    loop = loop_of(make("standard", eights), make_net(), eights("train"))
    batch, seen = batch_of(eights("train")), []
    FastAdversarial(0.1, 5.0).objective(loop, batch, lambda given: seen.append(given.images))
    assert (seen[0] - batch.images).abs().max() == pytest.approx(0.1, abs=1e-6)


# -- adversarial training -------------------------------------------------------------------------------------


def adversarial(**settings: Any) -> Adversarial:
    attack = ATTACKS.create("pgd", steps=3, stop_when_fooled=False)
    return Adversarial(attack, settings.pop("epsilon", 0.1), settings.pop("ramp", 0.0), **settings)


def test_the_radius_rises_with_the_ramp_and_the_weight_with_the_schedule():
    hook = adversarial(epsilon=0.3, ramp=2.0, weights=[0.1, 0.5, 0.5], additive=False)
    at = [SimpleNamespace(epoch=step // 5, step=step, steps_per_epoch=5) for step in range(25)]
    assert [hook.radius(loop) for loop in at[:10]] == pytest.approx([0.3 * (step + 1) / 10 for step in range(10)])
    assert {hook.radius(loop) for loop in at[10:]} == {0.3}
    assert [hook.weight(loop) for loop in at[::5]] == [0.1, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(("additive", "share"), [(False, 0.7), (True, 1.0)])
def test_clean_and_adversarial_losses_are_weighted(additive: bool, share: float, eights: Sets, make_net: Nets):
    loop, batch = loop_of(make("standard", eights), make_net(), eights("train")), batch_of(eights("train"))
    losses = iter([2.0, 10.0])
    found = adversarial(weights=[0.3], additive=additive).objective(
        loop, batch, lambda given: LossOutput(torch.tensor(next(losses)), torch.zeros(1))
    )
    assert float(found.loss) == pytest.approx(share * 2.0 + 0.3 * 10.0)


def test_examples_are_in_the_ball_and_the_network_is_as_it_was(eights: Sets, make_net: Nets):
    net = make_net(norm=True, dropout=0.5)
    loop, batch = loop_of(make("standard", eights), net.train(), eights("train")), batch_of(eights("train"))
    seen: list[Batch] = []
    adversarial(weights=[1.0], additive=False).objective(loop, batch, lambda given: seen.append(given))
    assert len(seen) == 1
    assert 0.09 < (seen[0].images - batch.images).abs().max() <= 0.1 + 1e-6
    assert all(part.training for part in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_weight_of_zero_makes_no_examples(eights: Sets, make_net: Nets):
    hook = adversarial(weights=[0.0], additive=False)
    hook.attack = None  # would raise if it were called
    loop, batch = loop_of(make("standard", eights), make_net(), eights("train")), batch_of(eights("train"))
    assert hook.objective(loop, batch, lambda given: given) is batch


def test_trades_is_the_clean_loss_and_beta_times_the_divergence(eights: Sets, make_net: Nets):
    net = make_net()
    loop, batch = loop_of(make("standard", eights), net, eights("train")), batch_of(eights("train"))
    hook = Trades(ATTACKS.create("pgd", steps=5, stop_when_fooled=False), 0.1, 0.0, [1.0], 6.0)
    made: list[torch.Tensor] = []
    original = hook.examples
    hook.examples = lambda *given: made.append(original(*given)) or made[-1]  # type: ignore[method-assign]
    found = hook.objective(loop, batch, loop._network)
    clean, other = net(batch.images).log_softmax(1), net(made[0]).log_softmax(1)
    divergence = (clean.exp() * (clean - other)).sum(1).mean()
    torch.testing.assert_close(found.loss, F.cross_entropy(clean, batch.targets) + 6 * divergence)
    random = (batch.images + 0.1 * (2 * torch.rand_like(batch.images) - 1)).clamp(0, 1)
    by_chance = net(random).log_softmax(1)
    assert divergence > 2 * (clean.exp() * (clean - by_chance)).sum(1).mean()


def test_the_inner_attack_of_trades_goes_on_whatever_the_prediction(make_net: Nets, eights: Sets):
    from gauntlet.models.training.adversarial import _Divergence

    images = eights("train").images[:6].float()
    with _Divergence(make_net()) as victim:
        assert victim.inspect(images) is None
        assert not victim.fooled(images, torch.arange(6)).any()


def test_adversarially_trained_networks_resist(eights: Sets, make_net: Nets):
    from gauntlet.attacks import PerImageRNG, Victim

    def robust(recipe: Trainer) -> float:
        net, test = make_net(), eights("test", 200)
        recipe.train(net, eights("train"), eights("val"), device=CPU, seed=0)
        with Victim(net) as victim:
            # A third of the way: single-step training is known not to resist an attack that goes all of it.
            (found,) = ATTACKS.create("pgd", steps=10, rel_stepsize=1 / 30).run(
                victim, test.images, test.labels, [0.3], rng=PerImageRNG("t", test.indices)
            )
        return 1 - float(found.success.float().mean())

    settings: dict[str, Any] = {"epochs": 10, "batch_size": 50, "lr": 0.01}
    plain = robust(make("standard", eights, **settings))
    for name, extra in {"adversarial": {}, "fast-at": {"stride": 1.0}, "fgsm-augmentation": {}}.items():
        assert robust(make(name, eights, epsilon=0.3, **extra, **settings)) > plain + 0.05


BAD = [
    (
        "adversarial",
        {"weights": [[1, 0.1], [3, 0.5]]},
        "weights cover 4 epochs but it has epochs=20; make the two equal",
    ),
    ("adversarial", {"weights": [[10, 1.5]]}, r"needs weights as \[epochs >= 1, weight in \[0, 1\]\], got \[10, 1.5\]"),
    (
        "adversarial",
        {"attack": "foolbox/l2/deepfool"},
        "needs a gradient attack with a fixed budget, .* 'foolbox/l2/deepfool'",
    ),
    ("adversarial", {"attack": "pdg"}, "did you mean 'pgd'"),
    ("adversarial", {"ramp": 30.0}, "needs a ramp from 0 to its 20 epochs"),
    ("adversarial", {"trades": -1.0}, "needs trades >= 0"),
    ("outlier-exposure", {"outliers": []}, "needs at least one outlier set"),
    ("outlier-exposure", {"ratio": 0.0}, "needs a ratio above 0"),
    ("energy-bounded", {"inside": -1.0, "outside": -5.0}, "needs inside < outside"),
    ("logitnorm", {"temperature": 0.0}, "needs a positive temperature"),
    ("fgsm-augmentation", {"interval": [0.2, 0.1]}, "needs an interval"),
    ("fast-at", {"stride": 0.0}, "needs epsilon >= 0 and stride > 0"),
]


@pytest.mark.parametrize(("name", "settings", "problem"), BAD)
def test_what_cannot_work_is_one_sentence(name: str, settings: dict, problem: str):
    with pytest.raises(GauntletError, match=problem):
        RECIPES.create(name, **settings)


PROFILES = [(entry.name, profile) for entry in RECIPES for profile in entry.meta.get("profiles", {})]


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_every_profile_is_accepted_by_its_recipe(name: str, profile: str):
    entry = RECIPES.get(name)
    assert isinstance(entry.factory(**entry.check(entry.meta["profiles"][profile])), Trainer)


def test_profiles_keep_the_reports_literal_values():
    adversarial_r2 = RECIPES.get("adversarial").meta["profiles"]["r2"]
    assert adversarial_r2["weights"] == [[1, 0.1], [3, 0.5], [3, 0.75]]
    assert adversarial_r2["attack"]["pgd"]["steps"] == 40
    assert RECIPES.get("adversarial").meta["profiles"]["paper"]["steps"] == 100_000
    assert RECIPES.get("adversarial").meta["profiles"]["r4"]["weights"] == [[20, 0.5]]
    assert RECIPES.get("outlier-exposure").meta["profiles"]["r2"]["outliers"] == ["fashion-mnist"]
    assert RECIPES.get("fgsm-augmentation").meta["profiles"]["r1"]["lr"] == 1e-4
    plain = RECIPES.get("standard").meta["profiles"]
    assert (plain["r1"]["epochs"], plain["r1-plus"]["epochs"]) == (200, 50)
    assert (plain["an-et-al"]["ema"], plain["an-et-al"]["decay"], plain["an-et-al"]["batch_size"]) == (0.999, 0.98, 120)
