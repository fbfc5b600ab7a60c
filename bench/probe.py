"""Probe outputs: what a model gives for sixteen fixed images, by which stored results are recognised as its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.process_state import global_state
from ..models import Calibrated

#: Largest difference of outputs that are the same, relative to the largest of them where that is above one.
TOLERANCE = 1e-4

_IMAGES = 16


def probe_images(shape: tuple[int, int, int]) -> Tensor:
    """Sixteen images (16, C, H, W) in [0, 1], the same everywhere: noise, and coarse patterns of it."""
    generator = torch.Generator().manual_seed(_IMAGES)
    fine = torch.rand(_IMAGES // 2, *shape, generator=generator)
    coarse = torch.rand(_IMAGES // 2, shape[0], 4, 4, generator=generator)
    return torch.cat([fine, F.interpolate(coarse, size=shape[1:])])


@torch.no_grad()
def probe_outputs(module: nn.Module, images: Tensor) -> Tensor:
    """All outputs of a model for the images, as one flat tensor (float32, on the CPU); a calibrator does not count."""
    while isinstance(module, Calibrated):
        module = module.model
    with global_state():
        torch.manual_seed(_IMAGES)
        found = list(_tensors(module(images.clone())))
    return torch.cat([value.float().flatten().cpu() for value in found]) if found else torch.zeros(0)


def differs(outputs: Tensor, before: Tensor) -> bool:
    """Whether two models that gave these outputs are not the same function."""
    if outputs.shape != before.shape:
        return True
    finite = before[before.isfinite()].abs()
    scale = max(1.0, float(finite.max())) if len(finite) else 1.0
    return not torch.allclose(outputs, before, rtol=0, atol=TOLERANCE * scale, equal_nan=True)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (tensor for part in value.values() for tensor in _tensors(part))
    elif isinstance(value, (list, tuple)):
        yield from (tensor for part in value for tensor in _tensors(part))
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        yield from _tensors(vars(value))
