"""What attacks are given and models answer: converted where the meaning is plain, else refused in one sentence."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..registry import GauntletError

#: How far beyond [0, 1] rounding may leave a pixel.
_ROUNDING = 1e-6

OutputKind = Literal["logits", "probabilities", "log-probabilities", "sigmoids"]


def checked_images(images: Any, device: torch.device) -> Tensor:
    """Images (N, ...) as float32 in [0, 1] on the device, without a graph.

    Whole numbers of 8 bits (uint8) are divided by 255; other precisions are converted.

    Raises:
        GauntletError: They are no images in [0, 1]; the message names the cure.
    """
    # A copy, also of tensors made under inference mode, of which no gradient can be taken.
    found = torch.as_tensor(images).detach().to(device, copy=True)
    if found.dtype == torch.uint8:
        found = found.float() / 255
    if not found.is_floating_point():
        raise GauntletError(f"Images must hold numbers in [0, 1], got {_type(found)}: divide them, as in images / 255.")
    found = found.float()
    if found.ndim == 4 and found.shape[1] == found.shape[2] > 4 and found.shape[3] in (1, 3):
        raise GauntletError(
            f"Images must have shape (N, C, H, W), got {tuple(found.shape)}: turn them by images.permute(0, 3, 1, 2)."
        )
    if not found.isfinite().all():
        raise GauntletError("Images must lie in [0, 1], and some pixels are NaN or infinite.")
    low, high = (float(found.min()), float(found.max())) if found.numel() else (0.0, 1.0)
    if low < 0:
        cure = "where they are normalised, undo that, and let the model normalise: budgets are measured in pixels"
    else:
        cure = "divide them, as in images / 255"
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise GauntletError(f"Images must lie in [0, 1], and their pixels span [{low:.4g}, {high:.4g}]: {cure}.")
    return found.clamp_(0, 1)


def checked_labels(labels: Any, count: int, classes: int | None, device: torch.device) -> Tensor:
    """Labels (N,) as int64 on the device.

    Other whole numbers are converted, (N, 1) is flattened, and one-hot rows (N, classes) become their place.

    Args:
        labels: As given.
        count: Number of images.
        classes: Of the model, or None where its outputs are not classes.
        device: Of the victim.

    Raises:
        GauntletError: They are no labels of these images; the message names the cure.
    """
    found = torch.as_tensor(labels).detach().to(device, copy=True)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    elif found.ndim == 2 and _is_one_hot(found):
        found = found.argmax(dim=1)
    if found.shape != (count,):
        raise GauntletError(f"Labels must have shape ({count},), one class number an image, got {tuple(found.shape)}.")
    if bool((found != found.long()).any()):
        raise GauntletError(
            f"Labels must be whole numbers (classes), got {_type(found)} such as {float(found[0]):.4g}."
        )
    found = found.long()
    if count and int(found.min()) < 0:
        raise GauntletError(f"Labels must be >= 0, got {int(found.min())}: leave such images out.")
    if count and classes is not None and int(found.max()) >= classes:
        raise GauntletError(
            f"Labels must lie in 0 to {classes - 1} for a model of {classes} classes, got {int(found.max())}."
        )
    return found


def output_kind(outputs: Tensor) -> OutputKind:
    """What a model's outputs (N, classes) look like: logits are any numbers, the others bound.

    >>> output_kind(torch.tensor([[2.0, -1.0]])), output_kind(torch.tensor([[0.75, 0.25]]))
    ('logits', 'probabilities')
    >>> output_kind(torch.tensor([[2.0, -1.0]]).log_softmax(dim=1)), output_kind(torch.tensor([[0.9, 0.9]]))
    ('log-probabilities', 'sigmoids')
    """
    if not outputs.numel() or outputs.shape[1] < 2 or outputs.isnan().any():
        return "logits"
    if bool((outputs <= 0).all()) and bool((outputs.double().logsumexp(dim=1).abs() < 1e-4).all()):
        return "log-probabilities"
    if bool(((outputs < 0) | (outputs > 1)).any()):
        return "logits"
    return "probabilities" if bool(((outputs.double().sum(dim=1) - 1).abs() < 1e-3).all()) else "sigmoids"


def _is_one_hot(rows: Tensor) -> bool:
    return bool((((rows == 0) | (rows == 1)).all(dim=1) & (rows.sum(dim=1) == 1)).all())


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
