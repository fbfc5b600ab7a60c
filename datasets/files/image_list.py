"""``image-list`` and ``csv``: text files that name images and their labels."""

from __future__ import annotations

import ast
import csv as csv_module
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...registry import GauntletError, dataset, nearest
from ..source import DataSource
from .hashes import absent_files
from .image_files import Files, ImageFiles, Reading, Shape, checked_parts
from .labels import read_labels
from .places import place

#: Headings by which the columns of a table are found.
_PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "name", "id")
_LABELS = ("label", "labels", "class", "target", "category", "class_name", "class_id", "y")


@dataclass(frozen=True)
class Listed:
    """What a list says: paths, and labels as written (None: none is given)."""

    paths: list[str]
    labels: list[Any]


@dataset("image-list", tags=("file", "kind"), opens=True, places=("path", "train", "val", "root"))
def image_list(
    source: DataSource,
    *,
    path: str,
    train: str = "",
    val: str = "",
    root: str | list[str] = "",
    classes: list[str] | None = None,
    transform: Any = None,
    shape: Shape | None = None,
    channels: Literal[1, 3] | None = None,
    background: str = "white",
    upright: bool = True,
    damaged: Literal["error", "skip"] = "error",
) -> ImageFiles:
    """Lists of images as OpenOOD has them: a path, a blank and a label (-1: unknown; a name; or ``{'label': 3}``).

    Args:
        source: Paths that do not exist start at its root.
        path: The list of the test split.
        train: That of the train split, if there is one.
        val: That of the val split, if there is one.
        root: Where the paths in the lists start, or several such folders, tried in order; by default the folder of
            each list.
        classes: Names of the classes, in order.
        transform: Preprocessing; as of ``image-folder``, like the parameters that follow.
        shape: (C, H, W) to bring the images into.
        channels: 1 or 3.
        background: Colour behind transparent pixels.
        upright: Turn photographs as their EXIF orientation says.
        damaged: Whether damaged files are an error or left out, which is said.

    Raises:
        GauntletError: A list is absent, empty or malformed, or names files that are absent.
    """
    lists = _lists(source, train, val, path)
    listed = {split: parse_list(file) for split, file in lists.items()}
    reading = Reading(transform, shape, channels, background, upright, damaged)
    return _opened("image-list", source, lists, listed, root, classes, reading)


@dataset("csv", tags=("file", "kind"), opens=True, places=("path", "train", "val", "root"))
def csv(
    source: DataSource,
    *,
    path: str,
    train: str = "",
    val: str = "",
    path_column: str = "",
    label_column: str = "",
    split_column: str = "",
    root: str | list[str] = "",
    classes: list[str] | None = None,
    transform: Any = None,
    shape: Shape | None = None,
    channels: Literal[1, 3] | None = None,
    background: str = "white",
    upright: bool = True,
    damaged: Literal["error", "skip"] = "error",
) -> ImageFiles:
    """Tables of images: a column of paths and one of labels, separated by commas, semicolons or tabs.

    Args:
        source: Paths that do not exist start at its root.
        path: The table of the test split, or of all where there is a ``split_column``.
        train: That of the train split, if there is one.
        val: That of the val split, if there is one.
        path_column: Heading of the paths; by default the first of the usual ones.
        label_column: Heading of the labels; by default the first of the usual ones, ``none`` for none.
        split_column: Heading of a column that says train, val or test.
        root: Where the paths start, or several such folders; by default the folder of each table.
        classes: Names of the classes, in order.
        transform: Preprocessing; as of ``image-folder``, like the parameters that follow.
        shape: (C, H, W) to bring the images into.
        channels: 1 or 3.
        background: Colour behind transparent pixels.
        upright: Turn photographs as their EXIF orientation says.
        damaged: Whether damaged files are an error or left out, which is said.

    Raises:
        GauntletError: A table is absent, empty or lacks a column, or names files that are absent.
    """
    lists = _lists(source, train, val, path)
    listed: dict[str, Listed] = {}
    for split, file in lists.items():
        rows = _rows(file)
        if split_column:
            listed |= _by_split(file, rows, path_column, label_column, split_column)
        else:
            listed[split] = _columns(file, rows, path_column, label_column)
    lists = {split: lists.get(split, next(iter(lists.values()))) for split in listed}
    reading = Reading(transform, shape, channels, background, upright, damaged)
    return _opened("csv", source, lists, listed, root, classes, reading)


def _lists(source: DataSource, train: str, val: str, test: str) -> dict[str, Path]:
    given = {"train": train, "val": val, "test": test}
    return {split: place(path, source) for split, path in given.items() if path}


def _opened(
    kind: str,
    source: DataSource,
    lists: Mapping[str, Path],
    listed: Mapping[str, Listed],
    root: str | list[str],
    classes: Sequence[str] | None,
    reading: Reading,
) -> ImageFiles:
    """The images that lists name, with one numbering of the classes of all splits."""
    every = [label for one in listed.values() for label in one.labels]
    labels, names = read_labels(every, classes, f"Dataset {kind!r} ({next(iter(lists.values())).name})")
    parts, start = {}, 0
    for split, one in listed.items():
        end = start + len(one.paths)
        roots = [place(each, source) for each in ([root] if isinstance(root, str) else root) if each]
        parts[split] = _found(one.paths, labels[start:end], roots or [lists[split].parent], lists[split])
        start = end
    file = lists.get("test") or next(iter(lists.values()))
    return ImageFiles(file.stem, checked_parts(str(file), parts), names, reading, source.cache)


