"""Test images of unknown class take no part in any evaluator, and every one says the same number of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gauntlet.bench.runner import run_suite
from gauntlet.results.frame import load_results

from .conftest import small_suite

PLUGIN = '''
    import torch
    from torch import nn
    from gauntlet import dataset, model

    @dataset("unknown-in-test", splits=("train", "test"), classes=list("abcde"))
    def unknown_in_test(split):
        """A bright stripe whose height is the class; a fifth of the test labels is -1."""
        count = 300 if split == "train" else 100
        labels = torch.arange(count) % 5
        images = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(count)) * 0.35
        for image, label in zip(images, labels.tolist(), strict=True):
            image[0, 5 * label + 1 : 5 * label + 5] += 0.5
        return images, labels if split == "train" else labels.where(torch.arange(count) >= 20, -1)

    class Template(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(28, 5, bias=False)
            with torch.no_grad():
                self.layer.weight.zero_()
                for label in range(5):
                    self.layer.weight[label, 5 * label + 1 : 5 * label + 5] = 5.0

        def forward(self, images):
            return self.layer(images.mean((1, 3)))

    @model("template", trained=True)
    def template():
        """Right on every image that has a class."""
        return Template()
'''


@pytest.mark.filterwarnings("ignore:Dataset 'unknown-in-test'")
def test_figures_are_those_of_the_images_with_a_label(tmp_path: Path, write_plugin: Any) -> None:
    suite = small_suite(
        datasets=["unknown-in-test"],
        models=["template"],
        detectors=["msp"],
        ood=[{"uniform-noise": {"limit": 50}}],
        attacks=["fgsm"],
        epsilons=[0.01],
        evaluators=["accuracy", "calibration", "ood", "open-set", "attack", "adversarial-detection"],
    )
    run_suite(suite, out=tmp_path / "out", plugins=[write_plugin(PLUGIN)])
    frame = load_results(tmp_path / "out")
    assert set(frame["status"]) <= {"ok", "skipped"}
    values = frame.set_index(["evaluator", "metric", "class"])
    assert values.loc[("accuracy", "accuracy", ""), "value"] == 1.0
    assert values.loc[("accuracy", "accuracy", ""), "n"] == 80
    assert values.loc[("calibration", "ece", ""), "n"] == 80
    assert values.loc[("attack", "robust_accuracy", ""), "n"].max() <= 80
