"""The image files below a folder, in torchvision's order, without opening one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...registry import GauntletError
from .decoding import SUFFIXES, UNREAD

_FORGOTTEN = ("__MACOSX", "@eaDir", "lost+found")


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        names: Relative paths of the images, with ``/``, by folder and then by name.
        unread: How many images of each format that Pillow does not read.
        outside: Links that lead out of the folder.
        folders: Relative paths of all folders, with or without images.
    """

    names: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def scan(root: Path, *, follow_links: bool = False) -> Found:
    """Look for images below ``root``. Hidden files and folders are left alone; a link that loops is followed once.

    Raises:
        GauntletError: The folder is absent or cannot be read, or a link leads out of it and ``follow_links`` is false.
    """
    if not root.is_dir():
        raise GauntletError(f"{root} is not a folder.")
    found, real = Found(), os.path.realpath(root)
    _walk(str(root), "", real, (real,), follow_links, found)
    if found.outside:
        raise GauntletError(
            f"{len(found.outside)} links lead out of {root} (the first: {found.outside[0]}): write `follow_links: "
            "true` if they belong to the data set."
        )
    found.names.sort(key=lambda name: name.rpartition("/")[::2])
    found.folders.sort()
    return found


def _walk(folder: str, inside: str, root: str, above: tuple[str, ...], follow: bool, found: Found) -> None:
    for entry in _entries(folder):
        if entry.name.startswith(".") or entry.name in _FORGOTTEN:
            continue
        name = f"{inside}{entry.name}"
        if entry.is_symlink() and not follow and not _below(os.path.realpath(entry.path), root):
            found.outside.append(name)
        elif entry.is_dir():
            real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}/{entry.name}"
            if real not in above:  # else it loops
                found.folders.append(name)
                _walk(entry.path, f"{name}/", root, (*above, real), follow, found)
        else:
            _note(name, found)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise GauntletError(f"{folder} cannot be read: {error.strerror or error}.") from None


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def _note(name: str, found: Found) -> None:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  a Path for each of a million names takes seconds
    if suffix in SUFFIXES:
        found.names.append(name)
    elif suffix in UNREAD:
        found.unread[suffix] += 1
