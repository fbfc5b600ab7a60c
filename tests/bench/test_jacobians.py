"""The gradients of the loss that a run keeps beside its image examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gauntlet.bench.runner import run_suite
from gauntlet.datasets import DataSource, resolve
from gauntlet.registry import MODELS as NETWORKS
from gauntlet.registry import model
from gauntlet.results import load_results
from gauntlet.results.examples import read_examples

from .conftest import small_suite

FIRST = {"name": "cnn-small", "label": "first", "recipe": "none"}
ABSENT = ("attacks", "epsilons", "detectors", "ood", "attack_images", "worst_case", "checks")


def kept(out: Path, *models: dict[str, Any], examples: int) -> dict[str, dict[str, np.ndarray]]:
    """Examples of the accuracy cells, by model."""
    suite = small_suite(models=list(models), evaluators=["accuracy"], examples=examples, **dict.fromkeys(ABSENT))
    run_suite(suite, out=out)
    cells = load_results(out).drop_duplicates("key")
    assert set(cells["status"]) == {"ok"}
    return {
        label: read_examples(out, (label, "digits"), key)
        for label, key in cells[["model", "key"]].itertuples(index=False)
    }


def test_examples_hold_the_gradient_of_the_loss_at_the_same_images_for_every_model(tmp_path: Path):
    weights = tmp_path / "weights.pt"
    torch.manual_seed(0)
    net = NETWORKS.create("cnn-small").eval()
    torch.save(net.state_dict(), weights)
    found = kept(tmp_path / "out", FIRST, {"name": "cnn-small", "label": "second", "weights": str(weights)}, examples=3)
    np.testing.assert_array_equal(found["first"]["jacobian_image"], found["second"]["jacobian_image"])
    assert found["first"]["jacobian"].shape == (3, 1, 28, 28)
    ours = found["second"]
    x = torch.from_numpy(ours["jacobian_image"]).requires_grad_()
    y = torch.from_numpy(ours["jacobian_label"]).long()
    F.cross_entropy(net(x), y, reduction="sum").backward()
    torch.testing.assert_close(torch.from_numpy(ours["jacobian"]), x.grad)
    test = resolve("digits", DataSource(tmp_path, tmp_path)).load("test")
    places = [int((test.images == one).flatten(1).all(1).nonzero()[0]) for one in x.detach()]
    assert test.labels[places].tolist() == y.tolist()


def test_a_model_that_no_gradient_reaches_keeps_its_other_examples(tmp_path: Path):
    @model("hidden-gradient")
    class Hidden(torch.nn.Module):
        """Detaches its images."""

        def __init__(self, *, classes: int = 10) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(784, classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.detach().flatten(1))

    try:
        (found,) = kept(tmp_path, {"name": "hidden-gradient", "recipe": "none"}, examples=2).values()
    finally:
        NETWORKS._entries.pop("hidden-gradient")
    assert len(found["image"]) > 0
    assert "jacobian" not in found
