"""Image files with labels as one data set: sizes and colours brought into line, damaged files named and counted."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ...registry import GauntletError, digest
from ..checks import check_shape
from ..imageset import ImageSet
from ..streamed import WORKERS, StreamedPixels
from .decoding import DamagedImage, Decoding, size_of
from .hashes import content_of

Shape = tuple[int, int, int]

#: Bytes of a split above which its images stay in their files.
STREAM_ABOVE = 2**29
#: Files that are looked at to learn whether a set is grey, and whether its images have one size.
_SAMPLE = 64
#: Where images differ in size and nobody says what to make of them.
_USUAL = "imagenet-256-224"


@dataclass(frozen=True)
class Files:
    """The files of one split.

    Attributes:
        root: Where the names start.
        names: Relative paths.
        labels: (N,) int64, -1 where unknown.
    """

    root: Path
    names: Sequence[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def path(self, position: int) -> Path:
        """Of one file."""
        return self.root / self.names[position]


@dataclass(frozen=True)
class Reading:
    """How files become images: the parameters that all kinds of image files share.

    Attributes:
        transform: Preprocessing, as :func:`~.transforms.parse_transform` reads it.
        shape: (C, H, W) that the images must have.
        channels: 1 or 3; where nothing is said, 1 if all files are grey.
        background: Colour behind transparent pixels.
        upright: Turn photographs as their EXIF orientation says.
        damaged: What becomes of files that cannot be decoded: an error, or they are left out.
    """

    transform: Any = None
    shape: Shape | None = None
    channels: Literal[1, 3] | None = None
    background: str = "white"
    upright: bool = True
    damaged: Literal["error", "skip"] = "error"


@dataclass
class ImageFiles:
    """A :class:`~gauntlet.datasets.collection.Collection` of image files.

    Args:
        name: For messages.
        parts: The files of each split.
        classes: Names of the classes.
        reading: How they become images.
        cache: Where content hashes are kept.
        notes: For result rows.
    """

    name: str
    parts: Mapping[str, Files]
    classes: tuple[str, ...]
    reading: Reading
    cache: Path
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reading.shape is not None:
            check_shape(self.name, self.reading.shape)

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that have files."""
        return tuple(self.parts)

    def paths(self, split: str) -> list[Path]:
        """The files of a split."""
        part = self.parts[split]
        return [part.path(position) for position in range(len(part))]

    def hashes(self, split: str) -> list[tuple[str, int, str]]:
        """Name, size in bytes and content hash of each file of a split.

        Raises:
            GauntletError: Files are absent.
        """
        part = self.parts[split]
        return content_of(part.root, part.names, self.cache)

    def content(self, split: str) -> Any:
        """A digest of names, sizes, content hashes, labels, classes and of how the files are read.

        Raises:
            GauntletError: Files are absent.
        """
        part, hashes = self.parts[split], self.hashes(split)
        labels = hashlib.sha256(part.labels.tobytes()).hexdigest()
        return digest(hashes, labels, self.classes, self.shape, self._how.text, self._decoding.__dict__)

    def facts(self) -> Mapping[str, Any]:
        """What was found out about the files."""
        return dict(self.notes)

    # -- what the images are like -----------------------------------------------------------------------------

    @cached_property
    def _sizes(self) -> set[Shape]:
        """(C, H, W) of some files, spread over all splits."""
        every = [(part, at) for part in self.parts.values() for at in range(len(part))]
        step = max(1, len(every) // _SAMPLE)
        found = set()
        for part, position in every[::step]:
            try:
                found.add(size_of(part.path(position)))
            except DamagedImage:
                continue  # loading says it, of all files
        return found

    @cached_property
    def _channels(self) -> int:
        if self.reading.shape is not None:
            return self.reading.shape[0]
        return self.reading.channels or max((size[0] for size in self._sizes), default=3)

    @property
    def _decoding(self) -> Decoding:
        told = self.reading.shape is not None or self.reading.channels is not None
        return Decoding(self._channels, self.reading.background, self.reading.upright, told)

    @cached_property
    def _how(self) -> _How:
        """What is done to each image after decoding."""
        return how_to_fit(self.reading, {size[1:] for size in self._sizes}, f"Dataset {self.name!r}")

    @cached_property
    def shape(self) -> Shape:
        """(C, H, W) of the images as loaded."""
        return (self._channels, *self._how.size)

    # -- loading ----------------------------------------------------------------------------------------------

    def load(self, split: str) -> ImageSet:
        """The images of a split: in memory where they are few, else decoded as they are looked at.

        Raises:
            GauntletError: Files are damaged (and ``damaged`` is ``error``), or differ in size from what is expected.
        """
        part = self.parts[split]
        pixels = StreamedPixels(self._reader(part), torch.arange(len(part)), self.shape, self.shape)
        positions, note = pixels.positions, self._how.note
        if pixels.numel() > STREAM_ABOVE:
            if self.reading.damaged == "skip":
                positions, note = self._readable(part, note)
            found: Any = pixels.at(positions)
        else:
            found, positions, note = self._decoded(part, note)
        labels = torch.from_numpy(part.labels)[positions]
        return ImageSet(found, labels, self.classes, positions, self.name, split, note)

    def _reader(self, part: Files) -> Callable[[int], np.ndarray]:
        decoding, how, shape = self._decoding, self._how, self.shape

        def read(position: int) -> np.ndarray:
            path = part.path(position)
            image = how.apply(decoding.read(path))
            if (image.height, image.width) != shape[1:]:
                raise GauntletError(
                    f"{path} is {image.height}x{image.width} where the images before are {shape[1]}x{shape[2]}: say "
                    f"what to make of them, such as `transform: {_USUAL}` or {{resize: 64, centre_crop: 64}}."
                )
            pixels = np.asarray(image)
            return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

        return read

    def _decoded(self, part: Files, note: str) -> tuple[torch.Tensor, torch.Tensor, str]:
        """All images (N, C, H, W), their positions (N,), and what was done to them."""
        pixels = torch.empty((len(part), *self.shape), dtype=torch.uint8)
        into, read = pixels.numpy(), self._reader(part)

        def fill(position: int) -> None:
            into[position] = read(position)

        positions, note = self._without(part, _failures(fill, len(part)), note)
        return (pixels if len(positions) == len(part) else pixels[positions]), positions, note

    def _readable(self, part: Files, note: str) -> tuple[torch.Tensor, str]:
        """Positions (N,) of the files that can be decoded: each is, once."""
        return self._without(part, _failures(self._reader(part), len(part)), note)

    def _without(self, part: Files, failed: Mapping[int, DamagedImage], note: str) -> tuple[torch.Tensor, str]:
        positions = torch.arange(len(part))
        if not failed:
            return positions, note
        listed = " ".join(str(error) for _, error in sorted(failed.items())[:3])
        sentence = f"Dataset {self.name!r}: {len(failed)} of {len(part)} files are damaged"
        if self.reading.damaged == "error":
            raise GauntletError(f"{sentence}. {listed} Mend or delete them, or write `damaged: skip`.")
        if len(failed) == len(part):
            raise GauntletError(f"{sentence}, which leaves none. {listed}")
        warnings.warn(f"{sentence} and left out. {listed}", stacklevel=2)
        keep = torch.ones(len(part), dtype=torch.bool)
        keep[list(failed)] = False
        skipped = f"{len(failed)} damaged of {len(part)} files left out"
        return positions[keep], "; ".join(filter(None, (note, skipped)))


def _failures(work: Callable[[int], object], count: int) -> dict[int, DamagedImage]:
    """The positions at which the work meets a damaged file, with what is wrong with it."""

    def some(places: range) -> Iterator[tuple[int, DamagedImage]]:
        for position in places:
            try:
                work(position)
            except DamagedImage as error:
                yield position, error

    step = max(1, min(64, count // (4 * WORKERS)))
    parts = [range(start, min(start + step, count)) for start in range(0, count, step)]
    with ThreadPoolExecutor(WORKERS) as pool:
        return {
            position: error for found in pool.map(lambda part: list(some(part)), parts) for position, error in found
        }


@dataclass(frozen=True)
class _How:
    """What is done to a decoded image, its size (H, W) after that, and words for fingerprint and result rows."""

    apply: Callable[[Any], Any]
    size: tuple[int, int]
    text: str
    note: str = ""


def how_to_fit(reading: Reading, sizes: set[tuple[int, int]], where: str) -> _How:
    """The transform that is asked for, then the shorter way into the shape that is; else images stay as they are.

    Args:
        reading: What is asked for.
        sizes: (H, W) of some of the images.
        where: For messages.

    Raises:
        GauntletError: The transform is none.
    """
    from .transforms import cover, parse_transform

    asked, target = reading.transform, None if reading.shape is None else reading.shape[1:]
    one = next(iter(sizes)) if len(sizes) == 1 else None
    if asked is None and target is None and one is not None:
        return _How(lambda image: image, one, "")
    if asked is None:
        chosen = cover(*target) if target is not None else parse_transform(_USUAL, where)
        differ = f"{len(sizes)} sizes and more" if one is None else "x".join(map(str, one))
        note = "" if one == chosen.size else f"{differ} -> {'x'.join(map(str, chosen.size or ()))}: {chosen.text}"
        return _How(chosen, chosen.size or (0, 0), chosen.text, note)
    first = parse_transform(asked, where)
    size = first.size or (_after(first, one) if one is not None else None)
    if target is not None and size != target:
        then = cover(*target)
        text = f"{first.text}, {then.text}"
        return _How(lambda image: then(first(image)), target, text, text)
    if size is None:
        raise GauntletError(
            f"{where}: its images have different sizes, also after the transform ({first.text}): end it with "
            "{centre_crop: 224} or with resize to [height, width]."
        )
    return _How(first, size, first.text, first.text)


def _after(transform: Callable[[Any], Any], size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of an image of a ``size`` (H, W) after a transform."""
    from PIL import Image

    made = transform(Image.new("L", size[::-1]))
    return made.height, made.width


def checked_parts(name: str, parts: Mapping[str, Files]) -> dict[str, Files]:
    """The splits that have files.

    Raises:
        GauntletError: None has.
    """
    found = {split: replace(part, labels=np.asarray(part.labels, dtype=np.int64)) for split, part in parts.items()}
    if not any(len(part) for part in found.values()):
        raise GauntletError(f"Dataset {name!r} has no images.")
    return {split: part for split, part in found.items() if len(part)}
