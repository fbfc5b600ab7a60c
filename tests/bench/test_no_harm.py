"""One component of each kind does all the harm it can: every other cell is as it would be without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim
from gauntlet.bench.runner import run_suite
from gauntlet.datasets import process_state
from gauntlet.models.standard_form import bring_into_form, moving
from gauntlet.models.state import ModelState
from gauntlet.results.estimates import estimate
from gauntlet.results.frame import load_results
from gauntlet.results.samples import Scores

HARM = """
import os, random
import numpy as np
import torch
from torch import nn
from gauntlet import attack, corruption, dataset, detector, evaluator, metric, model, recipe
from gauntlet.bench.evaluators import Evaluator, Job
from gauntlet.models.cnn_small import CNNSmall
from gauntlet.results.records import CellResult

def harm_process():
    torch.manual_seed(9), np.random.seed(9), random.seed(9)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    os.chdir("/")

def harm_model(network):
    harm_process()
    network.train()
    network.requires_grad_(False)
    network.register_forward_hook(lambda part, images, logits: -logits)
    network.forward = lambda images: torch.zeros(len(images), 10)
"""
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "attack": (
        """
@attack("harmful", norm="linf")
def harmful(victim, images, epsilon):
    harm_model(victim._frozen.module)
    return images.clone()
""",
        {"attacks": ["harmful", "fgsm"]},
        "",
    ),
    "attack, in place": (
        """
@attack("harmful", norm="linf")
def harmful(images, labels):
    labels.zero_()
    return images.zero_()
""",
        {"attacks": ["harmful", "fgsm"]},
        "Attack 'harmful' writes into the images or labels",
    ),
    "attack, weights": (
        """
@attack("harmful", norm="linf")
def harmful(victim, images):
    next(victim._frozen.module.parameters()).data.zero_()
    return images.clone()
""",
        {"attacks": ["harmful", "fgsm"]},
        r"'harmful' \(attack\) changed weights or buffers",
    ),
    "detector": (
        """
@detector("harmful", needs=("logits", "model"))
def harmful(logits, network):
    harm_model(network)
    return logits.sum(1)
""",
        {"detectors": ["harmful", "msp", "odin"]},
        "",
    ),
    "detector, weights": (
        """
@detector("harmful", needs=("logits", "model"))
def harmful(logits, network):
    next(network.parameters()).data.zero_()
    return logits.sum(1)
""",
        {"detectors": ["harmful", "msp", "odin"]},
        "Detector 'harmful' changed weights or buffers",
    ),
    "corruption": (
        """
@corruption("harmful")
def harmful(images, severity):
    harm_process()
    return images.zero_()
""",
        {"corruptions": ["harmful", "gaussian-noise"], "severities": [1]},
        "",
    ),
    "dataset": (
        """
@dataset("harmful", splits=("test",))
def harmful(split):
    harm_process()
    return torch.zeros(20, 1, 28, 28, dtype=torch.float32)
""",
        {"ood": ["harmful", "uniform-noise"]},
        "",
    ),
    "metric": (
        """
@metric("harmful", evaluators=("ood",))
def harmful(ranking):
    harm_process()
    for values in vars(ranking).values():
        if isinstance(values, np.ndarray):
            values[...] = 0
    return ranking.caught.sum(-1)
""",
        {},
        "",
    ),
    "evaluator": (
        """
class HarmfulJob(Job):
    def run(self, cells, context):
        harm_model(context.module())
        outputs = context.outputs(self.row.dataset, "test")
        outputs.logits.zero_(), outputs.labels.zero_()
        images = context.images(self.row.dataset, "test")
        images.pixels.zero_(), images.labels.zero_()
        yield cells[0].key, CellResult()

@evaluator("harmful", title="Harmful", order=1)
class Harmful(Evaluator):
    def plan(self, suite, row, out_sets):
        return [HarmfulJob(evaluator=self.name, row=row, label=self.name, cells=(self.cell(row),))]
""",
        {"evaluators": ["harmful", "accuracy", "attack", "ood", "corruption"]},
        "",
    ),
    "evaluator, weights": (
        """
class HarmfulJob(Job):
    def run(self, cells, context):
        next(context.module().parameters()).data.zero_()
        yield cells[0].key, CellResult()

@evaluator("harmful", title="Harmful", order=1)
class Harmful(Evaluator):
    def plan(self, suite, row, out_sets):
        return [HarmfulJob(evaluator=self.name, row=row, label=self.name, cells=(self.cell(row),))]
""",
        {"evaluators": ["harmful", "accuracy", "attack", "ood", "corruption"]},
        r"'harmful' \(harmful\) changed weights or buffers",
    ),
    "model": (
        """
class Harmful(CNNSmall):
    def forward(self, images):
        logits = super().forward(images)
        harm_process()
        return logits

@model("harmful", trained=True)
def harmful(classes: int = 10):
    harm_process()
    return Harmful(classes=classes).float()
