"""What a dataset function returned, brought into the one format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..registry import GauntletError, nearest
from .files.labels import read_labels
from .imageset import ImageSet, type_of
from .items import image_set_of, is_items


def as_image_set(value: Any, *, name: str, split: str, classes: Sequence[str] | None) -> ImageSet:
    """What a dataset function returned, as an :class:`ImageSet`.

    Args:
        value: An ``ImageSet``, images alone, ``(images, labels)``, ``(images, labels, class_names)``, or a torch
            ``Dataset`` of images and labels. Labels may be names of classes: of declared ones, else their sorted names
            become the classes.
        name: The dataset's name.
        split: The split that was asked for.
        classes: Declared class names; without any, the names are the numbers up to the largest label.

    Raises:
        GauntletError: It is none of these, or its contents do not fit together.
    """
    if isinstance(value, ImageSet):
        return replace(value, name=name, split=split)
    if not isinstance(value, (tuple, list)) and is_items(value):
        return image_set_of(value, name, split, classes)
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not 1 <= len(parts) <= 3:
        raise GauntletError(
            f"Dataset {name!r} ({split}) must return images, (images, labels), (images, labels, class_names) or an "
            f"ImageSet, got {len(parts)} values."
        )
    pixels = _pixels(_tensor(parts[0], name, "images"))
    if len(parts) == 3:
        classes = parts[2]
    texts = _texts(parts[1]) if len(parts) > 1 else None
    if texts is not None:
        classes = sorted(set(texts)) if classes is None else list(map(str, classes))
        parts = (parts[0], [_class_index(text, classes, name) for text in texts])
    labels = _tensor(parts[1], name, "labels") if len(parts) > 1 else torch.full((len(pixels),), -1)
    if labels.ndim == 2:
        labels = torch.from_numpy(read_labels(labels.cpu().numpy(), None, f"Dataset {name!r} ({split})")[0])
    if labels.is_floating_point():
        raise GauntletError(f"Dataset {name!r} ({split}): labels must be integers, got {type_of(labels)}.")
    labels = labels.long()
    if classes is None:
        classes = [str(label) for label in range(int(labels.max()) + 1)] if labels.numel() else []
    names = tuple(str(class_name) for class_name in classes)
    return ImageSet(pixels, labels, names, torch.arange(len(pixels)), name, split)


def _texts(labels: Any) -> list[str] | None:
    """Labels that are texts, as a CSV file gives them; None where they are something else."""
    listed = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(listed, (list, tuple)) and listed and all(isinstance(label, str) for label in listed):
        return list(listed)
    return None


def _class_index(text: str, classes: Sequence[str], name: str) -> int:
    if text in classes:
        return list(classes).index(text)
    raise GauntletError(
        f"Dataset {name!r} has a label {text!r}, which is none of its classes; {nearest(text, classes)}"
    )


def _tensor(value: Any, name: str, what: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise GauntletError(
            f"Dataset {name!r}: its {what} must be an array or a tensor, got {type(value).__name__}."
        ) from None


def _pixels(images: Tensor) -> Tensor:
    if images.ndim == 3:  # (N, H, W): grey
        images = images[:, None]
    return images.float() if images.is_floating_point() else images
