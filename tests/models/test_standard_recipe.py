"""The recipe `standard`: it learns, repeats bit for bit, keeps a history and says when training cannot work."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from gauntlet.models.training.batch import as_images, evaluate
from gauntlet.registry import RECIPES, GauntletError, select_one

CPU = torch.device("cpu")


def recipe(**settings):
    return RECIPES.create("standard", **settings)


def trained(net: nn.Module, train, val, *, seed: int = 0, progress=None, **settings) -> list[dict[str, float]]:
    torch.manual_seed(5)
    settings.setdefault("batch_size", max(2, min(128, len(train))))
    return recipe(**settings).train(net, train, val, device=CPU, seed=seed, progress=progress)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


# -- learning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"optimizer": "adam", "lr": 0.01}, {"optimizer": "sgd", "lr": 0.1}])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_it_learns_digits(eights, make_net, settings: dict, schedule: str):
    net = make_net(norm=True)
    history = trained(net, eights("train"), eights("val"), epochs=6, batch_size=32, schedule=schedule, **settings)
    loss, accuracy = evaluate(net, eights("test"), CPU)
    assert accuracy > 0.9
    assert loss < 0.5
    assert history[-1]["loss"] < history[0]["loss"] / 2


def test_one_step_of_sgd_is_the_formula(eights, make_net):
    train = eights("train", 16)
    net = make_net()
    expected = copy.deepcopy(net)
    loss = nn.functional.cross_entropy(expected(train.pixels), train.labels)
    loss.backward()
    history = trained(net, train, eights("val"), epochs=1, batch_size=16, optimizer="sgd", lr=0.5, weight_decay=0.1)
    assert history[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    for after, before in zip(net.parameters(), expected.parameters(), strict=True):
        gradient = before.grad + 0.1 * before
        nesterov = before - 0.5 * (gradient + 0.9 * gradient)
        torch.testing.assert_close(after, nesterov.detach(), rtol=1e-5, atol=1e-6)


def test_adams_weight_decay_is_decoupled(eights, make_net):
    """With zero gradients (AdamW, not Adam with L2) weights shrink by lr * decay a step."""
    train, net = eights("train", 10), make_net()
    before = net[1].bias.detach().clone()
    frozen = nn.Sequential(nn.Flatten(), Scaled(net[1].bias))
    trained(frozen, train, eights("val", 4), epochs=1, batch_size=10, lr=0.1, weight_decay=0.5)
    torch.testing.assert_close(net[1].bias.detach(), 0.95 * before)


class Scaled(nn.Module):
    """Logits in which the parameter has no part, but for a gradient of zero."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :10] + 0 * self.parameter.sum()


