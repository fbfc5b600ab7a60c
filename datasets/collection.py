"""What a kind of data set opens: splits and classes that depend on the files, known before an image is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from .imageset import ImageSet


class Collection(Protocol):
    """A data set whose parameters say where its files are.

    Attributes:
        splits: Those that it has, of ``train``, ``val`` and ``test``.
        classes: Names of the classes of all splits.
        shape: (C, H, W) of the images as loaded.
    """

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that it has."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    def content(self, split: str) -> Any:
        """What decides the images and labels of a split, JSON-able: names, sizes and hashes, but no places."""

    def facts(self) -> Mapping[str, Any]:
        """What was found out about the files and belongs into result rows."""

    def load(self, split: str) -> ImageSet:
        """The images of a split.

        Raises:
            GauntletError: A file is absent, damaged or does not fit the others.
        """

    def paths(self, split: str) -> list[Path]:
        """The files of a split."""
