"""Checkpoints appear complete or not at all, and come back bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gauntlet.models import CheckpointStore, tensor_files
from gauntlet.registry import GauntletError
from gauntlet.registry.safe_files import DamagedError, unsealed

FACTS = {"history": [{"epoch": 1, "loss": 0.25, "val_loss": float("inf")}], "seconds": 1.5}


def equal(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_what_is_saved_comes_back_bit_for_bit_with_its_facts(checkpoints: CheckpointStore, make_net):
    net, other = make_net(0, norm=True), make_net(1, norm=True)
    net.train()(torch.rand(8, 1, 8, 8))  # so that the buffers are not fresh
    assert "key" not in checkpoints
    checkpoints.save("key", net, FACTS)
    assert "key" in checkpoints
    assert not equal(net, other)
    assert checkpoints.load("key", other) == FACTS
    assert equal(net, other)


def test_it_is_a_folder_of_safetensors_and_json(checkpoints: CheckpointStore, make_net):
    net = make_net()
    checkpoints.save("key", net, FACTS)
    folder = checkpoints.folder / "key"
    assert sorted(path.name for path in folder.iterdir()) == ["training.json", "weights.safetensors"]
    assert load_file(folder / "weights.safetensors").keys() == net.state_dict().keys()
    assert unsealed((folder / "training.json").read_text()) == FACTS
    assert [path.name for path in checkpoints.folder.iterdir()] == ["key"]


def test_channels_last_and_shared_weights_can_be_saved(checkpoints: CheckpointStore):
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 4), nn.Linear(4, 4)).to(memory_format=torch.channels_last)
    net[2].weight = net[1].weight
    checkpoints.save("key", net, {})
    other = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 4), nn.Linear(4, 4))
    checkpoints.load("key", other)
    assert equal(net, other)


def test_the_first_of_two_savings_stays(checkpoints: CheckpointStore, make_net):
    checkpoints.save("key", make_net(0), {"first": True})
    checkpoints.save("key", make_net(1), {"first": False})
    assert checkpoints.load("key", make_net(1)) == {"first": True}
    assert len(list(checkpoints.folder.iterdir())) == 1


@pytest.mark.parametrize("where", ["save_file", "json.dumps", "Path.replace"])
def test_a_saving_that_fails_leaves_nothing(checkpoints: CheckpointStore, make_net, monkeypatch, where: str):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    holder, name = {"json.dumps": (json, "dumps"), "Path.replace": (Path, "replace")}.get(where, (tensor_files, where))
    monkeypatch.setattr(holder, name, fail)
    with pytest.raises(GauntletError, match=r"cannot be kept in .*models \(No space left on device\); set GAUNTLET_CA"):
        checkpoints.save("key", make_net(), {})
    assert "key" not in checkpoints
    assert list(checkpoints.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence_also_before_the_training(tmp_path: Path, make_net):
    (tmp_path / "file").touch()
    store = CheckpointStore(tmp_path / "file" / "models")
    for ask in (store.require_writable, lambda: store.save("key", make_net(), {})):
        with pytest.raises(GauntletError, match=r"cannot be kept in .*file/models \(.*\); set GAUNTLET_CACHE"):
            ask()


def test_asking_whether_a_folder_can_be_written_leaves_nothing_in_it(checkpoints: CheckpointStore):
    checkpoints.require_writable()
    assert list(checkpoints.folder.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from gauntlet.models import CheckpointStore, tensor_files

def die(*_, **__):
    print("in mid-save", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "weights":
    real = tensor_files.save_file
    def half(tensors, path, metadata):
        real(tensors, path, metadata)
        path.write_bytes(path.read_bytes()[:100])
        die()
    tensor_files.save_file = half
else:
    Path.replace = die
CheckpointStore(Path(sys.argv[1])).save("key", torch.nn.Linear(64, 64), {})
"""


@pytest.mark.parametrize("moment", ["weights", "rename"])
def test_a_process_killed_in_mid_save_leaves_no_checkpoint_and_the_next_one_saves(
    checkpoints: CheckpointStore, moment: str
):
    checkpoints.folder.mkdir(parents=True)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(checkpoints.folder), moment], stdout=subprocess.PIPE, check=False
    )
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, b"in mid-save\n")
    assert len(list(checkpoints.folder.iterdir())) == 1  # the draft, under a name that nothing asks for
    assert "key" not in checkpoints
    net = nn.Linear(64, 64)
    checkpoints.save("key", net, {"whole": True})
    assert checkpoints.load("key", nn.Linear(64, 64)) == {"whole": True}


@pytest.mark.parametrize("file", ["weights.safetensors", "training.json"])
@pytest.mark.parametrize("damage", ["truncated", "deleted", "flipped"])
def test_a_checkpoint_damaged_later_is_told_from_a_whole_one(
    checkpoints: CheckpointStore, make_net, file: str, damage: str
):
    checkpoints.save("key", make_net(), FACTS)
    path = checkpoints.path("key") / file
    if damage == "deleted":
        path.unlink()
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[-10] ^= 1
        path.write_bytes(bytes(content))
    else:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DamagedError, match=r"^The checkpoint in .*key is damaged: "):
        checkpoints.load("key", make_net())
    checkpoints.discard("key")
    checkpoints.save("key", make_net(), FACTS)
    assert checkpoints.load("key", make_net()) == FACTS
