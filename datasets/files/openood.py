"""``openood``: the images of one of OpenOOD v1.5's lists, in OpenOOD's folders; the list is verified by its hash."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, Literal

from ...registry import GauntletError, NotAvailable, dataset, nearest
from ..source import DataSource
from .image_files import ImageFiles, Shape
from .image_list import image_list

#: Where the lists and the two folders of images lie, as OpenOOD's own download script lays them out.
_LISTS = ("benchmark_imglist", "OpenOOD/benchmark_imglist", "imglists", "OpenOOD/imglists")
_IMAGES = ("images_classic", "images_largescale", "OpenOOD/images_classic", "OpenOOD/images_largescale")


@functools.cache
def known_lists() -> dict[str, tuple[str, int]]:
    """SHA-256 and number of lines of each list of OpenOOD v1.5, by its name (``cifar10/test_svhn.txt``)."""
    text = (Path(__file__).parent / "openood.sha256").read_text(encoding="ascii")
    rows = (line.split() for line in text.splitlines())
    return {name: (digest, int(lines)) for digest, lines, name in rows}


@dataset(
    "openood",
    reference="Zhang, Yang et al. 2023, arXiv:2306.09301",
    tags=("file", "photographs"),
    files=("openood.sha256",),
    home=" (github.com/Jingkang50/OpenOOD, scripts/download)",
    opens=True,
    places=("list",),
)
def openood(
    source: DataSource,
    *,
    list: str,
    train: str = "",
    val: str = "",
    verify: bool = True,
    transform: Any = None,
    shape: Shape | None = None,
    damaged: Literal["error", "skip"] = "error",
) -> ImageFiles:
    """One of OpenOOD v1.5's image lists, such as ``cifar10/test_svhn``, with exactly its images.

    Args:
        source: ``benchmark_imglist``, ``images_classic`` and ``images_largescale`` lie below its root.
        list: The list of the test split.
        train: That of the train split, if it is wanted.
        val: That of the val split, if it is wanted.
        verify: Whether the lists must be those of OpenOOD v1.5, by their hashes.
        transform: Preprocessing; by default that of OpenOOD.
        shape: (C, H, W) to bring the images into.
        damaged: Whether damaged files are an error or left out, which is said.

    Raises:
        NotAvailable: Lists or images are absent.
        GauntletError: A list is none of OpenOOD's, or another version of it.
    """
    path, train, val = (str(_found(_name(one), source, verify)) if one else "" for one in (list, train, val))
    roots = [str(source.root / place) for place in _IMAGES if (source.root / place).is_dir()]
    if not roots:
        raise NotAvailable(f"Dataset 'openood' needs images_classic or images_largescale in {source.root}.")
    usual = _usual(list) if transform is None else transform
    return image_list(
        source,
        path=path,
        train=train,
        val=val,
        root=roots,
        transform=usual,
        shape=shape,
        channels=3,
        upright=False,
        damaged=damaged,
    )


def _name(name: str) -> str:
    return name if name.endswith(".txt") else f"{name}.txt"


def _usual(name: str) -> Any:
    """OpenOOD's preprocessing; the files of ImageNet-C have their size already."""
    if name.partition("/")[0] in ("imagenet", "imagenet200"):
        return {"centre_crop": 224} if "_c" in Path(name).stem[-2:] else "imagenet-256-224"
    return "small-32"


def _found(name: str, source: DataSource, verify: bool) -> Path:
    known = known_lists()
    if verify and name not in known:
        raise GauntletError(f"OpenOOD v1.5 has no list {name!r}; {nearest(name, known)}")
    path = next((source.root / place / name for place in _LISTS if (source.root / place / name).is_file()), None)
    if path is None:
        raise NotAvailable(
            f"Dataset 'openood' needs {_LISTS[0]}/{name} in {source.root} (github.com/Jingkang50/OpenOOD, "
            "scripts/download)."
        )
    if verify:
        _verify(path, *known[name])
    return path


def _verify(path: Path, digest: str, lines: int) -> None:
    """Refuse a list that is not that of OpenOOD v1.5, whatever blanks end its lines.

    Raises:
        GauntletError: It is another one.
    """
    found = [line.rstrip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    while found and not found[-1]:
        found.pop()
    if hashlib.sha256("".join(f"{line}\n" for line in found).encode()).hexdigest() != digest:
        raise GauntletError(
            f"{path} is not OpenOOD v1.5's list: it has {len(found)} lines where that has {lines}"
            f"{', and other ones' if len(found) == lines else ''}; write `verify: false` if that is meant."
        )
