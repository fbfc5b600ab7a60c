"""Epoch checkpoints: everything an interrupted training needs to go on as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..tensor_files import plain

#: Raised when the content changes; an epoch checkpoint of another version is ignored.
_VERSION = "1"

State = dict[str, dict[str, Tensor]]


class EpochFile:
    """The last finished epoch of one training, in one safetensors file that is replaced whole.

    Args:
        path: Where it lies; its folder is made on the first save.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
        """Keep groups of tensors and JSON-able facts. A folder that cannot be written costs only the resuming."""
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(plain(flat(state)), draft, {"version": _VERSION, "facts": json.dumps(dict(facts))})
            draft.replace(self.path)

    def load(self) -> tuple[State, dict[str, Any]] | None:
        """What was saved last; None where there is nothing, or nothing that can be read."""
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("version") != _VERSION:
                    return None
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
                return nested(found), json.loads(metadata["facts"])
        except Exception:  # absent or damaged: the training starts anew, as it would have without the file
            return None

    def remove(self) -> None:
        """The training is over."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def flat(groups: Mapping[Any, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Groups of named tensors as one, each under ``GROUP/NAME``."""
    return {f"{group}/{name}": value for group, held in groups.items() for name, value in held.items()}


def nested(tensors: Mapping[str, Tensor]) -> State:
    """The groups that :func:`flat` made one of."""
    state: State = {}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        state.setdefault(group, {})[name] = value
    return state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's memory (moments, step counts) by parameter number and name."""
    return flat(optimizer.state_dict()["state"])


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser its memory back."""
    held = {int(number): held for number, held in nested(tensors).items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": held})
