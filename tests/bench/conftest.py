"""Small suites and plug-ins that the tests of the runner share."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from gauntlet.bench.cli import main
from gauntlet.registry import REGISTRIES


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trained models go to one cache for the whole session, never to the user's; there are no data."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("GAUNTLET_CACHE", str(cache))
    monkeypatch.delenv("GAUNTLET_DATA", raising=False)
    return cache


@pytest.fixture(autouse=True)
def no_plugins_left() -> Any:
    """Plug-ins that a test loads are gone after it."""
    yield
    from gauntlet.registry import plugins

    for identity in list(plugins._loaded):
        plugins._forget(identity, [*REGISTRIES.values()])


@pytest.fixture
def write_plugin(tmp_path: Path) -> Any:
    """Write a plug-in file and return its path."""

    def write(code: str, name: str = "plugin.py") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that go through `cnn-small`."""
    from gauntlet.models.cnn_small import CNNSmall

    counted: list[int] = []
    original = CNNSmall.forward

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        counted.append(len(x))
        return original(self, x)

    monkeypatch.setattr(CNNSmall, "forward", forward)
    return counted


def small_suite(**changes: Any) -> dict[str, Any]:
    """Accuracy, calibration, OOD and attacks of a briefly trained cnn-small on digits: seconds."""
    suite: dict[str, Any] = {
        "name": "small",
        "datasets": ["digits"],
        "models": [{"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 3}}}],
        "attacks": ["fgsm", {"name": "pgd", "steps": 3}],
        "epsilons": [0, 0.1],
        "attack_images": 40,
        "worst_case": False,
        "checks": "none",
        "detectors": ["msp", {"knn": {"k": 5}}],
        "ood": {"near": [{"glyphs": {"limit": 100}}], "far": [{"uniform-noise": {"limit": 100}}]},
    }
    suite.update(changes)
    return {key: value for key, value in suite.items() if value is not None}


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process; gives exit status, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run
