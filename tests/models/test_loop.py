"""The training loop: schedules, averaging, stopping, resuming, and what it refuses."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gauntlet.datasets import ImageSet
from gauntlet.models.training import Batch, Hook, LossOutput, Trainer
from gauntlet.models.training.optim import Optimisation
from gauntlet.registry import RECIPES, GauntletError

CPU = torch.device("cpu")
Sets = Callable[..., ImageSet]
Nets = Callable[..., nn.Sequential]


def train(recipe: Trainer, net: nn.Module, eights: Sets, **options: Any) -> list[dict[str, float]]:
    torch.manual_seed(5)
    return recipe.train(net, eights("train", 300), eights("val"), device=CPU, seed=3, **options)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_an_epoch_equals_a_loop_written_by_hand(eights: Sets, make_net: Nets):
    ours, theirs = make_net(norm=True), make_net(norm=True)
    train(Trainer(epochs=2, batch_size=64, lr=0.01), ours, eights)
    data, generator = eights("train", 300), torch.Generator().manual_seed(3)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for _ in range(2):
        for batch in torch.randperm(300, generator=generator).split(64):
            loss = F.cross_entropy(theirs.train()(data.images[batch]), data.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    for ours_value, their_value in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours_value, their_value, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(eights: Sets, make_net: Nets):
    nets = [make_net(dropout=0.3) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        torch.manual_seed(0)
        Trainer(epochs=1, batch_size=50).train(net, eights("train", 100), eights("val"), device=CPU, seed=seed)
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])


# -- schedules ------------------------------------------------------------------------------------------------


def test_half_precision_computes_in_bfloat16_and_keeps_weights_and_loss_in_float32(eights: Sets, make_net: Nets):
    seen: list[torch.dtype] = []

    class Losses(Hook):
        def objective(self, loop: Any, batch: Batch, inner: Callable[[Batch], LossOutput]) -> LossOutput:
            result = inner(batch)
            seen.append(result.loss.dtype)
            return result

    class Watched(Trainer):
        def own_hooks(self) -> list[Hook]:
            return [Losses()]

    halves, whole = make_net(), make_net()
    halves[1].register_forward_hook(lambda layer, given, result: seen.append(result.dtype) if layer.training else None)
    history = train(Watched(epochs=10, batch_size=64, lr=0.01, precision="bfloat16"), halves, eights)
    train(Trainer(epochs=10, batch_size=64, lr=0.01), whole, eights)
    assert set(seen) == {torch.bfloat16, torch.float32}
    assert {value.dtype for value in halves.parameters()} == {torch.float32}
    assert history[-1]["val_accuracy"] > 0.8
    assert not same(halves, whole)


def test_cosine_falls_from_the_peak_to_zero_and_warm_up_rises_to_it():
    plan = Optimisation(lr=2.0, warmup=1.5)
    rates = [plan.lr_at(step, 100, 10) for step in range(100)]
    assert rates[:15] == pytest.approx([2 * (step + 1) / 15 for step in range(15)])
    assert rates[15:] == pytest.approx([1 + math.cos(math.pi * step / 100) for step in range(15, 100)])


def test_the_exponential_schedule_falls_once_an_epoch(eights: Sets, make_net: Nets):
    recipe = Trainer(epochs=4, batch_size=100, schedule="exponential", decay=0.5, lr=0.1)
    rates = [log["lr"] for log in train(recipe, make_net(), eights)]
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_steps_end_a_training_within_an_epoch(eights: Sets, make_net: Nets):
    done: list[tuple[int, int]] = []
    history = train(
        Trainer(epochs=9, batch_size=100, steps=7), make_net(), eights,
        progress=lambda *seen: done.append(seen[:2]),
    )  # fmt: skip
    assert len(history) == 3
    assert done[-1] == (7, 7)


# -- what is kept ---------------------------------------------------------------------------------------------


def test_the_average_follows_its_formula_over_trainable_weights_only(eights: Sets, make_net: Nets):
    class Recorder(Hook):
        def __init__(self) -> None:
            self.seen: list[torch.Tensor] = []

        def after_step(self, loop: Any) -> None:
            self.seen.append(loop.module[1].weight.detach().clone())

    class Recorded(Trainer):
        recorder = Recorder()

        def own_hooks(self) -> list[Hook]:
            return [self.recorder]

    net = make_net(norm=True)
    expected = net[1].weight.detach().clone()
    train(Recorded(epochs=3, batch_size=50, ema=0.5), net, eights)
    for count, weight in enumerate(Recorded.recorder.seen):
        factor = min(0.5, (1 + count) / (10 + count))
        expected = factor * expected + (1 - factor) * weight
    torch.testing.assert_close(net[1].weight.detach(), expected, rtol=1e-5, atol=1e-6)
    assert int(net[2].num_batches_tracked) == 18  # batch-norm's buffers are those of the run


def test_best_keeps_the_epoch_of_the_lowest_validation_loss(eights: Sets, make_net: Nets):
    recipe = Trainer(epochs=6, batch_size=50, lr=0.3, schedule="constant", keep="best")
    net = make_net()
    history = train(recipe, net, eights)
    losses = [log["val_loss"] for log in history]
    val = eights("val")
    kept = F.cross_entropy(net(val.images), val.labels).item()
    assert kept == pytest.approx(min(losses), rel=1e-4)
    assert losses[-1] > min(losses)


def test_patience_stops_a_training_that_no_longer_improves(eights: Sets, make_net: Nets):
    recipe = Trainer(epochs=60, batch_size=50, lr=0.3, schedule="constant", patience=2)
    losses = [log["val_loss"] for log in train(recipe, make_net(), eights)]
    assert len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 3


def test_history_has_curves_of_all_three_splits(eights: Sets, make_net: Nets):
    started = time.perf_counter()
    history = train(Trainer(epochs=2, batch_size=100), make_net(), eights, test=eights("test"))
    assert 0 < sum(log["seconds"] for log in history) <= time.perf_counter() - started
    keys = {"epoch", "lr", "seconds"} | {
        f"{split}{what}" for split in ("", "val_", "test_") for what in ("loss", "accuracy")
    }
    assert [set(log) for log in history] == [keys, keys]


# -- resuming -------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_after(batches: int) -> Callable[..., None]:
    def progress(done: int, total: int, figures: dict[str, Any]) -> None:
        if done == batches:
            raise Stop

    return progress


FULL = {"augment": ["rotation", "mixup"], "copies": 0.2, "copy_augment": ["noise"], "ema": 0.9, "keep": "best"}


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd"}, FULL], ids=["adam", "sgd", "everything"])
def test_a_resumed_run_equals_an_unbroken_one(settings: dict, eights: Sets, make_net: Nets, tmp_path: Path):
    unbroken, broken = make_net(norm=True, dropout=0.3), make_net(norm=True, dropout=0.3)
    recipe = Trainer(epochs=4, batch_size=50, **settings)
    expected = train(recipe, unbroken, eights)
    file = tmp_path / "epoch.safetensors"
    with pytest.raises(Stop):
        train(recipe, broken, eights, resume=file, progress=stop_after(16))
    assert file.is_file()
    fresh = make_net(seed=9, norm=True, dropout=0.3)
    history = train(recipe, fresh, eights, resume=file)
    assert same(unbroken, fresh)
    assert [log["loss"] for log in history] == [log["loss"] for log in expected]
    assert not file.exists()


def test_a_damaged_epoch_file_starts_the_training_anew(eights: Sets, make_net: Nets, tmp_path: Path):
    file = tmp_path / "epoch.safetensors"
    file.write_bytes(b"\x08\x00damaged")
    first, second = make_net(), make_net()
    train(Trainer(epochs=1, batch_size=50), first, eights, resume=file)
    train(Trainer(epochs=1, batch_size=50), second, eights)
    assert same(first, second)


SCRIPT = """
    import sys, time
    import gauntlet.bench.runner as runner
    from gauntlet.bench.execution import Reporter

    class Slow(Reporter):
        def training(self, model, done, total, figures):
            print(done, flush=True)
            time.sleep(float(sys.argv[2]))

    suite = {"datasets": ["digits"], "models": [{"name": "cnn-small", "recipe": {"standard": {"epochs": 5}}}],
             "evaluators": ["accuracy"]}
    runner.run_suite(suite, out=sys.argv[1], device="cpu", reporter=Slow(), evaluate=False)