def _found(paths: Sequence[str], labels: np.ndarray, roots: Sequence[Path], file: Path) -> Files:
    """The files of a list, each below the first root that has it.

    Raises:
        GauntletError: Some are below none.
    """
    if len(roots) == 1:
        files = Files(roots[0], list(paths), labels)
        _check_there([path for path in paths if not (roots[0] / path).exists()], paths, roots, file)
        return files
    below = [next((root for root in roots if (root / path).exists()), None) for path in paths]
    _check_there([path for path, root in zip(paths, below, strict=True) if root is None], paths, roots, file)
    top = Path(os.path.commonpath(roots))
    names = [(root / path).relative_to(top).as_posix() for path, root in zip(paths, below, strict=True) if root]
    return Files(top, names, labels)


def _check_there(absent: Sequence[str], paths: Sequence[str], roots: Sequence[Path], file: Path) -> None:
    if not absent:
        return
    folders = " or ".join(map(str, roots))
    hint = ": is `root:` the folder where the paths start?" if len(absent) == len(paths) else "."
    raise GauntletError(f"{file}: {absent_files(absent, len(paths))} {folders}{hint}")


# -- lists ----------------------------------------------------------------------------------------------------


def parse_list(file: Path) -> Listed:
    """Paths and labels of a list; a path may hold blanks, since the label is what follows the last one.

    Raises:
        GauntletError: It is empty, no text, or a line cannot be read.
    """
    listed = Listed([], [])
    for number, line in enumerate(_text(file).splitlines(), 1):
        if line.strip():
            path, label = _line(line.strip(), f"{file}:{number}")
            listed.paths.append(path)
            listed.labels.append(label)
    if not listed.paths:
        raise GauntletError(f"{file} names no images.")
    return listed


def _line(line: str, where: str) -> tuple[str, str]:
    if line.endswith("}") and "{" in line:
        path, _, literal = line.partition("{")
        return path.strip(), _of_literal("{" + literal, where)
    path, _, label = line.rpartition(" ") if " " in line else line.rpartition("\t")
    return (path.strip(), label) if path else (line, "")


def _of_literal(text: str, where: str) -> str:
    """The label in a dictionary literal, which is read and never run."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, dict) or "label" not in found:
        raise GauntletError(f"{where}: expected a label or {{'label': ...}} after the path, got {text[:60]!r}.")
    return str(found["label"])


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise GauntletError(f"{file} is no text in UTF-8.") from None
    except OSError as error:
        raise GauntletError(f"{file} cannot be read: {error.strerror or error}.") from None


# -- tables ---------------------------------------------------------------------------------------------------


def _rows(file: Path) -> list[dict[str, str]]:
    text = _text(file)
    try:
        dialect: Any = csv_module.Sniffer().sniff(text[:8192].partition("\n")[0], delimiters=",;\t|")
    except csv_module.Error:
        dialect = "excel"
    rows = [row for row in csv_module.DictReader(io.StringIO(text), dialect=dialect) if any(row.values())]
    if not rows:
        raise GauntletError(f"{file} has no rows below its headings.")
    return rows


def _columns(file: Path, rows: Sequence[Mapping[str, str]], path: str, label: str) -> Listed:
    headings = [heading for heading in rows[0] if heading is not None]
    names, labels = _column(path, _PATHS, headings, "path_column", file), None
    if label.lower() != "none" and (label or len(headings) > 1):
        labels = _column(label, _LABELS, headings, "label_column", file)
    return Listed([(row[names] or "").strip() for row in rows], [row[labels] if labels else "" for row in rows])


def _column(given: str, usual: Iterable[str], headings: Sequence[str], parameter: str, file: Path) -> str:
    if given and given not in headings:
        raise GauntletError(f"{file} has no column {given!r}; {nearest(given, headings)}")
    lowered = {heading.strip().lower(): heading for heading in headings}
    found = given or next((lowered[name] for name in usual if name in lowered), None)
    if found is None:
        raise GauntletError(f"{file} has the columns {', '.join(headings)}: say which one with `{parameter}:`.")
    return found


def _by_split(file: Path, rows: Sequence[Mapping[str, str]], path: str, label: str, column: str) -> dict[str, Listed]:
    from .image_folder import SPLITS

    _column(column, (), list(rows[0]), "split_column", file)
    known = {alias: split for split, aliases in SPLITS.items() for alias in aliases}
    groups: dict[str, list[Mapping[str, str]]] = {split: [] for split in SPLITS}
    for row in rows:
        word = (row[column] or "").strip().lower()
        if word not in known:
            raise GauntletError(f"{file}: the column {column!r} must say train, val or test, got {word!r}.")
        groups[known[word]].append(row)
    return {split: _columns(file, group, path, label) for split, group in groups.items() if group}
