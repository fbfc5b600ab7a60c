"""``image-folder``: a folder of images, flat or with a folder a class, with or without folders for the splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...registry import GauntletError, dataset
from ..source import DataSource
from .image_files import Files, ImageFiles, Reading, Shape, checked_parts
from .places import place
from .scan import Found, scan

#: What people call the folders of the splits.
SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}

Labels = Literal["folder", "path", "none"]


@dataset("image-folder", tags=("file", "kind"), opens=True, places=("path",))
def image_folder(
    source: DataSource,
    *,
    path: str,
    splits: dict[str, Any] | None = None,
    labels: Labels = "folder",
    classes: list[str] | None = None,
    follow_links: bool = False,
    transform: Any = None,
    shape: Shape | None = None,
    channels: Literal[1, 3] | None = None,
    background: str = "white",
    upright: bool = True,
    damaged: Literal["error", "skip"] = "error",
) -> ImageFiles:
    """A folder of images: a folder a class, or flat; folders named train, val and test are the splits.

    Args:
        source: Paths that do not exist start at its root.
        path: The folder.
        splits: The folder of each split (``{train: images/train, test: images/val}``), or the shares of ``test`` and
            ``val`` (``{test: 0.2}``). Where nothing is said: folders with the usual names if there are no others, and
            ``val`` is the test split where there is no ``test``; else all images are the test split.
        labels: The class is the first folder, all folders, or unknown.
        classes: Names of the classes, in order; by default the folders of train, sorted.
        follow_links: Whether links may lead out of the folder.
        transform: Preprocessing (:func:`.transforms.parse_transform`); by default none where all images have one size,
            else ``imagenet-256-224``, or for OOD sets the shorter way into the shape of the in-distribution set.
        shape: (C, H, W) to bring the images into.
        channels: 1 or 3.
        background: Colour behind transparent pixels.
        upright: Turn photographs as their EXIF orientation says.
        damaged: Whether damaged files are an error or left out, which is said.

    Raises:
        GauntletError: The folder is absent or empty, or its folders do not fit together.
    """
    root = place(path, source)
    found = scan(root, follow_links=follow_links)
    if not found.names:
        raise GauntletError(f"Dataset 'image-folder': {root} holds no images{_instead(found)}.")
    folders = _split_folders(found, splits, root)
    groups = {split: (folder, _below(found.names, folder)) for split, folder in folders.items()}
    groups = groups or {"test": ("", found.names)}
    names = tuple(classes) if classes is not None else _classes(groups, found, labels)
    parts = {split: _files(root / folder, members, labels, names) for split, (folder, members) in groups.items()}
    if splits and not folders:
        parts = _shares(parts["test"], splits, str(root))
    reading = Reading(transform, shape, channels, background, upright, damaged)
    notes = {"test": f"the folder {folders['test']}"} if folders.get("test", "").lower() in SPLITS["val"] else {}
    return ImageFiles(root.name, checked_parts(str(root), parts), names, reading, source.cache, notes)


def _instead(found: Found) -> str:
    """What a folder without images has in their place."""
    count = sum(found.unread.values())
    kinds = ", ".join(sorted(found.unread))
    return f", but {count} files {kinds}, which cannot be read: save them as JPEG or PNG" if count else ""


def _below(names: Sequence[str], folder: str) -> list[str]:
    """Names in a folder, as seen from there."""
    return [name[len(folder) + 1 :] for name in names if name.startswith(f"{folder}/")] if folder else list(names)


def _split_folders(found: Found, splits: Mapping[str, Any] | None, root: Path) -> dict[str, str]:
    """The folder of each split; empty where there are none."""
    if splits:
        return _stated(found, splits, root)
    tops = {name.partition("/")[0] for name in found.names if "/" in name}
    beside = any("/" not in name for name in found.names)
    known = {alias: split for split, aliases in SPLITS.items() for alias in aliases}
    chosen: dict[str, str] = {}
    for top in sorted(tops):
        split = known.get(top.lower())
        if split is None or split in chosen or beside:
            return {}
        chosen[split] = top
    if "val" in chosen and "test" not in chosen:
        chosen["test"] = chosen.pop("val")
    return {split: chosen[split] for split in SPLITS if split in chosen}


def _stated(found: Found, splits: Mapping[str, Any], root: Path) -> dict[str, str]:
    unknown = sorted(set(map(str, splits)) - set(SPLITS))
    texts = [isinstance(value, str) for value in splits.values()]
    if unknown or len(set(texts)) > 1:
        raise GauntletError(
            f"Dataset 'image-folder': splits must give folders, {{train: ..., val: ..., test: ...}}, or shares, "
            f"{{test: 0.2}}, got {dict(splits)!r}."
        )
    if not all(texts):
        return {}
    folders = {split: str(folder).strip("/") for split, folder in splits.items()}
    absent = [folder for folder in folders.values() if folder not in found.folders]
    if absent:
        raise GauntletError(f"Dataset 'image-folder': {root} has no folder {absent[0]!r}.")
    return folders


def _class_of(name: str, labels: Labels) -> str:
    """The class that a file's folders say; empty where they say none."""
    if labels == "none" or "/" not in name:
        return ""
    return name.partition("/")[0] if labels == "folder" else name.rpartition("/")[0]