""",
        {"models": ["harmful", {"name": "cnn-small", "recipe": "none"}]},
        "",
    ),
}
SUITE: dict[str, Any] = {
    "datasets": [{"digits": {"limit": 60}}],
    "models": [{"name": "cnn-small", "recipe": "none"}],
    "attacks": ["fgsm"],
    "epsilons": [0.1],
    "detectors": ["msp", "odin"],
    "ood": ["uniform-noise"],
    "corruptions": ["gaussian-noise"],
    "severities": [1],
    "evaluators": ["accuracy", "attack", "ood", "corruption"],
    "worst_case": False,
}
WHERE = ["model", "evaluator", "attack", "epsilon", "detector", "ood_dataset", "corruption", "severity", "metric"]


def figures(folder: Path) -> pd.DataFrame:
    frame = load_results(folder)
    frame = frame[frame["role"] == "measured"]  # a mean is over what there is
    return frame[~(frame[WHERE].astype(str) == "harmful").any(axis=1)].set_index(WHERE)["value"].dropna().sort_index()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> pd.Series:
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUNTLET_CACHE", str(folder / "cache"))
        run_suite(SUITE, out=folder)
    return figures(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_cell_is_as_without_it(
    tmp_path: Path, write_plugin: Any, alone: pd.Series, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, changes, reason = KINDS[kind]
    monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / "cache"))  # what it could have spoilt is not there before
    before = [str(read()) for read, _ in process_state._GLOBALS]
    run_suite({**SUITE, **changes}, out=tmp_path / "out", plugins=[write_plugin(HARM + code)])
    assert [str(read()) for read, _ in process_state._GLOBALS] == before
    found = figures(tmp_path / "out")
    assert found.index.equals(alone.index)
    assert found[found.to_numpy() != alone.to_numpy()].to_dict() == {}
    frame = load_results(tmp_path / "out")
    own = frame[(frame[WHERE].astype(str) == "harmful").any(axis=1)]
    assert len(own)
    if reason:
        assert set(own["status"]) == {"failed"}
        assert own["reason"].str.contains(reason).all(), own["reason"].tolist()


def test_every_kind_that_a_plugin_registers_and_that_sees_others_is_here() -> None:
    from gauntlet.registry import REGISTRIES

    alone = {"recipe", "augmentation", "calibrator"}  # they see a model of their own, before anybody else does
    assert {kind.partition(",")[0] for kind in KINDS} == set(REGISTRIES) - alone


def test_the_state_of_a_model_is_set_back_whatever_was_done_to_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
            self.scale = torch.ones(2)  # weights outside state_dict

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.layer(x)) * self.scale

    torch.manual_seed(0)
    model, images = Net().eval(), torch.randn(5, 2)
    right, state = model(images).detach(), ModelState(model)
    model.train()(images).sum().backward()
    model.layer.weight.requires_grad_(False)
    model.scale.mul_(2)
    model.norm.running_mean = torch.full((2,), 7.0)
    model.layer.register_forward_pre_hook(lambda part, given: (given[0] * 3,))
    model.forward = lambda x: x
    model.norm = nn.Identity()
    assert set(state.changed()) >= {"scale", "norm.num_batches_tracked"}
    assert "scale" in state.set_back()
    assert torch.equal(model(images), right)
    assert not model.training
    assert model.layer.weight.requires_grad
    assert model.layer.weight.grad is None
    assert state.set_back() == []


def test_nan_in_a_buffer_is_no_change() -> None:
    model = nn.BatchNorm1d(2)
    model.running_mean.fill_(torch.nan)
    assert ModelState(model).set_back() == []


class Counts(nn.Module):
    """Counts its passes in a buffer, as some quantised and averaged networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.layer = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return self.layer(images.flatten(1))


def test_what_a_model_itself_changes_in_every_pass_is_nobody_elses_doing(tmp_path: Path, write_plugin: Any) -> None:
    model = Counts()
    bring_into_form(model, (1, 28, 28))
    assert moving(model) == {"passes"}
    assert moving(nn.Sequential(nn.Identity(), model)) == {"1.passes"}
    assert model.passes == 0
    plugin = write_plugin("""
        from gauntlet import detector, model
        from tests.bench.test_no_harm import Counts
        model("counts", trained=True)(lambda: Counts())

        @detector("asks", needs=("images", "model"))
        def asks(images, model):
            return model(images).amax(1)
    """)
    suite = {**SUITE, "models": ["counts"], "detectors": ["asks", "msp"]}
    run_suite(suite, out=tmp_path, plugins=[plugin])
    assert set(load_results(tmp_path)["status"]) == {"ok"}


def test_an_attack_that_goes_on_with_a_tensor_that_it_gave_keeps_its_earlier_results() -> None:
    from gauntlet.attacks import Attack
    from gauntlet.attacks.base import verified

    class Reuses(Attack):
        norm = "linf"

        def attack(self, victim: Any, images: Any, labels: Any, epsilons: Any, rng: Any) -> Any:
            made = images.clone()
            for epsilon in epsilons:
                made.copy_(images + epsilon)
                yield verified(victim, images, labels, made, "linf", epsilon)

    images = torch.full((2, 1, 2, 2), 0.25)
    with Victim(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))) as victim:
        found = Reuses().run(victim, images, torch.tensor([0, 1]), [0.1, 0.2], rng=PerImageRNG("x", torch.arange(2)))
    assert [float(result.images.max()) for result in found] == pytest.approx([0.35, 0.45])


def test_a_metric_gets_statistics_of_its_own() -> None:
    from gauntlet.registry import METRICS, metric

    @metric("spoils")
    def spoils(ranking: Any) -> Any:
        """Sets everything to zero."""
        total = ranking.caught[..., -1].copy()
        ranking.caught[...] = 0
        ranking.flagged[...] = 0
        return total

    try:
        sample = Scores(np.arange(5.0), np.arange(3.0, 9.0))
        assert estimate(["spoils", "auroc"], sample)["auroc"] == estimate(["auroc"], sample)["auroc"]
    finally:
        METRICS._forget(["spoils"])
