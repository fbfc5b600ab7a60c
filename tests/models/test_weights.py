"""The weights that users bring: tensors only, all of them, and of the right shape."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gauntlet.models import load_weights
from gauntlet.registry import GauntletError

State = dict[str, torch.Tensor]


@pytest.fixture
def net(make_net) -> nn.Module:
    return make_net(0, norm=True)


@pytest.fixture
def state(make_net) -> State:
    return make_net(1, norm=True).state_dict()


def problem(net: nn.Module, path: Path) -> str:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(GauntletError) as caught:
        load_weights(net, path)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
    "model_state_dict": lambda state: {"model_state_dict": state, "args": {"lr": 0.1}},
    "model": lambda state: {"model": state},
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "torch.compile": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "Lightning": lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    "both": lambda state: {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
    "half precision": lambda state: {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_state_dict_saved_by_torch_is_read_in_its_usual_forms(
    net: nn.Module, state: State, tmp_path: Path, form: str
):
    torch.save(FORMS[form](state), tmp_path / "weights.pt")
    load_weights(net, tmp_path / "weights.pt")
    tolerance = 1e-3 if form == "half precision" else 0
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=tolerance, atol=tolerance)
        assert value.dtype == state[name].dtype


def test_safetensors_are_read(net: nn.Module, state: State, tmp_path: Path):
    save_file(state, tmp_path / "weights.safetensors")
    load_weights(net, tmp_path / "weights.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_torchs_old_format_is_read(net: nn.Module, state: State, tmp_path: Path):
    torch.save(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    load_weights(net, tmp_path / "weights.pth")
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_network_whose_own_names_begin_with_module_keeps_them(tmp_path: Path):
    net = nn.Sequential()
    net.add_module("module", nn.Linear(2, 2))
    torch.save({name: torch.ones_like(value) for name, value in net.state_dict().items()}, tmp_path / "w.pt")
    load_weights(net, tmp_path / "w.pt")
    assert net.module.bias.tolist() == [1, 1]


# -- what is refused ------------------------------------------------------------------------------------------


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


@pytest.mark.parametrize("save", ["torch", "torch's old format", "pickle 2", "pickle 4"])
def test_code_in_a_file_is_not_run(net: nn.Module, tmp_path: Path, save: str):
    content = {"weight": torch.zeros(2), "extra": Trap(tmp_path / "sprung")}
    path = tmp_path / "weights.pt"
    if save.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=save == "torch")
    else:
        path.write_bytes(pickle.dumps(content, int(save[-1])))
    assert problem(net, path) == (
        "FILE holds more than tensors, and loading it could run code from the file: save `model.state_dict()` with "
        "safetensors or torch.save instead."
    )
    assert not (tmp_path / "sprung").exists()
    torch.load(path, weights_only=False) if save.startswith("torch") else pickle.loads(path.read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap does work


def test_a_whole_module_is_refused(net: nn.Module, tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "weights.pt")
    assert "holds more than tensors" in problem(net, tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.zeros(2)], "FILE holds a list, expected a state dict of tensors."),
        (torch.zeros(2), "FILE holds a Tensor, expected a state dict of tensors."),
        ({}, "FILE holds no state dict: expected names with tensors, as `model.state_dict()` gives; found nothing."),
        (
            {"epoch": 3},
            "FILE holds no state dict: expected names with tensors, as `model.state_dict()` gives; found epoch.",
        ),
        (
            {0: torch.zeros(2)},
            "FILE holds no state dict: expected names with tensors, as `model.state_dict()` gives; found 0.",
        ),
    ],
)
def test_anything_but_names_with_tensors_is_refused(net: nn.Module, tmp_path: Path, content: Any, sentence: str):
    torch.save(content, tmp_path / "weights.pt")
    assert problem(net, tmp_path / "weights.pt") == sentence


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 100, 2000, -10])
def test_a_truncated_file_is_refused(net: nn.Module, state: State, tmp_path: Path, suffix: str, keep: int):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    sentence = problem(net, path)
    assert sentence.startswith("FILE cannot be read as weights (")
    assert sentence.endswith("); save `model.state_dict()` anew.")


@pytest.mark.parametrize("content", [b"hello world", b"epochs: 3\n", bytes(range(200))])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights"])
def test_a_file_of_another_kind_is_refused(net: nn.Module, tmp_path: Path, content: bytes, name: str):
    (tmp_path / name).write_bytes(content)
    assert problem(net, tmp_path / name).startswith("FILE cannot be read as weights (")


def test_an_absent_file_is_named(net: nn.Module, tmp_path: Path):
    assert problem(net, tmp_path / "weights.pt") == "There is no file of weights at FILE."


def test_tensors_of_another_shape_are_named_with_both(net: nn.Module, state: State, tmp_path: Path):
    state["5.weight"] = torch.zeros(7, 32)
    torch.save(state, tmp_path / "weights.pt")
    assert problem(net, tmp_path / "weights.pt") == (
        "The weights in FILE do not fit the model: 5.weight has shape (7, 32), the model wants (10, 32)."
    )


def test_missing_and_extra_tensors_are_named(net: nn.Module, state: State, tmp_path: Path):
    state["head.bias"] = state.pop("5.bias")
    torch.save(state, tmp_path / "weights.pt")
    assert problem(net, tmp_path / "weights.pt") == (
        "The weights in FILE do not fit the model: 5.bias is missing; head.bias is not in the model."
    )


def test_of_many_problems_four_are_told(net: nn.Module, tmp_path: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    assert problem(net, tmp_path / "weights.pt").endswith("2.weight is missing; 2.bias is missing; and 6 more.")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "best_acc": 0.9, "net": state},
        lambda state: {"checkpoint": {"ema": {"net": state}, "score": torch.ones(())}},
        lambda state: {"state": {f"backbone.net.{name}": value for name, value in state.items()}},
        lambda state: {f"student.{name}": value for name, value in state.items()},
        lambda state: {"other": {"weight": torch.zeros(3)}, "net": state},
    ],
    ids=["beside scores", "deep", "prefixed and nested", "prefixed", "beside another"],
)
def test_checkpoints_are_read_as_people_have_them(net: nn.Module, state: State, tmp_path: Path, wrap):
    torch.save(wrap(state), tmp_path / "weights.pth")
    load_weights(net, tmp_path / "weights.pth")
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_weights_of_a_network_fit_what_wraps_it(net: nn.Module, state: State, tmp_path: Path):
    torch.save(state, tmp_path / "weights.pth")
    wrapper = nn.Module()
    wrapper.model = net
    load_weights(wrapper, tmp_path / "weights.pth")
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