def _classes(groups: Mapping[str, tuple[str, Sequence[str]]], found: Found, labels: Labels) -> tuple[str, ...]:
    """Those of train; what other splits have beyond them is an error.

    Raises:
        GauntletError: Another split has a class that train lacks.
    """
    of = {split: {_class_of(name, labels) for name in names} - {""} for split, (_, names) in groups.items()}
    first = "train" if "train" in of else next(iter(of))
    known = of[first]
    for split, names in of.items():
        if extra := sorted(names - known):
            folder = groups[split][0] or split
            raise GauntletError(
                f"Dataset 'image-folder': {folder} has the classes {', '.join(extra[:3])}"
                f"{', ...' if len(extra) > 3 else ''} ({len(extra)} in all), which {groups[first][0] or first} lacks."
            )
    return tuple(sorted(known))


def _files(root: Path, names: Sequence[str], labels: Labels, classes: Sequence[str]) -> Files:
    places = {name: place for place, name in enumerate(classes)}
    said = [_class_of(name, labels) for name in names]
    unknown = sorted(set(said) - set(places) - {""})
    if unknown:
        raise GauntletError(f"Dataset 'image-folder': {root} has a folder {unknown[0]!r}, which is none of `classes`.")
    return Files(root, names, np.array([places.get(name, -1) for name in said], dtype=np.int64))


def _shares(whole: Files, splits: Mapping[str, Any], where: str) -> dict[str, Files]:
    """Test and val as shares of each class, drawn by the names of the files: others that are added change little."""
    shares = {split: _share(splits[split], where) for split in ("test", "val") if split in splits}
    if not shares or sum(shares.values()) >= 1:
        raise GauntletError(f"{where}: splits must leave a share to train, {{test: 0.2}}, got {dict(splits)!r}.")
    members = defaultdict(list)
    for position, label in enumerate(whole.labels.tolist()):
        members[label].append(position)
    chosen: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for own in members.values():
        own.sort(key=lambda position: hashlib.sha256(whole.names[position].encode("utf-8", "surrogateescape")).digest())
        start = 0
        for split, share in shares.items():
            end = start + round(share * len(own))
            chosen[split] += own[start:end]
            start = end
        chosen["train"] += own[start:]
    return {split: _some(whole, sorted(positions)) for split, positions in chosen.items()}


def _share(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise GauntletError(f"{where}: a share in splits must lie between 0 and 1, got {value!r}.")
    return float(value)


def _some(whole: Files, positions: Sequence[int]) -> Files:
    return Files(whole.root, [whole.names[position] for position in positions], whole.labels[list(positions)])
