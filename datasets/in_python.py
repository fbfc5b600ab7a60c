"""Data that somebody holds in Python, as what a suite can name."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from ..registry import DATASETS, Entry, digest
from .files.labels import read_labels
from .files.paths import find_path
from .files.places import kind_of, names_path, place
from .imageset import hashed
from .returned import as_image_set
from .source import DataSource

_SPLITS = ("train", "val", "test")
_PREFIX = "in-memory/"
#: Entries of images in memory: no pattern picks what is not in the registry.
_MEMORY: dict[str, Entry] = {}


def as_spec(data: Any, *, label: str = "", source: DataSource | None = None) -> Any:
    """The spec of a data set for a suite, for :func:`~gauntlet.datasets.resolve` and everything behind it.

    Args:
        data: A name (``"cifar10"``); a path to a folder of images, a list, a table or a file of arrays; a spec
            (``{"image-folder": {"path": "photos"}}``); images, ``(images, labels)`` or ``(images, labels, classes)`` as
            arrays or tensors; an :class:`ImageSet`; a torch or Hugging Face ``Dataset``; or a mapping of splits
            (``train``, ``val``, ``test``) to any of the last three.
        label: Name in result rows; by default that of the file or folder.
        source: Where relative paths start that do not exist.

    Raises:
        GauntletError: A path leads nowhere, or the values are no images.
    """
    spec = _spec(data, source or DataSource.default())
    if not label:
        return spec
    return {"name": spec, "label": label} if isinstance(spec, str) else {**_spelled(spec), "label": label}


def _spec(data: Any, source: DataSource) -> Any:
    if isinstance(data, (str, PathLike)):
        return _of_text(data, source)
    if isinstance(data, Mapping) and not (data and set(data) <= set(_SPLITS)):
        return dict(data)
    return remembered(data if isinstance(data, Mapping) else {"test": data})


def _of_text(data: str | PathLike[str], source: DataSource) -> Any:
    text = str(fspath(data))
    is_path = not isinstance(data, str) or names_path(text)
    if not is_path and _registered(text):
        return text
    if is_path or Path(text).expanduser().is_dir():
        kind, parameters = kind_of(place(text, source))
        return {kind: parameters}
    return text  # an unknown name: whoever resolves it says which are near


def _registered(name: str) -> bool:
    return any(name.lower() in (entry.name, *entry.aliases) for entry in DATASETS)


def _spelled(spec: Mapping[str, Any]) -> dict[str, Any]:
    """``{NAME: {...}}`` as ``{name: NAME, ...}``."""
    if "name" in spec:
        return dict(spec)
    ((name, values),) = spec.items()
    return {"name": name, **(values or {})}


def _whole(value: Any) -> Any:
    """Images and labels, of which labels that are floats become the integers that they are."""
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 3) or not hasattr(value[1], "dtype"):
        return value
    labels = np.asarray(value[1])
    if labels.dtype.kind != "f":
        return value
    return (value[0], read_labels(labels, value[2] if len(value) == 3 else None, "The data")[0], *value[2:])


def remembered(splits: Mapping[str, Any]) -> str:
    """The name under which the registry knows images in memory from now on: the same for the same images.

    Raises:
        GauntletError: The values are no images.
    """
    sets = {one: as_image_set(_whole(value), name="data", split=one, classes=None) for one, value in splits.items()}
    content = [(split, hashed(one.pixels), hashed(one.labels), one.classes) for split, one in sets.items()]
    name = f"{_PREFIX}{digest(content)[:12]}"

    def given(split: str) -> Any:
        return sets[split]

    given.__module__ = "in_memory"  # of a user: Gauntlet cannot know what is in it without looking
    shown = max(sets.values(), key=lambda one: len(one.classes))
    facts = {"splits": tuple(sets), "classes": shown.classes, "shape": shown.shape}
    _MEMORY[name] = Entry("dataset", name, given, summary="Images in memory.", needs=("split",), meta=facts)
    return name


def find(name: str) -> Entry | None:
    """The entry of a name that the registry lacks: images in memory, or a path; None where it is neither.

    Raises:
        GauntletError: It is meant as a path, and nothing is there, or no kind of data set.
    """
    return _MEMORY.get(name) if name.startswith(_PREFIX) else find_path(name)
