"""Lengths after a linear map: the map is turned until a good part of it is zero, and that part is not multiplied."""

from __future__ import annotations

import torch
from torch import Tensor

#: Columns of a map that are multiplied together; what lies above the first one's diagonal is left out for all.
_COLUMNS = 64


def lower(matrix: Tensor) -> Tensor:
    """``matrix`` (D, rank) times an orthogonal matrix, such that nothing is above the diagonal.

    The lengths of ``x @ matrix``, and the distances between such points, stay the same for every x.
    """
    return torch.linalg.qr(matrix.T, mode="r").R.T.contiguous()


def times(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix`` (N, rank) for a ``matrix`` (D, rank) with nothing above the diagonal: up to half the work."""
    blocks = enumerate(matrix.split(_COLUMNS, dim=1))
    parts = [rows[:, _COLUMNS * number :] @ block[_COLUMNS * number :] for number, block in blocks]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
