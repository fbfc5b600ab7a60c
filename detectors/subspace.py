"""The directions in which training features hardly vary, as ViM and Residual use them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..registry import GauntletError
from .moments import class_moments
from .numerics import by_rows, compute_dtype, double, like
from .outputs import Head, Outputs, random_projection
from .triangular import lower, times


class ResidualSpace(NamedTuple):
    """An origin, and an orthonormal basis of the directions outside the principal ones, zero above its diagonal."""

    origin: Tensor  # (D,)
    basis: Tensor  # (D, D - dim)


def principal_dimension(width: int, dim: int | None, name: str) -> int:
    """``dim``, or by default half the width, at most 1000 from 2048 features on and 512 from 1024 on.

    Raises:
        GauntletError: It is not below the width, so that nothing would be left outside.
    """
    chosen = {0: width // 2, 1: 512}.get(width // 1024, 1000) if dim is None else dim
    if not 0 <= chosen < width:
        raise GauntletError(f"Detector {name!r} needs dim of at least 0 and below the {width} features, got {chosen}.")
    return chosen


def fit_residual_space(train: Outputs, head: Head, dim: int) -> ResidualSpace:
    """Principal directions of training features (N, D) about the origin ``-W+ b``, in which logits are purely linear.

    Where the features are projected, so is the origin.
    """
    moments = class_moments(train)
    origin = -torch.linalg.pinv(double(head.weight)) @ double(head.bias)
    width = len(moments.origin)
    if len(origin) != width:
        origin = origin @ double(random_projection(len(origin), width, origin.device))
    _, vectors = torch.linalg.eigh(moments.total(origin))
    return ResidualSpace(origin, lower(vectors[:, : width - dim]))


def residual_norm(features: Tensor, space: ResidualSpace) -> Tensor:
    """Lengths (N,) of features (N, D) outside the principal directions, float64."""
    origin, basis = (like(part, features) for part in space)
    return by_rows(
        lambda part: double(torch.linalg.vector_norm(times(compute_dtype(part) - origin, basis), dim=1)), features
    )
