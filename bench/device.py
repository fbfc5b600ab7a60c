"""The device that a run computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import GauntletError, nearest

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        GauntletError: The name is unknown, or this machine has no such device.
    """
    import torch

    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and not index.isdigit()):
        hint = nearest(kind, ["auto", "cpu", "cuda", "mps"])
        raise GauntletError(f"Unknown device {name!r}: give auto, cpu, cuda, cuda:INDEX or mps; {hint}")
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    if kind == "cuda" and (not has_cuda or int(index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if has_cuda else 0
        raise GauntletError(f"There is no device {name!r} here ({count} CUDA devices found); use --device auto or cpu.")
    if kind == "mps" and not has_mps:
        raise GauntletError("There is no MPS device here; use --device auto or cpu.")
    return torch.device(name)