# -- repeatability --------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_bit_for_bit(eights, make_net):
    nets = [make_net(norm=True, dropout=0.3) for _ in range(2)]
    histories = [trained(net, eights("train", 300), eights("val"), epochs=2, batch_size=32) for net in nets]
    assert same(*nets)
    for first, second in zip(*histories, strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_another_seed_visits_the_images_in_another_order(eights, make_net):
    nets = [make_net() for _ in range(2)]
    for seed, net in enumerate(nets):
        trained(net, eights("train", 300), eights("val"), epochs=1, batch_size=32, seed=seed)
    assert not same(*nets)


def test_bytes_and_floats_train_alike(eights, make_set, make_net):
    pixels = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 10
    nets = [make_net() for _ in range(2)]
    for net, images in zip(nets, (pixels, pixels.float() / 255), strict=True):
        trained(net, make_set(images, labels), eights("val"), epochs=2, batch_size=32)
    assert same(*nets)


def test_a_network_without_randomness_leaves_the_global_generator_alone(eights, make_net):
    net = make_net(norm=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(net, eights("train", 100), eights("val"), epochs=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_data_are_not_changed(eights, make_net):
    train = eights("train", 100)
    pixels, labels = train.pixels.clone(), train.labels.clone()
    trained(make_net(), train, eights("val"), epochs=1)
    assert torch.equal(train.pixels, pixels)
    assert torch.equal(train.labels, labels)


# -- history, schedule, progress ------------------------------------------------------------------------------


def test_the_history_has_one_record_an_epoch(eights, make_net):
    net, val = make_net(), eights("val")
    history = trained(net, eights("train", 300), val, epochs=3)
    assert [log["epoch"] for log in history] == [1, 2, 3]
    assert all(
        set(log) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"} for log in history
    )
    logits = net(val.pixels)
    assert history[-1]["val_loss"] == pytest.approx(nn.functional.cross_entropy(logits, val.labels).item(), rel=1e-5)
    assert history[-1]["val_accuracy"] == pytest.approx((logits.argmax(1) == val.labels).float().mean().item())
    assert all(type(value) in (int, float) for log in history for value in log.values())


def rates(eights, make_net, monkeypatch, **settings) -> list[float]:
    seen = []
    step = torch.optim.SGD.step

    def watch(self, *arguments, **named):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.SGD, "step", watch)
    trained(make_net(), eights("train", 40), eights("val", 5), optimizer="sgd", batch_size=10, epochs=2, **settings)
    return seen


def test_cosine_falls_from_the_peak_towards_zero_step_by_step(eights, make_net, monkeypatch):
    expected = [0.2 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates(eights, make_net, monkeypatch, lr=0.2) == pytest.approx(expected, rel=1e-12)


def test_constant_stays(eights, make_net, monkeypatch):
    assert rates(eights, make_net, monkeypatch, lr=0.2, schedule="constant") == [0.2] * 8


def test_the_default_rate_depends_on_the_optimizer():
    made = (recipe(), recipe(optimizer="sgd"), recipe(lr="2e-3"))
    assert [one._optimisation.lr for one in made] == [1e-3, 1e-2, 2e-3]


def test_progress_is_told_after_every_batch(eights, make_net):
    told = []
    trained(
        make_net(),
        eights("train", 40),
        eights("val", 5),
        epochs=2,
        batch_size=10,
        progress=lambda done, total, figures: told.append((done, total, figures["epoch"], float(figures["accuracy"]))),
    )
    assert [row[:3] for row in told] == [(step, 8, 1 + (step > 4)) for step in range(1, 9)]
    assert all(0 <= row[3] <= 1 for row in told)


def test_the_module_is_left_in_eval_mode(eights, make_net):
    net = make_net().train()
    trained(net, eights("train", 20), eights("val", 5), epochs=1)
    assert not net.training


def test_best_brings_back_the_epoch_with_the_lowest_validation_loss(eights, make_net, make_set):
    """With one validation label in five wrong, its loss falls while the net learns and rises once it is sure."""
    settings = {"epochs": 6, "batch_size": 16, "lr": 0.01, "schedule": "constant"}
    train, right = eights("train", 400), eights("val")
    val = make_set(right.pixels, torch.where(torch.arange(200) % 5 == 0, (right.labels + 1) % 10, right.labels), "val")
    best, last = make_net(), make_net()
    history = trained(best, train, val, keep="best", **settings)
    losses = [log["val_loss"] for log in history]
    assert 0 < losses.index(min(losses)) < 5, "the first or last epoch is the best one: this tests nothing"
    assert evaluate(best, val, CPU)[0] == pytest.approx(min(losses), rel=1e-6)
    trained(last, train, val, keep="last", **settings)
    assert evaluate(last, val, CPU)[0] == pytest.approx(losses[-1], rel=1e-6)


def test_best_does_not_end_early(eights, make_net):
    assert len(trained(make_net(), eights("train", 40), eights("val", 5), epochs=3, keep="best")) == 3


# -- edges ----------------------------------------------------------------------------------------------------


def batch_sizes(eights, net: nn.Module, count: int, size: int) -> list[int]:
    seen: list[int] = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])) if module.training else None)
    trained(net, eights("train", count), eights("val", 1), epochs=1, batch_size=size)
    return seen


def test_a_last_batch_of_one_is_dropped_because_batch_norm_needs_two(eights, make_net):
    assert batch_sizes(eights, make_net(norm=True), 33, 16) == [16, 16]
    assert batch_sizes(eights, make_net(norm=True), 34, 16) == [16, 16, 2]


def test_one_image_of_each_class_is_enough(eights, make_net):
    assert batch_sizes(eights, make_net(norm=True), 10, 10) == [10]


