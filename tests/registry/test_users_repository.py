"""A plug-in in a repository whose own packages have the names of ours: `models`, `datasets`, `results`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gauntlet
from gauntlet.models import create_module
from gauntlet.registry import MODELS, REGISTRIES, load_plugin, source_fingerprint

FILES = {
    "models/__init__.py": "from .net import Net\n",
    "models/net.py": """
from torch import nn
from models.parts import WIDTH

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.flat, self.fc = nn.Flatten(), nn.LazyLinear(WIDTH)
        self.out = nn.Linear(WIDTH, classes)

    def forward(self, x):
        return self.out(self.fc(self.flat(x)).relu())
""",
    "models/parts.py": "WIDTH = 7\n",
    "datasets/__init__.py": "NAME = 'theirs'\n",
    "results/__init__.py": "NAME = 'theirs'\n",
    "plugin.py": """
import datasets, results
from gauntlet import model
from models import Net

assert datasets.NAME == results.NAME == 'theirs'

@model("their-net")
def their_net(classes: int):
    "Their network."
    net = Net(classes)
    return net

model("their-class")(Net)
""",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "repository"


@pytest.mark.parametrize("name", ["their-net", "their-class"])
def test_it_registers_a_module_of_its_own_package(repository: Path, name: str):
    load_plugin(str(repository / "plugin.py"), REGISTRIES.values())
    net = create_module(MODELS.get(name), {}, classes=3, shape=(1, 4, 4))
    assert net(torch.zeros(2, 1, 4, 4)).shape == (2, 3)
    assert type(net).__module__ == "models.net"


def test_its_own_modules_count_in_the_fingerprint(repository: Path):
    load_plugin(str(repository / "plugin.py"), REGISTRIES.values())
    entries = [MODELS.get(name) for name in ("their-net", "their-class")]
    before = [source_fingerprint(entry) for entry in entries]
    (repository / "models" / "parts.py").write_text("WIDTH = 7  # as it was\n")
    assert [source_fingerprint(entry) for entry in entries] == before
    (repository / "models" / "parts.py").write_text("WIDTH = 8\n")
    assert not {source_fingerprint(entry) for entry in entries} & set(before)


@pytest.mark.parametrize("folder", [Path(gauntlet.__file__).parent, Path("/")], ids=["our checkout", "elsewhere"])
def test_it_works_from_any_working_folder_also_that_of_our_checkout(repository: Path, folder: Path):
    """There, `python -m` puts our own folders `models` and `datasets` on the path."""
    code = (
        "from gauntlet.registry import MODELS, REGISTRIES, load_plugin\n"
        f"load_plugin({str(repository / 'plugin.py')!r}, REGISTRIES.values())\n"
        "print(len(MODELS.create('their-net', classes=4).state_dict()), 'm5' in MODELS)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.stdout, answer.returncode) == ("4 True\n", 0), answer.stderr