"""


def test_a_killed_process_goes_on_with_the_result_of_an_unbroken_one(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")

    def start(cache: str, pause: str) -> subprocess.Popen:
        environment = {**os.environ, "GAUNTLET_CACHE": str(tmp_path / cache), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(script), str(tmp_path / f"{cache}-out"), pause]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def weights(cache: str) -> bytes:
        (file,) = (tmp_path / cache / "models").glob("*/weights.safetensors")
        return file.read_bytes()

    victim = start("killed", "0.05")
    assert victim.stdout is not None
    for line in victim.stdout:
        if int(line) >= 20:  # in the third of five epochs of nine batches
            victim.send_signal(signal.SIGKILL)
            break
    assert victim.wait() == -signal.SIGKILL
    assert len(list((tmp_path / "killed" / "models").glob("*.epoch.safetensors"))) == 1
    second = start("killed", "0")
    output, _ = second.communicate()
    assert second.returncode == 0
    assert output.split()[0] == "19"  # epochs one and two are not trained again
    assert start("unbroken", "0").communicate()[0].split()[0] == "1"
    assert weights("killed") == weights("unbroken")
    assert not list((tmp_path / "killed" / "models").glob("*.epoch.safetensors"))


# -- hooks ----------------------------------------------------------------------------------------------------


def test_hooks_wrap_the_loss_from_the_outside_in(eights: Sets, make_net: Nets):
    order: list[str] = []

    class Named(Hook):
        def __init__(self, name: str) -> None:
            self.name = name

        def objective(self, loop: Any, batch: Batch, inner: Any) -> LossOutput:
            order.append(self.name)
            return inner(batch)

    class Two(Trainer):
        def own_hooks(self) -> list[Hook]:
            return [Named("outer"), Named("inner")]

    train(Two(epochs=1, batch_size=300), make_net(), eights)
    assert order == ["outer", "inner"]


def test_recipes_join_and_two_criteria_do_not():
    joined = RECIPES.create("fast-at", epochs=1)
    joined.join([RECIPES.create("logitnorm")])
    assert len(joined.hooks()) == 2
    with pytest.raises(GauntletError, match="logitnorm and logitnorm each replace the criterion"):
        RECIPES.create("logitnorm").join([RECIPES.create("logitnorm")])


# -- refusals -------------------------------------------------------------------------------------------------


def test_a_diverging_run_stops_and_keeps_the_last_good_epoch(eights: Sets, make_net: Nets, tmp_path: Path):
    class Poison(Hook):
        def objective(self, loop: Any, batch: Batch, inner: Any) -> LossOutput:
            result = inner(batch)
            return result if loop.epoch < 2 else LossOutput(result.loss * math.nan, result.logits)

    class Poisoned(Trainer):
        def own_hooks(self) -> list[Hook]:
            return [Poison()]

    net, file = make_net(), tmp_path / "epoch.safetensors"
    good = copy.deepcopy(net)
    with pytest.raises(
        GauntletError, match=r"diverged: the loss is nan in epoch 3 of 4; lower the lr .* epoch 2 is kept"
    ):
        train(Poisoned(epochs=4, batch_size=100), net, eights, resume=file)
    from safetensors.torch import load_file

    kept = {name.removeprefix("module/"): value for name, value in load_file(file).items() if "module/" in name}
    good.load_state_dict(kept)
    assert all(bool(value.isfinite().all()) for value in kept.values())
    assert not same(good, make_net())


BAD = [
    ({"epochs": 0}, "needs epochs >= 1"),
    ({"lr": 0.0}, "needs a positive lr, got 0.0"),
    ({"warmup": 10.0}, "needs a warmup from 0 to below its 10 epochs, got 10.0"),
    ({"ema": 1.0}, "needs an ema in"),
    ({"patience": 0}, "needs patience >= 1"),
    ({"steps": 0}, "needs steps >= 1"),
    ({"decay": 0.0}, "needs a decay in"),
    ({"copies": -0.1}, "needs copies from 0 to 10"),
    ({"augment": ["rotate"]}, "did you mean 'rotation'"),
]


@pytest.mark.parametrize(("settings", "problem"), BAD, ids=[next(iter(settings)) for settings, _ in BAD])
def test_settings_that_cannot_work_are_one_sentence(settings: dict, problem: str):
    with pytest.raises(GauntletError, match=problem):
        Trainer(**settings)


def test_a_set_smaller_than_a_batch_is_refused(eights: Sets, make_net: Nets):
    with pytest.raises(
        GauntletError, match=r"has 40 training images, fewer than one batch of 64; set .* to 40 or less"
    ):
        Trainer(batch_size=64).train(make_net(), eights("train", 40), eights("val"), device=CPU, seed=0)


def test_a_class_without_training_images_is_named(eights: Sets, make_net: Nets):
    whole = eights("train")
    with pytest.warns(UserWarning, match=r"has no training image of the class '7'"):
        Trainer(epochs=1).train(make_net(), whole.subset(whole.labels != 7), eights("val"), device=CPU, seed=0)


def test_an_autoencoder_is_refused(eights: Sets):
    class Autoencoder(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    recipe = RECIPES.create("outlier-exposure", outliers=[eights("test")])
    with pytest.raises(GauntletError, match=r"'outlier-exposure' trains classifiers: .* Autoencoder gives a tuple"):
        train(recipe, Autoencoder(), eights)


def test_best_needs_validation_images(eights: Sets, make_net: Nets):
    empty = eights("val").subset([])
    with pytest.raises(GauntletError, match=r"no validation images; recipe 'standard' needs some for `patience`"):
        Trainer(patience=1).train(make_net(), eights("train"), empty, device=CPU, seed=0)
