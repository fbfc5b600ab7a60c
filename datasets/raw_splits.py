"""The splits that a factory makes, before options apply: which there are, where they come from, what fails."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..registry import Entry, GauntletError, NotAvailable, Obstacle, nearest
from .collection import Collection
from .imageset import ImageSet
from .options import DEFAULT_VAL
from .process_state import global_state
from .returned import as_image_set
from .source import DataSource
from .splitting import stratified
from .streamed import joined

_ORDER = ("train", "val", "test")

#: What stands for the facts of a plug-in's set that cannot be made, so that its cells can be planned, and then fail.
NO_SHAPE = (3, 32, 32)
NO_CLASSES = ("0", "1")


class BrokenDataset(GauntletError):
    """A plug-in's function raised, or what it returned is no set of images."""


class RawSplits:
    """The splits of one dataset with fixed parameters, of which ``val`` may be cut from ``train``.

    Args:
        entry: The registry's entry. Its ``files`` fact lists the paths of a split, its ``download`` fact fetches them,
            and its ``describe`` fact may add to result rows what only they tell.
        parameters: Of its factory, without defaults; those that ``files`` names are passed to it.
        source: Where files come from.
        val: Share of ``train`` that becomes ``val``; None: a tenth, unless the factory makes a ``val`` itself.
    """

    def __init__(self, entry: Entry, parameters: dict[str, Any], source: DataSource, val: float | None) -> None:
        self.entry, self.parameters, self.source = entry, parameters, source
        self.all_parameters = {**entry.defaults(), **parameters}
        self.is_foreign = not entry.is_ours
        self._cuts_val, self.val = val is not None, val or DEFAULT_VAL
        self._unfinished: dict[str, ImageSet] = {}
        self.broken: dict[str, BrokenDataset] = {}
        self._failure: str | None = None  # of a download

    @cached_property
    def opened(self) -> Collection | None:
        """What the parameters lead to, where the entry is a kind of data set that opens files.

        Raises:
            GauntletError: They lead to nothing that it can read.
        """
        return self.entry.factory(self.source, **self.all_parameters) if self.entry.meta.get("opens") else None

    @cached_property
    def produced(self) -> tuple[str, ...]:
        """Splits that the factory makes.

        Raises:
            GauntletError: Others than train, val and test are declared.
        """
        declared = self.entry.meta.get("splits")
        if declared is None:
            declared = ("test",) if self.opened is None else self.opened.splits
        splits = (declared,) if isinstance(declared, str) else tuple(declared)
        if not splits or not set(splits) <= set(_ORDER):
            raise GauntletError(
                f"Dataset {self.entry.name!r} ({self.entry.where}) declares the splits {splits}: use train, val and "
                "test."
            )
        return splits

    @cached_property
    def declared(self) -> tuple[str, ...]:
        """Splits that exist when all files are here."""
        return tuple(split for split in _ORDER if split in self.produced or self.is_cut(split))

    def is_cut(self, split: str) -> bool:
        """Whether ``split`` is a part of the factory's train (and val) images."""
        free = "val" not in self.produced or self._cuts_val
        return split in ("train", "val") and "train" in self.produced and free

    def _origins(self, split: str) -> tuple[str, ...]:
        """The factory's splits that ``split`` is made from."""
        return tuple(one for one in ("train", "val") if one in self.produced) if self.is_cut(split) else (split,)

    # -- files ------------------------------------------------------------------------------------------------

    def files(self, split: str) -> list[Path]:
        """The files that ``split`` is read from, whether they exist or not.

        Raises:
            GauntletError: There is no such split.
        """
        if unknown := self._unknown(split):
            raise GauntletError(unknown)
        return [path for origin in self._origins(split) for path in self._files(origin)]

    def content(self, split: str) -> list[Any]:
        """What the files of ``split`` hold: md5 sums, or what the opened collection says.

        Raises:
            GauntletError: There is no such split, or a file cannot be read.
        """
        if self.opened is None:
            return self.source.md5s(self.files(split))
        return [self.opened.content(origin) for origin in self._origins(split)]

    @property
    def deciding(self) -> dict[str, Any]:
        """The parameters that decide the images, rather than say where they are."""
        places = self.entry.meta.get("places", ())
        return {name: value for name, value in self.all_parameters.items() if name not in places}

    def _files(self, origin: str) -> list[Path]:
        if self.opened is not None:
            return self.opened.paths(origin)
        listed = self.entry.meta.get("files")
        if not callable(listed):
            return self.entry.files
        return [Path(path) for path in listed(origin, self.source, **_accepted(listed, self.all_parameters))]

    def facts(self) -> dict[str, Any]:
        """What its ``describe`` fact says of the files that are here, for result rows."""
        if self.opened is not None:
            return dict(self.opened.facts())
        describe = self.entry.meta.get("describe")
        return {} if describe is None else describe(self.source, **_accepted(describe, self.all_parameters))

    def obstacle(self, split: str) -> Obstacle:
        """What is absent, after a download where that is allowed."""
        try:
            if unknown := self._unknown(split):
                return unknown
            absent = self._absent(split)
        except NotAvailable as error:  # of what opens files
            return str(error)
        if absent and self.source.download and "download" in self.entry.meta and self._failure is None:
            self._download(split)
            absent = self._absent(split)
        return self._sentence(split, absent) if absent else ""

    def _absent(self, split: str) -> list[Path]:
        if self.opened is not None:  # which was listed just now
            return []
        return [path for path in self.files(split) if not path.exists()]

    def _download(self, split: str) -> None:
        download = self.entry.meta["download"]
        try:
            for origin in self._origins(split):
                download(origin, self.source, **_accepted(download, self.all_parameters))
        except (OSError, RuntimeError) as error:  # no network, a full disk, a wrong checksum
            self._failure = str(error).strip().rstrip(".")

    def _sentence(self, split: str, absent: list[Path]) -> str:
        folder = Path(os.path.commonpath([path.parent for path in absent]))
        names, origins = ", ".join(str(path.relative_to(folder)) for path in absent), " and ".join(self._origins(split))
        start = f"Dataset {self.entry.name!r} ({origins}) needs {names} in {folder}"
        if self._failure is not None:
            return f"{start}, and the download failed: {self._failure}."
        if "download" in self.entry.meta:
            return f"{start}: put them there, or pass --download to let torchvision fetch them."
        return f"{start}: put them there{self.entry.meta.get('home', '')}."

    def require(self, split: str) -> None:
        """Raise unless ``split`` can be made.

        Raises:
            NotAvailable: Files are absent.
            GauntletError: There is no such split.
        """
        if unknown := self._unknown(split):
            raise GauntletError(unknown)
        if obstacle := self.obstacle(split):
            raise NotAvailable(obstacle)

    def _unknown(self, split: str) -> Obstacle:
        if split in self.declared:
            return ""
        hint = f"it has {', '.join(self.declared)}." if split in _ORDER else nearest(split, self.declared)
        return f"Dataset {self.entry.name!r} has no split {split!r}; {hint}"

    # -- images -----------------------------------------------------------------------------------------------

    def take(self, split: str) -> ImageSet:
        """The images of ``split``, kept until :meth:`forget`, since train and val are made together."""
        if split not in self._unfinished:
            self._unfinished.update(self._cut() if self.is_cut(split) else {split: self._make(split)})
        return self._unfinished[split]

    def forget(self, split: str) -> None:
        """Free the images of ``split``: what options made of them is kept elsewhere."""
        del self._unfinished[split]

    def peek(self) -> ImageSet:
        """Images of the first split that is here, for what a plug-in did not declare.

        Raises:
            NotAvailable: No split is here.
        """
        split = next((one for one in self.declared if not self.obstacle(one)), self.declared[0])
        self.require(split)
        return self.take(split)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes: as declared, else as the first split has them."""
        declared = self.entry.meta.get("classes")
        if declared is not None:
            return tuple(map(str, declared))
        if self.opened is not None:
            return self.opened.classes
        try:
            return self.peek().classes
        except BrokenDataset:
            return NO_CLASSES

    @contextlib.contextmanager
    def blaming_plugin(self, split: str) -> Iterator[None]:
        """An exception of a plug-in's own code becomes a sentence that names it, and is raised again the next time.

        Raises:
            BrokenDataset: The code inside raised, now or before.
        """
        if split in self.broken:
            raise self.broken[split]
        try:
            yield
        except (NotAvailable, BrokenDataset, MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:  # of any kind: the code is the user's own
            if not self.is_foreign:
                raise
            start = "" if isinstance(error, GauntletError) else f"Dataset {self.entry.name!r} ({split}): "
            what = str(error) if isinstance(error, GauntletError) else f"{type(error).__name__}: {error}"
            sentence = f"{start}{' '.join(what.split()).rstrip('.')} (plug-in {self.entry.where})."
            self.broken[split] = BrokenDataset(sentence)
            raise self.broken[split] from error

    def _make(self, split: str) -> ImageSet:
        if self.opened is not None:
            return as_image_set(self.opened.load(split), name=self.entry.name, split=split, classes=None)
        arguments = {"split": split, "source": self.source}
        with self.blaming_plugin(split), global_state():
            made = self.entry.factory(*(arguments[need] for need in self.entry.needs), **self.parameters)
            return as_image_set(made, name=self.entry.name, split=split, classes=self.entry.meta.get("classes"))

    def _cut(self) -> dict[str, ImageSet]:
        """Train and val: a stratified share of all of train, whatever classes and limits apply afterwards."""
        whole = _joined([self._make(split) for split in self._origins("train")])
        count = min(max(round(self.val * len(whole)), 1), len(whole) - 1)
        inside = _sparing(whole.labels, stratified(whole.labels, count))
        return {
            "train": replace(whole.subset(~inside), split="train"),
            "val": replace(whole.subset(inside), split="val"),
        }


def _sparing(labels: Tensor, chosen: Tensor) -> Tensor:
    """The choice (N,) without the last image of any class (labels (N,)): each keeps one to be trained on."""
    spared = chosen.clone()
    for label in labels.unique():
        own = labels == label
        if bool(chosen[own].all()):
            spared[own.nonzero()[0]] = False
    return spared


def _joined(parts: list[ImageSet]) -> ImageSet:
    if len(parts) == 1:
        return parts[0]
    labels, indices = (torch.cat([getattr(part, field) for part in parts]) for field in ("labels", "indices"))
    return replace(parts[0], pixels=joined([part.pixels for part in parts]), labels=labels, indices=indices)


def _accepted(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that ``function`` has a parameter for."""
    known = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
        return dict(values)
    names = {parameter.name for parameter in known}
    return {name: value for name, value in values.items() if name in names}
