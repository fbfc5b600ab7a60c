"""`gauntlet.evaluate` costs what its suite costs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.registry import MODELS

AXES = {"attacks": ["fgsm", "pgd"], "detectors": ["msp", "knn", "energy"], "ood": ["glyphs"]}
SUITE = {"name": "speed", "datasets": ["digits"], "models": ["speed-net"], "epsilons": [0.1]}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 49, 10)).eval()


@pytest.mark.slow
def test_it_adds_at_most_a_twentieth_and_half_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gauntlet.model("speed-net", trained=True)(network)

    def seconds(turn: str, run) -> float:
        monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / turn / "cache"))  # outputs that are there cost nothing
        started = time.process_time()
        run()
        return time.process_time() - started

    evaluators = ["accuracy", "attack", "checks", "ood"]
    times = []
    for turn in map(str, range(4)):
        suite = {**SUITE, **AXES, "evaluators": evaluators}
        by_suite = seconds(f"suite-{turn}", lambda: gauntlet.run(suite, out=tmp_path / turn))  # noqa: B023
        by_line = seconds(f"line-{turn}", lambda: gauntlet.evaluate(network(), "digits", eps=0.1, **AXES))
        times.append((by_line, by_suite))
    MODELS._forget(["speed-net"])
    by_line, by_suite = (min(part) for part in zip(*times[1:], strict=True))  # the first imports
    assert by_line <= 1.05 * by_suite + 0.5
