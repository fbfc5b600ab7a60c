"""Precision and memory: what the detectors share below their formulas."""

from __future__ import annotations

import torch
from torch import Tensor

#: Elements of the largest temporary matrix (64 MiB in float32, 128 MiB in float64).
_CHUNK_ELEMENTS = 2**24


def double(values: Tensor) -> Tensor:
    """``values`` in float64, on the CPU where the device has no float64 (Apple's MPS). Differentiable."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def mean_row(values: Tensor) -> Tensor:
    """The mean (D,) of rows (N, D) in float64, without a float64 copy of them all. Differentiable."""
    rows = rows_per_chunk(values.shape[1])
    return torch.stack([double(part).sum(dim=0) for part in values.split(rows)]).sum(dim=0) / len(values)


def rows_per_chunk(columns: int) -> int:
    """How many rows a temporary matrix with this many columns may have."""
    return max(1, _CHUNK_ELEMENTS // max(columns, 1))
