"""From what a suite says about a dataset to a :class:`ResolvedDataset`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..registry import DATASETS, Entry, Selected, parse_spec, select_one
from ..registry.selection import default_label
from .options import OPTIONS, Options
from .resolved import ResolvedDataset
from .source import DataSource

__all__ = ["ResolvedDataset", "resolve"]


def resolve(
    spec: Any,
    source: DataSource,
    *,
    shape: tuple[int, int, int] | None = None,
    of: str | None = None,
    labelled: bool = False,
) -> ResolvedDataset:
    """Find the dataset that ``spec`` names and check all that can be checked without loading it.

    Args:
        spec: ``digits``, ``{digits: {hold_out: [0]}}``, ``{name: cifar10, shape: [1, 28, 28], label: grey}`` or a
            ``Selected`` of the registry (made with ``options=OPTIONS``).
        source: Where files come from.
        shape: (C, H, W) that the images must have, that of the in-distribution set. A dataset with a ``shape``
            parameter of its own renders it, unless the suite gave that parameter; all others are converted.
        of: Name of the dataset that sets made from another one (``permuted``) take, unless the suite says which.
        labelled: Leave out images of unknown class (label -1), if others have one: for in-distribution sets.

    Raises:
        GauntletError: A name, parameter, option or class is unknown or out of range.
    """
    selected = spec if isinstance(spec, Selected) else select_one(DATASETS, spec, options=OPTIONS)
    entry, parameters = selected.entry, dict(selected.parameters)
    options = Options.parse(selected.options, entry.name)
    known = entry.defaults()  # a path that stands for a data set brings its place along
    parameters = {one: known[one] for one in entry.meta.get("places", ()) if known.get(one)} | parameters
    if shape is not None and entry.has("shape"):
        parameters.setdefault("shape", tuple(shape))
    if of is not None and entry.has("of") and not DATASETS.get(of).has("of"):
        parameters.setdefault("of", of)
    resolved = ResolvedDataset(
        entry,
        label=_label(spec, selected, options),
        parameters=parameters,
        options=options,
        source=source,
        shape=shape,
        labelled=labelled,
    )
    if options.hold_out or options.only:
        _ = resolved.classes  # a misspelt class is reported now, not when the images are wanted
    return resolved


def build_dataset(entry: Entry, parameters: Mapping[str, Any]) -> ResolvedDataset:
    """The dataset of an entry, with parameters and options, from the usual folders.

    Raises:
        GauntletError: A parameter, option or class is unknown or out of range.
    """
    return resolve({"name": entry.name, **parameters}, DataSource.default())


def _label(spec: Any, selected: Selected, options: Options) -> str:
    """The label that was given, else one that tells ``digits only=0`` from ``digits``; of files, the folder's name."""
    explicit = not isinstance(spec, Selected) and "label" in parse_spec(spec, "dataset")[1]
    if not explicit and (name := _name_of_place(selected)):
        return default_label(name, options.recorded())
    if explicit or selected.label != default_label(selected.entry.name, selected.parameters):
        return selected.label
    return default_label(selected.label, options.recorded())


def _name_of_place(selected: Selected) -> str:
    """The name of the folder or file that a set is read from; empty where it is none's."""
    values = {**selected.entry.defaults(), **selected.parameters}
    given = (values.get(place) for place in selected.entry.meta.get("places", ()))
    path = next((Path(str(value)).expanduser() for value in given if value), None)
    return "" if path is None else path.absolute().name if path.is_dir() else path.stem