def test_frozen_parameters_stay(eights, make_net):
    net = make_net()
    net[1].requires_grad_(False)
    before = copy.deepcopy(net)
    trained(net, eights("train", 64), eights("val", 5), epochs=1, weight_decay=0.1)
    assert same(net[1], before[1])
    assert not same(net[-1], before[-1])


def test_without_validation_images_the_watched_figures_are_nan(eights, make_net):
    (log,) = trained(make_net(), eights("train", 64), eights("val", 0), epochs=1)
    assert math.isnan(log["val_loss"])
    assert math.isnan(log["val_accuracy"])


def test_evaluation_does_not_depend_on_the_batch_size(eights, make_net):
    net = make_net(norm=True).eval()
    results = [evaluate(net, eights("val"), CPU, batch_size=size) for size in (7, 64, 1024)]
    assert len({accuracy for _, accuracy in results}) == 1
    assert [loss for loss, _ in results] == pytest.approx([results[0][0]] * 3, rel=1e-6)


def test_images_are_floats_in_zero_to_one():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert as_images(pixels).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert pixels.flatten().tolist() == [0, 51, 255]


# -- what cannot work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"epochs": 0}, r"needs epochs >= 1 and batch_size >= 2, got epochs=0, batch_size=128"),
        ({"batch_size": 1}, r"got epochs=10, batch_size=1"),
        ({"lr": 0}, r"needs a positive lr, got 0"),
        ({"lr": -1}, r"needs a positive lr, got -1"),
        ({"lr": math.nan}, r"needs a positive lr, got nan"),
        ({"lr": math.inf}, r"needs a positive lr, got inf"),
        ({"momentum": 1}, r"needs a momentum in \[0, 1\) and a weight_decay >= 0, got momentum=1"),
        ({"weight_decay": -0.1}, r"weight_decay=-0.1"),
        ({"optimizer": "adamw"}, r"must be one of adam, sgd, got 'adamw'; did you mean 'adam'\?"),
        ({"keep": "first"}, r"'keep' must be one of last, best, got 'first'"),
        ({"epoch": 3}, r"has no parameter 'epoch'; did you mean 'epochs'\?"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, problem: str):
    with pytest.raises(GauntletError, match=problem):
        RECIPES.create("standard", **settings)


def test_a_suite_gives_the_settings_with_types_checked():
    chosen = select_one(RECIPES, {"standard": {"lr": "1e-2", "epochs": 3.0}})
    assert (chosen.parameters, chosen.label) == ({"lr": 0.01, "epochs": 3}, "standard lr=0.01 epochs=3")


def test_divergence_is_one_sentence(eights, make_net):
    with pytest.raises(GauntletError, match=r"^Training diverged: the loss is nan in epoch 1 of 3; lower the lr \(now"):
        trained(make_net(), eights("train", 200), eights("val"), epochs=3, batch_size=16, optimizer="sgd", lr=1e20)


def test_divergence_in_the_very_last_step_is_seen(eights, make_net):
    """No training loss shows it; the validation loss does."""
    with pytest.raises(GauntletError, match="Training diverged: the loss is nan in epoch 1 of 1"):
        trained(make_net(), eights("train", 16), eights("val"), epochs=1, batch_size=16, optimizer="sgd", lr=1e30)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(eights, make_net, count: int):
    with pytest.raises(GauntletError, match=f"Dataset 'eights' has {count} training images; training needs at least"):
        trained(make_net(), eights("train", count), eights("val"), epochs=1)


def test_images_of_unknown_class_are_refused(eights, make_net, make_set):
    train = make_set(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, -1, 2]))
    with pytest.raises(GauntletError, match="'eights' has training images of unknown class; training needs labels"):
        trained(make_net(), train, eights("val"), epochs=1)


def test_best_needs_validation_images(eights, make_net):
    with pytest.raises(GauntletError, match="has no validation images; recipe 'standard' needs some for `keep: best`"):
        trained(make_net(), eights("train"), eights("val", 0), epochs=1, keep="best")


def test_a_model_without_parameters_cannot_be_trained(eights):
    with pytest.raises(GauntletError, match="no parameters to train; give it `recipe: none`"):
        trained(nn.Flatten(), eights("train", 20), eights("val"), epochs=1)
