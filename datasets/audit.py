"""What is wrong with a data set's files: absent, altered, extra or damaged ones, and images that occur twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..registry import GauntletError
from .files.image_files import ImageFiles
from .imageset import content_hashes
from .resolved import ResolvedDataset

#: Of each file of a set: size in bytes and hash of its content.
Manifest = dict[str, list[Any]]


@dataclass(frozen=True)
class Finding:
    """Something that a user should look at, or (``wrong`` is false) may want to know."""

    text: str
    wrong: bool = True


def check(dataset: ResolvedDataset, before: Manifest | None = None) -> Iterator[Finding]:
    """Look at every file of every split.

    Args:
        dataset: The set.
        before: What its files were, to find those that are absent, altered or extra.
    """
    for split in dataset.declared_splits:
        if reason := dataset.obstacle(split):
            yield Finding(reason)
            continue
        try:
            images = dataset.load(split)
        except GauntletError as error:
            yield Finding(f"{split}: {error}")
            continue
        labels = images.labels[images.labels >= 0]
        unknown = len(images) - len(labels)
        said = f", {unknown} without a label" if unknown and len(labels) else ", without labels" if unknown else ""
        shape = "x".join(map(str, images.shape))
        counts = labels.bincount(minlength=len(images.classes))
        each = f", {int(counts.min())} to {int(counts.max())} a class" if len(labels) else ""
        yield Finding(
            f"{split}: {len(images)} images {shape}{said}, {len(images.classes)} classes{each}"
            f"{f' ({images.conversion})' if images.conversion else ''}",
            wrong=False,
        )
    if before is not None:
        yield from _compared(manifest(dataset), before)


def manifest(dataset: ResolvedDataset) -> Manifest:
    """Size and hash of each file, by split and name.

    Raises:
        GauntletError: Files are absent.
    """
    opened = dataset.collection
    if isinstance(opened, ImageFiles):
        every = [(split, row) for split in opened.splits for row in opened.hashes(split)]
        return {f"{split}/{name}": [size, hashed] for split, (name, size, hashed) in every}
    files = {path: f"{split}/{path.name}" for split in dataset.splits for path in dataset.files(split)}
    sums = dataset.source.md5s(files)
    return {name: [path.stat().st_size, md5] for (path, name), md5 in zip(files.items(), sums, strict=True)}


def read_manifest(path: Path) -> Manifest:
    """What :func:`manifest` found, as it was saved.

    Raises:
        GauntletError: It is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): [int(size), str(hashed)] for name, (size, hashed) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        raise GauntletError(f"{path} is no list of files that `gauntlet data check NAME --save` wrote.") from None


def _compared(now: Manifest, before: Manifest) -> Iterator[Finding]:
    groups = {
        "missing": sorted(before.keys() - now.keys()),
        "extra": sorted(now.keys() - before.keys()),
        "altered": sorted(name for name in now.keys() & before.keys() if now[name] != before[name]),
    }
    for word, names in groups.items():
        if names:
            yield Finding(f"{len(names)} files are {word}: {_some(names)}")
    if not any(groups.values()):
        yield Finding(f"all {len(now)} files are as they were", wrong=False)


def audit(inside: ResolvedDataset, outside: Sequence[ResolvedDataset]) -> Iterator[Finding]:
    """Look for images that are in more than one split of a set, twice in a split, or in another set too.

    Pixels are compared as they are loaded, in 256 levels; other sets are loaded in the shape of the first.

    Raises:
        GauntletError: A set cannot be loaded.
    """
    own = {split: _Hashed.of(inside, split) for split in inside.splits}
    for split, hashes in own.items():
        _, counts = np.unique(hashes.values, return_counts=True)
        if repeated := int((counts - 1).sum()):
            yield Finding(f"{inside.label}: {repeated} of {len(hashes.values)} images in {split} are repeated")
    yield from (_shared(own[a], own[b]) for a in own for b in own if a < b and own[a].common(own[b]))
    for other in outside:
        hashed = _Hashed.of(other, "test")
        yield from (_shared(hashed, part) for part in own.values() if hashed.common(part))


@dataclass(frozen=True)
class _Hashed:
    """Hashes of the images of a split, and what they are called."""

    values: np.ndarray
    names: Sequence[str]
    label: str

    @classmethod
    def of(cls, dataset: ResolvedDataset, split: str) -> _Hashed:
        images = dataset.load(split)
        opened = dataset.collection
        indices = images.indices.tolist()
        if isinstance(opened, ImageFiles) and split in opened.splits:
            names: Sequence[str] = [opened.parts[split].names[index] for index in indices]
        else:
            names = [f"image {index}" for index in indices]
        return cls(content_hashes(images), names, f"{dataset.label} ({split})")

    def common(self, other: _Hashed) -> list[str]:
        """Names of the images that the other has too."""
        return [self.names[place] for place in np.flatnonzero(np.isin(self.values, other.values)).tolist()]


def _shared(one: _Hashed, other: _Hashed) -> Finding:
    names = one.common(other)
    return Finding(f"{len(names)} of {len(one.values)} images of {one.label} are in {other.label} too: {_some(names)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def as_text(found: Mapping[str, Any]) -> str:
    """A manifest as it is saved."""
    return json.dumps(found, indent=0, ensure_ascii=False)
