"""Data as somebody holds it, as the spec of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..datasets import DataSource
from ..datasets import as_spec as spec_of
from ..datasets.items import is_items
from ..registry import GauntletError, parse_spec

Spec = str | dict[str, Any]


def as_spec(
    data: Any, source: DataSource, label: str, *, train: Any = None, val: Any = None, limit: int | None = None
) -> Spec:
    """The spec of a data set: of a name, a path or a spec, else of images in memory.

    Args:
        data: What :func:`gauntlet.datasets.as_spec` takes, or a ``DataLoader``.
        source: Where relative paths start.
        label: What images in memory are called.
        train: Training images in memory.
        val: Validation images in memory.
        limit: Most images of each split.

    Raises:
        GauntletError: It is none of these, or training images are given beside a named set.
    """
    given = {split: value for split, value in (("train", train), ("val", val)) if value is not None}
    if isinstance(data, (str, Mapping, Path)):
        if given:
            raise GauntletError("train= and val= go with data= given as images; a named data set has its own.")
        spec = spec_of(data, source=source)
    else:
        if named := [split for split, value in given.items() if isinstance(value, (str, Mapping))]:
            split = named[0]
            raise GauntletError(f"{split}= must be images in memory, as data= is, got {given[split]!r}.")
        spec = _in_memory({**given, "test": data}, label, source)
    if limit is None:
        return spec
    name, rest = parse_spec(spec, "dataset")
    return {"name": name, **rest, "limit": limit}


def _in_memory(sets: Mapping[str, Any], label: str, source: DataSource) -> Spec:
    """The spec of images in memory; where they are normalised, the error says where that goes."""
    try:
        return spec_of({split: _collected(value) for split, value in sets.items()}, label=label, source=source)
    except GauntletError as error:
        if "in [0, 1]" not in str(error):
            raise
        hint = "Give images in [0, 1], and what the model wants as normalize=(mean, std)."
        raise GauntletError(f"{error} {hint}") from None


def _collected(value: Any) -> Any:
    """What a ``DataLoader`` or a set of float tensors holds, joined as it is; anything else untouched."""
    if hasattr(value, "batch_size") and hasattr(value, "dataset"):
        return _joined([batch if isinstance(batch, (tuple, list)) else (batch,) for batch in value])
    if is_items(value) and not isinstance(value, (tuple, list)) and len(value) and _gives_floats(value[0]):
        items = (value[number] for number in range(len(value)))
        return _joined([tuple(torch.as_tensor(part)[None] for part in item[:2]) for item in items])
    return value


def _gives_floats(item: Any) -> bool:
    first = item[0] if isinstance(item, (tuple, list)) else None
    return isinstance(first, torch.Tensor) and first.is_floating_point()


def _joined(batches: list[Any]) -> tuple[torch.Tensor, ...]:
    if not batches:
        raise GauntletError("The data has no images.")
    columns = range(min(2, len(batches[0])))
    return tuple(torch.cat([torch.as_tensor(batch[number]) for batch in batches]) for number in columns)
