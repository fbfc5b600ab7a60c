"""Components cannot harm one another: a detector that writes into what it is handed fails alone, and says why."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gauntlet import GauntletError
from gauntlet.bench.fitted_detector import checked_scores
from gauntlet.bench.guard import global_state, module_state
from gauntlet.bench.runner import run_suite
from gauntlet.detectors import FunctionDetector, Head, Outputs
from gauntlet.results.frame import load_results

from .conftest import small_suite

IN_PLACE = {
    "zero_": lambda logits: logits.zero_()[:, 0],
    "scatter_": lambda logits: logits.scatter_(1, logits.argmax(1, keepdim=True), -1e9).amax(1),
    "clamp_": lambda logits: logits.clamp_(max=0.05).sum(1),
    "a slice": lambda logits: _assigned(logits),
    "out=": lambda logits: torch.exp(logits, out=logits).sum(1),
    "numpy": lambda logits: torch.from_numpy(np.exp(logits.numpy(), out=logits.numpy()).sum(1)),
    "a permutation": lambda logits: logits.copy_(logits.flip(0)).sum(1),
}


def _assigned(logits: torch.Tensor) -> torch.Tensor:
    logits[:, 0] = 0
    return logits.sum(1)


def some_outputs(model: nn.Module | None = None) -> Outputs:
    torch.manual_seed(0)
    images = torch.rand(20, 1, 4, 4)
    return Outputs(
        torch.arange(20) % 3,
        logits=torch.randn(20, 3),
        features=torch.randn(20, 5),
        head=Head(torch.randn(3, 5), torch.zeros(3)),
        named={"h": torch.rand(20)},
        model=model,
        image_batches=lambda: iter(images.split(8)),
    )


@pytest.mark.parametrize("name", IN_PLACE)
def test_writing_into_logits_fails_with_the_name_and_changes_nothing(name: str) -> None:
    outputs = some_outputs()
    before = outputs.logits.clone()
    with pytest.raises(GauntletError, match="Detector 'mine' wrote into the logits that it was handed"):
        checked_scores(FunctionDetector(IN_PLACE[name], ("logits",)), outputs, "mine")
    assert torch.equal(outputs.logits, before)


@pytest.mark.parametrize("need", ["labels", "features", "output:h", "head"])
def test_nothing_that_is_handed_out_can_be_written_into(need: str) -> None:
    outputs = some_outputs()

    def zeroed(given: Any) -> torch.Tensor:
        (given.weight if need == "head" else given).zero_()
        return torch.zeros(20)

    with pytest.raises(GauntletError, match="wrote into the"):
        checked_scores(FunctionDetector(zeroed, (need,)), outputs, "mine")
    fresh = some_outputs()
    assert torch.equal(outputs.head.weight, fresh.head.weight)
    assert all(torch.equal(getattr(outputs, part), getattr(fresh, part)) for part in ("labels", "features"))
    assert torch.equal(outputs.named["h"], fresh.named["h"])


def test_images_are_handed_out_as_copies() -> None:
    outputs = some_outputs()
    before = torch.cat(list(outputs.image_batches()))
    with pytest.raises(GauntletError, match="wrote into the images"):
        checked_scores(FunctionDetector(lambda images: images.sub_(1).flatten(1).sum(1), ("images",)), outputs, "mine")
    assert torch.equal(torch.cat(list(outputs.image_batches())), before)


def test_nan_in_what_is_handed_out_is_no_change() -> None:
    outputs = some_outputs()
    outputs.named["h"][0] = torch.nan
    scores = checked_scores(FunctionDetector(lambda h: h.nan_to_num(), ("output:h",)), outputs, "mine")
    assert float(scores[0]) == 0


def test_a_detector_that_returns_what_it_got_is_fine() -> None:
    outputs = some_outputs()
    assert torch.equal(
        checked_scores(FunctionDetector(lambda h: h, ("output:h",)), outputs, "m"), outputs.named["h"].double()
    )


def test_modes_hooks_and_flags_of_the_model_are_set_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    with module_state(model, "Detector 'mine'"):
        model.train()
        model[0].weight.requires_grad_(False)
        model[0].register_forward_hook(lambda *_: None)
        model[0](torch.ones(1, 2)).sum().backward()
    assert not model.training
    assert not model[1].training
    assert model[0].weight.requires_grad
    assert not model[0]._forward_hooks
    assert model[0].bias.grad is None


def test_weights_and_buffers_that_are_changed_are_set_back_and_told() -> None:
    model = nn.BatchNorm1d(2)
    with (
        pytest.raises(GauntletError, match=r"Detector 'mine' changed weights or buffers of the model \(running_mean\)"),
        module_state(model, "Detector 'mine'"),
    ):
        model(torch.randn(8, 2))
    assert torch.equal(model.running_mean, torch.zeros(2))


def test_random_streams_and_global_settings_are_set_back() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    wanted = torch.rand(3), np.random.rand(), random.random()
    threads = torch.get_num_threads()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with global_state():
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(threads + 1)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
    assert torch.equal(torch.rand(3), wanted[0])
    assert (np.random.rand(), random.random()) == wanted[1:]
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_culprits_cell_fails_and_those_after_it_are_as_without_it(tmp_path: Path, write_plugin: Any) -> None:
    plugin = write_plugin(
        '''
        from gauntlet import detector

        @detector("zeroes", needs="logits")
        def zeroes(logits):
            """Sets the logits to zero."""
            return logits.zero_()[:, 0]

        @detector("clamps", needs=("features", "logits"))
        def clamps(features, logits):
            """Clips features in place."""
            return features.clamp_(max=0.05).sum(1)
        '''
    )
    frames = {}
    for name, first in (("alone", []), ("after", ["zeroes", "clamps"])):
        suite = small_suite(detectors=[*first, "msp", {"knn": {"k": 5}}], evaluators=["ood"])
        run_suite(suite, out=tmp_path / name, plugins=[plugin] if first else [])
        frames[name] = load_results(tmp_path / name)
    alone, after = frames["alone"], frames["after"]
    bad = after[after["status"] != "ok"]
    assert set(bad["detector"]) == {"zeroes", "clamps"}
    assert bad["reason"].str.contains("wrote into the").all()
    good = after[after["status"] == "ok"].set_index(["detector", "ood_dataset", "metric"])["value"]
    assert good.to_dict() == alone.set_index(["detector", "ood_dataset", "metric"])["value"].to_dict()
