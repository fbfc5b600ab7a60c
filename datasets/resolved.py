"""A dataset of a suite: its images, its fingerprint, and what is missing."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from ..registry import CORRUPTIONS, Entry, GauntletError, Obstacle, digest, source_fingerprint
from ..registry.component import as_call
from .collection import Collection
from .convert import conversion, convert
from .corruptions import corrupted
from .imageset import ImageSet, hashed
from .options import SHIFT, Options
from .raw_splits import NO_CLASSES, NO_SHAPE, BrokenDataset, RawSplits
from .source import DataSource
from .splitting import fixed_subset

#: Raise it when the options or the conversion come to give other images from the same files.
_VERSION = 1

Shape = tuple[int, int, int]


class ResolvedDataset:
    """A dataset with its parameters and options; made by :func:`resolve`. Only :meth:`load` loads images.

    Attributes:
        entry: The registry's entry.
        label: Name in result rows.
        parameters: Parameters of the factory, without defaults.
        source: Where its files come from.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        label: str,
        parameters: dict[str, Any],
        options: Options,
        source: DataSource,
        shape: Shape | None = None,
        labelled: bool = False,
    ) -> None:
        self.entry, self.label, self.parameters, self.source = entry, label, parameters, source
        self._labelled = labelled
        self._options = options
        self._raw = RawSplits(entry, parameters, source, options.val)
        self._targets: list[Shape] = [target for target in (options.shape, shape) if target is not None]
        self._loaded: dict[str, ImageSet] = {}
        self._fingerprints: dict[str, str] = {}

    def __repr__(self) -> str:
        return as_call("create_dataset", (self.name,), {**self.parameters, **self.options})

    def __getstate__(self) -> dict[str, Any]:
        """Pickled, it goes without its images: another process loads them itself."""
        return {**self.__dict__, "_unfinished": {}, "_loaded": {}}

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.entry.name

    @property
    def collection(self) -> Collection | None:
        """What the parameters lead to, where it is a kind of data set that opens files.

        Raises:
            GauntletError: They lead to nothing that it can read.
        """
        return self._raw.opened

    @property
    def broken(self) -> str:
        """Why the images of a plug-in cannot be made, as far as they were asked for; empty if they can."""
        return next((str(error) for error in self._raw.broken.values()), "")

    @property
    def options(self) -> dict[str, Any]:
        """The options that were given, for result rows."""
        return self._options.recorded()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that stay after ``hold_out`` and ``only``."""
        return tuple(self._raw.classes[index] for index in self._kept)

    @cached_property
    def shape(self) -> Shape:
        """(C, H, W) of the images as loaded."""
        if self._targets:
            return self._targets[-1]
        known = self._native_shape
        if known is None:
            with contextlib.suppress(BrokenDataset):
                known = (next(iter(self._loaded.values())) if self._loaded else self._raw.peek()).shape
        channels, height, width = known or NO_SHAPE
        return channels, height, width

    @property
    def _native_shape(self) -> Shape | None:
        """Shape of the images as the factory makes them, where that is known beforehand."""
        if "shape" in self.entry.meta:
            return self.entry.meta["shape"]
        if self._raw.opened is not None:
            return self._raw.opened.shape
        return self._raw.all_parameters["shape"] if self.entry.has("shape") else None

    @property
    def conversion(self) -> str:
        """What is done to size and colour, in words; empty where it is nothing or shows only on loading."""
        native = self._native_shape
        if native is None:
            return ""
        shapes: list[Shape] = [native, *self._targets]
        steps = [conversion(old, new, self.name) for old, new in pairwise(shapes)]
        return "; ".join(filter(None, steps))

    def describe(self) -> dict[str, Any]:
        """Everything that was chosen, JSON-able, for result rows."""
        original = self.entry.meta.get("stand_in")  # what it stands in for, which tables say in a footnote
        facts = {"name": self.name, **self.parameters, **self.options, **({"stand_in": original} if original else {})}
        facts |= self._raw.facts()
        return {**facts, "conversion": self.conversion} if self.conversion else facts

    @property
    def declared_splits(self) -> tuple[str, ...]:
        """The splits that it has, whether their files are here or not."""
        return self._raw.declared

    def is_same_set(self, other: ResolvedDataset) -> bool:
        """Whether both are views of the images of one set."""
        places = self.entry.meta.get("places", ())
        own, others = self._raw.all_parameters, other._raw.all_parameters
        return self.name == other.name and all(own.get(one) == others.get(one) for one in places)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose files are here."""
        return tuple(split for split in self._raw.declared if not self.obstacle(split))

    def obstacle(self, split: str) -> Obstacle:
        """Why ``split`` cannot be loaded: what is absent and how to get it; empty if it can.

        Where downloads are allowed, absent files are downloaded now.
        """
        return self._raw.obstacle(split)

    def files(self, split: str) -> list[Path]:
        """The files that ``split`` is read from, whether they exist or not.

        Raises:
            GauntletError: There is no such split.
        """
        return self._raw.files(split)

    def fingerprint(self, split: str) -> str:
        """Digest of everything that decides the images of ``split``.

        No image is loaded, except of a plug-in that does not declare its ``files``: it may read any.

        Raises:
            NotAvailable: Files are absent.
            GauntletError: There is no such split.
        """
        if split not in self._fingerprints:
            self._raw.require(split)
            self._fingerprints[split] = digest(
                _VERSION,
                (self.name, split, source_fingerprint(self.entry), self._raw.deciding),
                self._raw.content(split),
                self._kept if self._selects_classes else None,
                self._options.limit,
                self._raw.val if self._raw.is_cut(split) else None,
                self._targets,
                *(self._changes() if split == "test" else ()),
                *(self._content(split) if self._is_opaque else ()),
                *(["broken", self.broken] if self.broken else ()),
                *(["labelled"] if self._labelled and self._raw.is_foreign else ()),
            )
        return self._fingerprints[split]

    def _changes(self) -> list[Any]:
        chosen: list[tuple[Any, ...]] = [*((SHIFT + name,) for name in self._options.shift), *self._options.corrupt]
        return [(name, *rest, source_fingerprint(CORRUPTIONS.get(name))) for name, *rest in chosen]

    @property
    def _is_opaque(self) -> bool:
        return "files" not in self.entry.meta and self._raw.is_foreign

    def _content(self, split: str) -> list[str]:
        try:
            images = self.load(split)
        except BrokenDataset:
            return []
        return [hashed(images.pixels), hashed(images.labels)]

    def load(self, split: str) -> ImageSet:
        """The images of ``split``, on the CPU; the same object each time.

        Raises:
            NotAvailable: Files are absent.
            GauntletError: There is no such split, a file is damaged, or no image is left.
        """
        if split not in self._loaded:
            self._raw.require(split)
            with self._raw.blaming_plugin(split):
                images = self._limit(self._with_class(self._choose_classes(self._raw.take(split))))
                for target in self._targets:
                    images = convert(images, target)
            self._raw.forget(split)
            if not len(images) and not (split == "val" and self._raw.is_cut(split)):  # too few to be shared
                names = ", ".join(self.classes) or "any class"
                raise GauntletError(f"Dataset {self.name!r}: its {split} split has no images of {names}.")
            self._loaded[split] = self._changed(images) if split == "test" else images
        return self._loaded[split]

    def _with_class(self, images: ImageSet) -> ImageSet:
        """The images that have a label, where that is wanted and some have one; how many have none is said."""
        unknown = images.labels < 0
        count = int(unknown.sum())
        if not self._labelled or count in (0, len(images)):
            return images
        note = f"{count} of {len(images)} images without a label left out"
        warnings.warn(f"Dataset {self.name!r} ({images.split}): {note}.", stacklevel=2)
        return replace(images.subset(~unknown), conversion="; ".join(filter(None, (images.conversion, note))))

    def _changed(self, images: ImageSet) -> ImageSet:
        """Test images after the shifts and corruptions that were asked for."""
        for name in self._options.shift:
            images = corrupted(images, CORRUPTIONS.get(SHIFT + name), 1, exact=True)
        for name, severity in self._options.corrupt:
            images = corrupted(images, CORRUPTIONS.get(name), severity)
        return images

    @cached_property
    def _kept(self) -> tuple[int, ...]:
        """Positions, among all classes, of those that stay."""
        if self._raw.classes is NO_CLASSES:  # nothing to choose from
            return tuple(range(len(NO_CLASSES)))
        return self._options.kept(self._raw.classes, self.name)

    @property
    def _selects_classes(self) -> bool:
        return bool(self._options.hold_out or self._options.only)

    def _choose_classes(self, images: ImageSet) -> ImageSet:
        known = self._raw.classes
        if images.classes != known[: len(images.classes)]:
            raise GauntletError(
                f"Dataset {self.name!r}: its {images.split} split has the classes {', '.join(images.classes)}, "
                f"expected {', '.join(known)}; declare `classes=` in @dataset."
            )
        if not self._selects_classes:
            return replace(images, classes=known)
        new = torch.full((len(known) + 1,), -1)  # the last place is that of the label -1
        new[list(self._kept)] = torch.arange(len(self._kept))
        stays = new[images.labels] >= 0
        kept = images.subset(stays)
        return replace(kept, labels=new[kept.labels], classes=self.classes)

    def _limit(self, images: ImageSet) -> ImageSet:
        limit = self._options.limit
        return images if limit is None or limit >= len(images) else images.subset(fixed_subset(len(images), limit))
