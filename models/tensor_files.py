"""Tensors in safetensors files that carry a checksum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..registry.safe_files import CHECKSUM, DamagedError, checksum, write_whole


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors whole, with their checksum.

    Raises:
        OSError: The file cannot be written.
    """
    held = plain(tensors)
    write_whole(path, lambda draft: save_file(held, draft, {CHECKSUM: tensors_checksum(held)}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU, verified where it carries a checksum.

    Raises:
        DamagedError: They are not what was written.
        OSError: The file cannot be read.
        SafetensorError: It is no such file.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        wanted = (file.metadata() or {}).get(CHECKSUM)
    if wanted is not None and wanted != tensors_checksum(tensors):
        raise DamagedError("its checksum differs")
    return tensors


def tensors_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, types, shapes and bits."""
    return checksum((name, str(value.dtype), tuple(value.shape), _bits(value)) for name, value in tensors.items())


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU that share no memory and have plain strides, as safetensors wants them."""
    return {
        name: value.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, value in state.items()
    }


def _bits(value: Tensor) -> object:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else b""
