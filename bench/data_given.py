"""Data as somebody holds it, as the spec of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import datasets
from ..datasets import ImageSet
from ..datasets.imageset import hashed
from ..datasets.returned import as_image_set
from ..registry import GauntletError, digest, parse_spec
from .lending import Lending


def as_spec(
    data: Any, lending: Lending, label: str, *, train: Any = None, val: Any = None, limit: int | None = None
) -> str | dict[str, Any]:
    """The spec of a data set: as it is where one is named, else of images that are lent.

    Args:
        data: A name, a path, a spec, ``(images, labels)``, an ``ImageSet``, a ``Dataset`` or a ``DataLoader``.
        lending: Receives images in memory.
        label: What images in memory are called.
        train: Training images in memory.
        val: Validation images in memory.
        limit: Most images of each split.

    Raises:
        GauntletError: It is none of these, or training images are given beside a named set.
    """
    if isinstance(data, (str, Mapping, Path)):
        if train is not None or val is not None:
            raise GauntletError("train= and val= go with data= given as images; a named data set has its own.")
        name, rest = parse_spec(datasets.as_spec(data), "dataset")
        return {"name": name, **rest, "limit": limit} if limit is not None else {"name": name, **rest} if rest else name
    given = {"train": train, "val": val, "test": data}
    sets = {split: _image_set(value, label, split) for split, value in given.items() if value is not None}
    classes = max((one.classes for one in sets.values()), key=len)
    content = digest([[split, _content(one)] for split, one in sets.items()], list(classes))

    def images(split: str) -> Any:
        return sets[split].pixels, sets[split].labels, classes

    facts = {"splits": tuple(sets), "classes": classes, "shape": sets["test"].shape}
    spec = lending.add("dataset", label, images, content, needs=("split",), **facts)
    return spec if limit is None else {**spec, "limit": limit}


def _image_set(value: Any, label: str, split: str) -> ImageSet:
    """Images in memory, checked.

    Raises:
        GauntletError: They are no images in [0, 1] with labels.
    """
    if isinstance(value, ImageSet):
        return value
    if isinstance(value, (str, Mapping)):
        raise GauntletError(f"{split}= must be images in memory, as data= is, got {value!r}.")
    if hasattr(value, "batch_size") and hasattr(value, "dataset"):
        value = _joined(list(value))
    try:
        return as_image_set(value, name=label, split=split, classes=None)
    except GauntletError as error:
        if "in [0, 1]" in str(error):
            raise GauntletError(
                f"{error} Give images in [0, 1], and what the model wants as normalize=(mean, std)."
            ) from None
        raise


def _joined(batches: list[Any]) -> tuple[torch.Tensor, ...]:
    if not batches:
        raise GauntletError("The data has no images.")
    parts = [batch if isinstance(batch, (tuple, list)) else (batch,) for batch in batches]
    return tuple(
        torch.cat([torch.as_tensor(part[number]) for part in parts]) for number in range(min(2, len(parts[0])))
    )


def _content(images: ImageSet) -> str:
    return digest(hashed(images.pixels), hashed(images.labels))
