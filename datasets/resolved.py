"""A dataset of a suite: its images, its fingerprint, and what is missing."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from ..registry import CORRUPTIONS, Entry, GauntletError, NotAvailable, digest, nearest, source_fingerprint
from .convert import conversion, convert
from .corruptions import corrupted
from .dataset_files import DatasetFiles
from .imageset import ImageSet, as_image_set
from .options import DEFAULT_VAL, Options
from .shifts import shifted
from .source import DataSource
from .splitting import fixed_subset, stratified

#: Raise it when the options or the conversion come to give other images from the same files.
_VERSION = 1
_ORDER = ("train", "val", "test")

Shape = tuple[int, int, int]

#: What stands for the facts of a plug-in's set that cannot be made, so that its cells can be planned, and then fail.
_NO_SHAPE: Shape = (3, 32, 32)
_NO_CLASSES = ("0", "1")


class BrokenDataset(GauntletError):
    """A plug-in's function raised, or what it returned is no set of images."""


class ResolvedDataset:
    """A dataset with its parameters and options; made by :func:`resolve`. Only :meth:`load` loads images.

    Attributes:
        entry: The registry's entry.
        label: Name in result rows.
        parameters: Parameters of the factory, without defaults.
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
    ) -> None:
        self.entry = entry
        self.label = label
        self.parameters = parameters
        self._options = options
        self._source = source
        self._presence = DatasetFiles(entry, {**entry.defaults(), **parameters}, source)
        self._targets: list[Shape] = [target for target in (options.shape, shape) if target is not None]
        self._unfinished: dict[str, ImageSet] = {}
        self._loaded: dict[str, ImageSet] = {}
        self._fingerprints: dict[str, str] = {}
        self._broken: dict[str, BrokenDataset] = {}

    def __repr__(self) -> str:
        return f"<dataset {self.label!r}>"

    def __getstate__(self) -> dict[str, Any]:
        """Pickled, it goes without its images: another process loads them itself."""
        return {**self.__dict__, "_unfinished": {}, "_loaded": {}}

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.entry.name

    @property
    def broken(self) -> str:
        """Why the images of a plug-in cannot be made, as far as they were asked for; empty if they can."""
        return next((str(error) for error in self._broken.values()), "")

    @property
    def source(self) -> DataSource:
        """Where its files come from."""
        return self._source

    def sibling(self, spec: Any) -> ResolvedDataset:
        """Another dataset from the same source, in the shape of this one (outliers, say)."""
        from .resolve import resolve

        return resolve(spec, self._source, shape=self.shape, of=self.name)

    @property
    def options(self) -> dict[str, Any]:
        """The options that were given, for result rows."""
        return self._options.recorded()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that stay after ``hold_out`` and ``only``."""
        return tuple(self._all_classes[index] for index in self._kept)

    @cached_property
    def shape(self) -> Shape:
        """(C, H, W) of the images as loaded."""
        if self._targets:
            return self._targets[-1]
        known = self._native_shape
        if known is None:
            with contextlib.suppress(BrokenDataset):
                known = (next(iter(self._loaded.values())) if self._loaded else self._peek()).shape
        channels, height, width = known or _NO_SHAPE
        return channels, height, width

    @property
    def _native_shape(self) -> Shape | None:
        """Shape of the images as the factory makes them, where that is known beforehand."""
        return self._presence.parameters["shape"] if self.entry.has("shape") else self.entry.meta.get("shape")

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
        facts |= self._presence.facts()
        return {**facts, "conversion": self.conversion} if self.conversion else facts

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose files are here."""
        return tuple(split for split in self._declared if self.missing(split) is None)

    def missing(self, split: str) -> str | None:
        """``None`` if ``split`` can be loaded, else one sentence that says what is absent and how to get it.

        Where downloads are allowed, absent files are downloaded now.
        """
        return self._unknown(split) or self._presence.missing(self._origins(split))

    def files(self, split: str) -> list[Path]:
        """The files that ``split`` is read from, whether they exist or not."""
        if (unknown := self._unknown(split)) is not None:
            raise GauntletError(unknown)
        return self._presence.files(self._origins(split))

    def fingerprint(self, split: str) -> str:
        """Digest of everything that decides the images of ``split``.

        No image is loaded, except of a plug-in that does not declare its ``files``: it may read any.

        Raises:
            NotAvailable: Files are absent.
            GauntletError: There is no such split.
        """
        if split not in self._fingerprints:
            self._require(split)
            self._fingerprints[split] = digest(
                _VERSION,
                (self.name, split, source_fingerprint(self.entry), self._presence.parameters),
                self._source.md5s(self._presence.files(self._origins(split))),
                self._kept if self._selects_classes else None,
                self._options.limit,
                self._val if self._is_cut(split) else None,
                self._targets,
                *((self._options.shift,) if self._options.shift and split == "test" else ()),
                *(self._corruption() if split == "test" else ()),
                *(self._content(split) if self._is_opaque else ()),
                *(["broken", self.broken] if self.broken else ()),
            )
        return self._fingerprints[split]

    def _corruption(self) -> list[Any]:
        return [(*chosen, source_fingerprint(CORRUPTIONS.get(chosen[0]))) for chosen in self._options.corrupt]

    @property
    def _is_opaque(self) -> bool:
        return "files" not in self.entry.meta and self._is_foreign

    @property
    def _is_foreign(self) -> bool:
        return not self.entry.factory.__module__.startswith("gauntlet.")

    def _content(self, split: str) -> list[str]:
        try:
            images = self.load(split)
        except BrokenDataset:
            return []
        tensors = (images.pixels, images.labels)
        return [hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest() for tensor in tensors]

    def load(self, split: str) -> ImageSet:
        """The images of ``split``, on the CPU; the same object each time.

        Raises:
            NotAvailable: Files are absent.
            GauntletError: There is no such split, a file is damaged, or no image is left.
        """
        if split not in self._loaded:
            self._require(split)
            with self._blaming_plugin(split):
                images = self._limit(self._choose_classes(self._take(split)))
                for target in self._targets:
                    images = convert(images, target)
            del self._unfinished[split]
            if not len(images):
                names = ", ".join(self.classes) or "any class"
                raise GauntletError(f"Dataset {self.name!r}: its {split} split has no images of {names}.")
            if split == "test" and self._options.shift:
                images = shifted(images, self._options.shift)
            if split == "test":
                for name, severity in self._options.corrupt:
                    images = corrupted(images, CORRUPTIONS.get(name), severity)
            self._loaded[split] = images
        return self._loaded[split]

    # -- splits -----------------------------------------------------------------------------------------------

    @cached_property
    def _produced(self) -> tuple[str, ...]:
        """Splits that the factory makes."""
        declared = self.entry.meta.get("splits", ("test",))
        splits = (declared,) if isinstance(declared, str) else tuple(declared)
        if not splits or not set(splits) <= set(_ORDER):
            raise GauntletError(
                f"Dataset {self.name!r} ({self.entry.where}) declares the splits {splits}: use train, val and test."
            )
        return splits

    @cached_property
    def _declared(self) -> tuple[str, ...]:
        """Splits that exist when all files are here."""
        return tuple(split for split in _ORDER if split in self._produced or self._is_cut(split))

    def _is_cut(self, split: str) -> bool:
        """Whether ``split`` is a part of the factory's train (and val) images."""
        free = "val" not in self._produced or self._options.val is not None
        return split in ("train", "val") and "train" in self._produced and free

    def _origins(self, split: str) -> tuple[str, ...]:
        """The factory's splits that ``split`` is made from."""
        return tuple(one for one in ("train", "val") if one in self._produced) if self._is_cut(split) else (split,)

    @property
    def _val(self) -> float:
        return self._options.val or DEFAULT_VAL

    def _unknown(self, split: str) -> str | None:
        if split in self._declared:
            return None
        hint = f"it has {', '.join(self._declared)}." if split in _ORDER else nearest(split, self._declared)
        return f"Dataset {self.name!r} has no split {split!r}; {hint}"

    def _require(self, split: str) -> None:
        if (unknown := self._unknown(split)) is not None:
            raise GauntletError(unknown)
        if (missing := self.missing(split)) is not None:
            raise NotAvailable(missing)

    # -- images -----------------------------------------------------------------------------------------------

    def _take(self, split: str) -> ImageSet:
        """The images of ``split`` before options apply; kept until :meth:`load` is done with them."""
        if split not in self._unfinished:
            self._unfinished.update(self._cut() if self._is_cut(split) else {split: self._make(split)})
        return self._unfinished[split]

    def _make(self, split: str) -> ImageSet:
        arguments = {"split": split, "source": self._source}
        with self._blaming_plugin(split):
            made = self.entry.factory(*(arguments[need] for need in self.entry.needs), **self.parameters)
            return as_image_set(made, name=self.name, split=split, classes=self.entry.meta.get("classes"))

    @contextlib.contextmanager
    def _blaming_plugin(self, split: str) -> Iterator[None]:
        """An exception of a plug-in's own code becomes a sentence that names it, and is raised again the next time."""
        if split in self._broken:
            raise self._broken[split]
        try:
            yield
        except (NotAvailable, BrokenDataset, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of any kind: the code is the user's own
            if not self._is_foreign:
                raise
            start = "" if isinstance(error, GauntletError) else f"Dataset {self.name!r} ({split}): "
            what = str(error) if isinstance(error, GauntletError) else f"{type(error).__name__}: {error}"
            sentence = f"{start}{' '.join(what.split()).rstrip('.')} (plug-in {self.entry.where})."
            self._broken[split] = BrokenDataset(sentence)
            raise self._broken[split] from error

    def _cut(self) -> dict[str, ImageSet]:
        """Train and val: a stratified share of all of train, whatever classes and limits apply afterwards."""
        whole = _joined([self._make(split) for split in self._origins("train")])
        count = min(max(round(self._val * len(whole)), 1), len(whole) - 1)
        inside = stratified(whole.labels, count)
        return {
            "train": replace(whole.subset(~inside), split="train"),
            "val": replace(whole.subset(inside), split="val"),
        }

    def _peek(self) -> ImageSet:
        """Images of the first split that is here, before options apply, for what a plug-in did not declare."""
        split = next(iter(self.splits), self._declared[0])
        self._require(split)
        return self._take(split)

    # -- classes ----------------------------------------------------------------------------------------------

    @cached_property
    def _all_classes(self) -> tuple[str, ...]:
        declared = self.entry.meta.get("classes")
        if declared is not None:
            return tuple(map(str, declared))
        try:
            return self._peek().classes
        except BrokenDataset:
            return _NO_CLASSES

    @cached_property
    def _kept(self) -> tuple[int, ...]:
        if self._all_classes is _NO_CLASSES:  # nothing to choose from
            return tuple(range(len(_NO_CLASSES)))
        return self._options.kept(self._all_classes, self.name)

    @property
    def _selects_classes(self) -> bool:
        return bool(self._options.hold_out or self._options.only)

    def _choose_classes(self, images: ImageSet) -> ImageSet:
        if images.classes != self._all_classes[: len(images.classes)]:
            raise GauntletError(
                f"Dataset {self.name!r}: its {images.split} split has the classes {', '.join(images.classes)}, "
                f"expected {', '.join(self._all_classes)}; declare `classes=` in @dataset."
            )
        if not self._selects_classes:
            return replace(images, classes=self._all_classes)
        new = torch.full((len(self._all_classes) + 1,), -1)  # the last place is that of the label -1
        new[list(self._kept)] = torch.arange(len(self._kept))
        stays = new[images.labels] >= 0
        kept = images.subset(stays)
        return replace(kept, labels=new[kept.labels], classes=self.classes)

    def _limit(self, images: ImageSet) -> ImageSet:
        limit = self._options.limit
        return images if limit is None or limit >= len(images) else images.subset(fixed_subset(len(images), limit))


def _joined(parts: list[ImageSet]) -> ImageSet:
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        pixels=torch.cat([part.pixels for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        indices=torch.cat([part.indices for part in parts]),
    )
