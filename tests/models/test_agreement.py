"""Figures of the handbook, measured on real data: minutes each.

GAUNTLET_DATA=... pytest -m slow tests/models/test_agreement.py -s
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gauntlet.bench.kernels import calibration_metrics, fit_temperature
from gauntlet.datasets import DataSource, ImageSet, resolve
from gauntlet.registry import MODELS, RECIPES

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
Load = Callable[..., ImageSet]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    if "GAUNTLET_DATA" not in os.environ:
        pytest.skip("set GAUNTLET_DATA to a data root")
    source = DataSource(Path(os.environ["GAUNTLET_DATA"]), tmp_path)
    return lambda spec, split: resolve(spec, source).load(split)


def trained(model: Any, recipe: Any, load: Load, data: Any = "mnist") -> nn.Module:
    name, parameters = model
    torch.manual_seed(0)
    net = MODELS.create(name, **parameters).to(memory_format=torch.channels_last)
    kind, settings = recipe
    history = RECIPES.create(kind, **settings).train(
        net, load(data, "train"), load(data, "val"), device=torch.device("cpu"), seed=0
    )
    print(f"\n{name} {kind}: {history[-1]}")
    return net.eval()


def logits(net: nn.Module, images: ImageSet) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([net(x.to(memory_format=torch.channels_last)) for x, _, _ in images.batches(500)])


def test_the_small_cnn_at_250_steps_is_under_confident(load: Load):
    """Handbook 11.2: about 81 % to 88 % right with an ECE around 14 %, as report R2's small CNN."""
    settings = {"steps": 250, "batch_size": 64, "optimizer": "sgd", "lr": 0.01, "momentum": 0.5, "schedule": "constant"}
    net, test = trained(("cnn-small", {}), ("standard", settings), load), load("mnist", "test")
    found = calibration_metrics(logits(net, test), test.labels)
    print(found)
    assert 0.7 < found["accuracy"] < 0.95
    assert 0.08 < found["ece"] < 0.45
    assert found["signed_gap"] < -0.08


@pytest.mark.parametrize(("steps", "best"), [(66, 0.335), (132, 0.357)])
def test_batch_normed_logits_leave_m5_under_confident(steps: int, best: float, load: Load):
    """Handbook C-1: accuracy 98 %, ECE 0.22 to 0.27 from the head alone, optimal temperature near 0.34.

    This seed and subset gave 98.3 %, 0.282 and 0.302 (0.271 to 0.336) after 66 steps; report R2 has 0.28.
    """
    data = {"mnist": {"limit": 8000}}
    settings = {"steps": steps, "epochs": 2, "batch_size": 120, "schedule": "constant"}
    net = trained(("m5", {"conv_bias": True, "activation": "gelu"}), ("standard", settings), load, data)
    test, val = load({"mnist": {"limit": 1000}}, "test"), load({"mnist": {"limit": 1500}}, "val")
    outputs, temperature = logits(net, test), fit_temperature(logits(net, val), val.labels)
    raw, scaled = (calibration_metrics(outputs / t, test.labels) for t in (1.0, temperature[0]))
    print(f"{steps} steps: {raw}, T = {temperature}, scaled ECE {scaled['ece']:.4f}")
    assert raw["accuracy"] > 0.965
    assert 0.22 <= raw["ece"] <= 0.27
    assert raw["signed_gap"] < 0
    assert temperature[0] == pytest.approx(best, abs=0.04)
    assert scaled["ece"] < 0.02


def test_the_small_cnn_reaches_98_3_percent_in_ten_epochs(load: Load):
    settings = {"epochs": 10, "batch_size": 50, "optimizer": "sgd", "lr": 0.01}
    net, test = trained(("cnn-small", {}), ("standard", settings), load), load("mnist", "test")
    accuracy = float((logits(net, test).argmax(1) == test.labels).float().mean())
    print(f"accuracy {accuracy:.4f}")
    assert accuracy >= 0.983


def test_cnn_plus_beats_cnn_on_cifar_10(load: Load):
    """On 16,000 real training images (20,000 less validation), tested on the held-out last batch."""
    data = {"cifar10": {"test": "held-out", "val": 0.2}}
    test = load(data, "test")
    accuracies = {}
    for name, parameters, epochs in (("cnn", {}, 20), ("cnn-plus", {"width": 0.25}, 6)):
        net = trained((name, parameters), ("standard", {"epochs": epochs}), load, data)
        accuracies[name] = float((logits(net, test).argmax(1) == test.labels).float().mean())
    print(accuracies)
    assert accuracies["cnn-plus"] >= accuracies["cnn"] + 0.10
