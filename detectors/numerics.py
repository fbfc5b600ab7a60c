"""Precision and memory: what the detectors share below their formulas.

Moments, factorisations and sums are in float64. Products with a matrix, which cost most, are in the precision of the
features (float32, as a rule) around an origin among them, where they lose no more than the features' own rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..registry import GauntletError

#: Elements of the largest temporary matrix (64 MiB in float32, 128 MiB in float64).
_CHUNK_ELEMENTS = 2**24
#: Elements of a temporary that stays in a processor's cache (2 MiB in float64), where a conversion costs nothing.
_CACHED_ELEMENTS = 2**18


def double(values: Tensor) -> Tensor:
    """``values`` in float64, on the CPU where the device has no float64 (Apple's MPS). Differentiable."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def compute_dtype(values: Tensor) -> Tensor:
    """``values`` in float64 where they are that already, otherwise in float32."""
    return values if values.dtype == torch.float64 else values.float()


def like(values: Tensor, features: Tensor) -> Tensor:
    """Move values to the device and compute dtype of ``features``."""
    return values.to(features.device, torch.float64 if features.dtype == torch.float64 else torch.float32)


def rounding_of(features: Tensor) -> float:
    """The deviation that rounding alone may give a feature."""
    kind = features.dtype if features.is_floating_point() else torch.float32
    ends = [(part.amax(), -part.amin()) for part in features.split(cached_rows(features.shape[1]))]
    return float(torch.stack([end for pair in ends for end in pair]).amax()) * torch.finfo(kind).eps


def mean_row(values: Tensor) -> Tensor:
    """The mean (D,) of rows (N, D) in float64: of sums of few rows in the precision of the rows. Differentiable."""
    parts = values.split(min(cached_rows(values.shape[1]), 512))
    return double(torch.stack([compute_dtype(part).sum(dim=0) for part in parts])).sum(dim=0) / len(values)


def broken_rows(values: Tensor) -> int:
    """How many rows of values (N, ...) hold NaN or infinity."""
    rows = values.detach()[:, None].flatten(1)
    if bool(mean_row(rows).isfinite().all()):  # which NaN and infinity come through: one cheap pass is the rule
        return 0
    chunks = rows.split(rows_per_chunk(rows.shape[1]))
    return sum(int((~chunk.isfinite()).any(dim=1).sum()) for chunk in chunks)


def broken_logits(logits: Tensor) -> int:
    """How many rows of logits (N, ..., C) hold NaN or infinity, or minus infinity for every class."""
    masked = logits.detach() == -torch.inf
    return broken_rows(logits.masked_fill(masked & ~masked.all(dim=-1, keepdim=True), 0.0))


def by_rows(score: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """``score`` of aligned tensors (N, ...), some cached rows at a time, joined again."""
    rows = cached_rows(max(value[:1].numel() for value in values))
    if len(values[0]) <= rows:
        return score(*values)
    return torch.cat([score(*parts) for parts in zip(*(value.split(rows) for value in values), strict=True)])


def cached_rows(columns: int) -> int:
    """How many rows with this many columns stay in the cache."""
    return max(1, _CACHED_ELEMENTS // max(columns, 1))


def rows_per_chunk(columns: int) -> int:
    """How many rows a temporary matrix with this many columns may have."""
    return max(1, _CHUNK_ELEMENTS // max(columns, 1))


def check_temperature(temperature: float, name: str) -> float:
    """Return ``temperature``.

    Raises:
        GauntletError: It is not above 0 and finite.
    """
    if not 0 < temperature < math.inf:
        raise GauntletError(f"Detector {name!r} needs a finite temperature above 0, got {temperature:g}.")
    return temperature


def check_at_least(name: str, parameter: str, value: int, least: int = 1) -> None:
    """Refuse a count below ``least``.

    Raises:
        GauntletError: It is; the message names detector and parameter.
    """
    if value < least:
        raise GauntletError(f"Detector {name!r} needs {parameter} of at least {least}, got {value}.")
