"""Normalisations that people train with: by name, by numbers, or found out from the library that made a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..registry import GauntletError, nearest
from .layers import Normalize

#: Mean and standard deviation of images in [0, 1], by the name of the data they come from.
USUAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "0..255": ((0.0,), (1 / 255,)),
}

_WORDS = {
    "imagenet": "ImageNet's mean and std",
    "half": "mean 0.5 and std 0.5, which is [-1, 1]",
    "cifar10": "CIFAR-10's mean and std",
    "cifar100": "CIFAR-100's mean and std",
    "mnist": "MNIST's mean and std",
    "clip": "CLIP's mean and std",
    "0..255": "pixels from 0 to 255",
}


def in_words(name: str) -> str:
    """What a usual normalisation is, for sentences."""
    return _WORDS[name]


def fitting(channels: int) -> list[str]:
    """The usual normalisations that images of so many channels can have."""
    return [name for name, (mean, _) in USUAL.items() if len(mean) in (1, channels)]


def read_normalisation(value: Any, model: Any) -> Callable[[Tensor], Tensor] | None:
    """What ``normalize=`` of :func:`gauntlet.evaluate` says, as a function of images in [0, 1].

    Args:
        value: None, ``"auto"``, a name of :data:`USUAL`, ``(mean, std)`` or a callable.
        model: Whose library is asked where it says ``"auto"``.

    Raises:
        GauntletError: It is none of these, or nothing is known of the model.
    """
    if value is None or isinstance(value, nn.Module) or callable(value):
        return value
    if value == "auto":
        return Normalize(*_of_library(model))
    if isinstance(value, str):
        if value not in USUAL:
            raise GauntletError(f"normalize={value!r} is unknown; {nearest(value, [*USUAL, 'auto'])}")
        return Normalize(*USUAL[value])
    try:
        mean, std = (tuple(map(float, _listed(part))) for part in value)
    except (TypeError, ValueError):
        raise GauntletError(
            f"normalize must be (mean, std), a callable, 'auto' or one of {', '.join(USUAL)}, got {value!r}."
        ) from None
    if not all(part > 0 for part in std) or len(mean) != len(std):
        raise GauntletError(f"normalize=(mean, std) needs as many positive stds as means, got {mean} and {std}.")
    return Normalize(mean, std)


def _listed(part: Any) -> Sequence[float]:
    values = part.tolist() if hasattr(part, "tolist") else part
    return values if isinstance(values, (list, tuple)) else [values]


def _of_library(model: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std that the model's library has noted on it.

    Raises:
        GauntletError: There is nothing.
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else [model]
    for part in parts:
        known = getattr(part, "pretrained_cfg", None) or getattr(part, "normalisation", None)
        known = known if isinstance(known, dict) else vars(known) if hasattr(known, "__dict__") else None
        if known and known.get("mean") and known.get("std"):
            return tuple(known["mean"]), tuple(known["std"])
    if type(parts[0]).__module__.startswith("torchvision.models"):
        return USUAL["imagenet"]
    raise GauntletError(
        f"normalize='auto': {type(model).__name__} does not say what it was trained with (timm's pretrained_cfg, or a "
        "model of torchvision); give (mean, std), a callable, or one of " + f"{', '.join(USUAL)}."
    )
