"""Named sets whose files people have: thin records over the kinds, each with its usual places below the data root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...registry import GauntletError, NotAvailable, dataset
from ..source import DataSource
from .arrays import Arrays, npy, npz
from .image_files import ImageFiles, Shape
from .image_folder import image_folder


@dataclass(frozen=True)
class Folder:
    """A set that is a folder of images.

    Attributes:
        name: Name in the registry.
        summary: One line.
        reference: Paper.
        places: Where it lies below the data root, as its archive unpacks, OpenOOD lays it out or torchvision does.
        home: Where it can be had.
        options: Of ``image-folder``.
        splits: Those that it has.
    """

    name: str
    summary: str
    reference: str
    places: tuple[str, ...]
    home: str
    options: Mapping[str, Any] = field(default_factory=dict)
    splits: tuple[str, ...] = ("test",)

    def open(
        self,
        source: DataSource,
        *,
        transform: Any = None,
        shape: Shape | None = None,
        damaged: Literal["error", "skip"] = "error",
    ) -> ImageFiles:
        """The images where they lie; photographs are not turned, as in the published figures.

        Raises:
            NotAvailable: They are in none of the places.
        """
        root = found(self.name, source, self.places, self.home)
        given = {"transform": transform, "shape": shape, "damaged": damaged, "upright": False}
        return image_folder(source, path=str(root), **{**self.options, **given})


def found(name: str, source: DataSource, places: tuple[str, ...], home: str) -> Path:
    """The first of the places that exists.

    Raises:
        NotAvailable: None does.
    """
    for place in places:
        if (source.root / place).exists():
            return source.root / place
    raise NotAvailable(
        f"Dataset {name!r} needs {places[0]} in {source.root}"
        f"{f' (or {places[1]})' if len(places) > 1 else ''}: put it there ({home})."
    )


_OPENOOD = "images_largescale"
_NONE = {"labels": "none"}
_THOUSAND = {"classes": [str(label) for label in range(1000)]}

FOLDERS = (
    Folder("imagenet-v2", "New test images of ImageNet's classes.", "Recht et al. 2019, arXiv:1902.10811",
           ("imagenetv2-matched-frequency-format-val", f"{_OPENOOD}/imagenet_v2"),
           "huggingface.co/datasets/vaishaal/ImageNetV2", _THOUSAND),
    Folder("imagenet-r", "Renditions of 200 classes of ImageNet.", "Hendrycks et al. 2021, arXiv:2006.16241",
           ("imagenet-r", f"{_OPENOOD}/imagenet_r"), "github.com/hendrycks/imagenet-r"),
    Folder("imagenet-a", "Photographs of 200 classes that networks get wrong.",
           "Hendrycks et al. 2021, arXiv:1907.07174", ("imagenet-a",), "github.com/hendrycks/natural-adv-examples"),
    Folder("imagenet-o", "Photographs of none of ImageNet's classes.", "Hendrycks et al. 2021, arXiv:1907.07174",
           ("imagenet-o", f"{_OPENOOD}/imagenet_o"), "github.com/hendrycks/natural-adv-examples", _NONE),
    Folder("imagenet-sketch", "Sketches of ImageNet's classes.", "Wang et al. 2019, arXiv:1905.13549",
           ("sketch", "imagenet-sketch"), "github.com/HaohanWang/ImageNet-Sketch"),
    Folder("dtd", "Textures: 47 classes that people described.", "Cimpoi et al. 2014, arXiv:1311.3618",
           ("dtd/images", "dtd/dtd/images"), "robots.ox.ac.uk/~vgg/data/dtd"),
    Folder("textures", "Textures as OpenOOD has them, an OOD set.", "Cimpoi et al. 2014, arXiv:1311.3618",
           ("images_classic/texture", "textures", "dtd/images", "dtd/dtd/images"), "robots.ox.ac.uk/~vgg/data/dtd",
           _NONE),
    Folder("places365", "Scenes; an OOD set.", "Zhou et al. 2018, TPAMI",
           ("places365_standard/val", "val_256", "images_classic/places365"), "places2.csail.mit.edu", _NONE),
    Folder("inaturalist", "Plants that ImageNet lacks, an OOD set of 10,000.", "Huang, Li 2021, arXiv:2105.01879",
           ("iNaturalist/images", f"{_OPENOOD}/inaturalist"), "github.com/deeplearning-wisc/large_scale_ood", _NONE),
    Folder("ssb-hard", "Classes of ImageNet-21K close to ImageNet's, an OOD set.", "Vaze et al. 2022, arXiv:2110.06207",
           ("ssb_hard", f"{_OPENOOD}/ssb_hard"), "github.com/Jingkang50/OpenOOD", _NONE),
    Folder("ninco", "Photographs checked to hold none of ImageNet's classes.", "Bitterwolf et al. 2023, "
           "arXiv:2306.00826", ("NINCO/NINCO_OOD_classes", "ninco", f"{_OPENOOD}/ninco"), "github.com/j-cb/NINCO",
           _NONE),
    Folder("openimage-o", "Photographs of none of ImageNet's classes.", "Wang et al. 2022, arXiv:2203.10807",
           ("openimage_o/images", f"{_OPENOOD}/openimage_o"), "github.com/haoqiwang/vim", _NONE),
    Folder("lsun", "Scenes cropped or resized to 32x32, an OOD set.", "Liang et al. 2018, arXiv:1706.02690",
           ("LSUN/test", "LSUN_resize/LSUN_resize", "LSUN_resize", "LSUN"), "github.com/facebookresearch/odin", _NONE),
    Folder("isun", "Scenes in 32x32, an OOD set.", "Xu et al. 2015, arXiv:1504.06755",
           ("iSUN/iSUN_patches", "iSUN"), "github.com/facebookresearch/odin", _NONE),
    Folder("omniglot", "Characters of 30 alphabets, twenty each.", "Lake et al. 2015, Science",
           ("omniglot-py/images_background", "omniglot/images_background"), "github.com/brendenlake/omniglot",
           {"labels": "path"}),
)  # fmt: skip

for _row in FOLDERS:
    dataset(
        _row.name,
        summary=_row.summary,
        reference=_row.reference,
        tags=("colour", "file", "photographs"),
        row=repr(_row),
        splits=_row.splits,
        home=f" ({_row.home})",
        opens=True,
    )(_row.open)


# -- arrays ---------------------------------------------------------------------------------------------------

Open = Callable[..., Arrays]

_MEDMNIST = (
    "pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist",
    "tissuemnist", "organamnist", "organcmnist", "organsmnist",
)  # fmt: skip


def _medmnist(name: str) -> Open:
    def open_(source: DataSource) -> Arrays:
        path = found(f"medmnist/{name}", source, (f"medmnist/{name}.npz", f"{name}.npz"), "medmnist.com")
        return npz(source, path=str(path))

    return open_


for _name in _MEDMNIST:
    if _name != "chestmnist":  # several labels of one image
        dataset(
            f"medmnist/{_name}",
            summary="Medical images of 28x28, as medmnist.com packs them.",
            reference="Yang et al. 2023, arXiv:2110.14795",
            tags=("file", "medical"),
            row=_name,
            splits=("train", "val", "test"),
            home=" (medmnist.com)",
            opens=True,
        )(_medmnist(_name))


def _cifar_c(name: str, folder: str) -> Open:
    def open_(source: DataSource, *, corruption: str = "fog", severity: int = 5) -> Arrays:
        root = found(name, source, (folder,), "zenodo.org/records/2535967 and 3555552")
        if not 1 <= severity <= 5:
            raise GauntletError(f"Dataset {name!r}: severity must be from 1 to 5, got {severity}.")
        images, labels = _npy_in(root, corruption), str(root / "labels.npy")
        rows = [10_000 * (severity - 1), 10_000 * severity]
        return npy(source, path=images, labels=labels, rows=rows)

    return open_


def _npy_in(root: Path, corruption: str) -> str:
    known = sorted(path.stem for path in root.glob("*.npy") if path.stem != "labels")
    if corruption not in known:
        raise GauntletError(f"{root} has no {corruption}.npy; it has {', '.join(known) or 'none'}.")
    return str(root / f"{corruption}.npy")


for _name, _folder in (("cifar10-c", "CIFAR-10-C"), ("cifar100-c", "CIFAR-100-C")):
    dataset(
        _name,
        summary=f"{_folder}: test images after a published corruption of severity 1 to 5.",
        reference="Hendrycks, Dietterich 2019, arXiv:1903.12261",
        tags=("colour", "file", "shifted"),
        row=_folder,
        splits=("test",),
        shape=(3, 32, 32),
        home=" (zenodo.org/records/2535967 and 3555552)",
        opens=True,
    )(_cifar_c(_name, _folder))


@dataset(
    "mnist-c",
    reference="Mu, Gilmer 2019, arXiv:1906.02337",
    tags=("grey", "file", "shifted"),
    splits=("test",),
    shape=(1, 28, 28),
    home=" (zenodo.org/records/3239543)",
    opens=True,
)
def mnist_c(source: DataSource, *, corruption: str = "fog") -> Arrays:
    """MNIST-C: test images after a published corruption.

    Raises:
        NotAvailable: The folder is absent.
        GauntletError: There is no such corruption.
    """
    root = found("mnist-c", source, ("mnist_c", "MNIST-C"), "zenodo.org/records/3239543")
    known = sorted(path.name for path in root.iterdir() if path.is_dir())
    if corruption not in known:
        raise GauntletError(f"{root} has no folder {corruption}; it has {', '.join(known) or 'none'}.")
    folder = root / corruption
    return npy(source, path=str(folder / "test_images.npy"), labels=str(folder / "test_labels.npy"))


@dataset(
    "cifar10.1",
    reference="Recht et al. 2018, arXiv:1806.00451",
    tags=("colour", "file", "shifted"),
    splits=("test",),
    shape=(3, 32, 32),
    home=" (github.com/modestyachts/CIFAR-10.1)",
    opens=True,
)
def cifar10_1(source: DataSource, *, version: Literal["v4", "v6"] = "v6") -> Arrays:
    """CIFAR-10.1: new test images of CIFAR-10's classes."""
    root = found("cifar10.1", source, ("CIFAR-10.1", "CIFAR-10.1/datasets"), "github.com/modestyachts/CIFAR-10.1")
    base = f"cifar10.1_{version}"
    return npy(source, path=str(root / f"{base}_data.npy"), labels=str(root / f"{base}_labels.npy"))
