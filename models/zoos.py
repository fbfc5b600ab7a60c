"""Models of timm and of Hugging Face's transformers by name; either library is imported when one of its is named."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import GauntletError, NotAvailable, nearest
from .layers import Normalize

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Preprocessed(nn.Module):
    """A network behind what its library does to images in [0, 1].

    Args:
        network: Gives logits (N, K), or an object that has them.
        mean: Of the normalisation.
        std: Of the normalisation.
        size: Height and width that images are resized to, bilinearly; None leaves them.
        class_names: Of the network's classes, where it has its own weights.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        size: tuple[int, int] | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.normalize, self.model = Normalize(mean, std), network
        self.size, self.class_names = size, class_names

    def prepared(self, images: Tensor) -> Tensor:
        """Images (N, 1 or 3, H, W) in [0, 1] as the network takes them; grey ones in three channels."""
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        if self.size is not None and images.shape[2:] != self.size:
            images = F.interpolate(images, size=self.size, mode="bilinear", antialias=True, align_corners=False)
        return self.normalize(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        found = self.model(self.prepared(images))
        return found.logits if hasattr(found, "logits") else found


def _library(name: str, package: str) -> Any:
    """A library, imported now.

    Raises:
        NotAvailable: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = {"timm": "timm", "transformers": "hf"}[package]
        raise NotAvailable(
            f"Model {name!r} needs {package} ({error}): pip install 'gauntlet-bench[{extra}]'."
        ) from None


def timm(name: str, classes: int, pretrained: bool, download: bool, size: int | None) -> nn.Module:
    """A model of timm with its normalisation, at its own image size where that is fixed or the weights are timm's.

    Raises:
        GauntletError: timm has no such model, or its weights are of other classes or not here.
    """
    library = _library(f"timm/{name}", "timm")
    known = library.list_models()
    if name.partition(".")[0] not in known:
        raise GauntletError(f"timm has no model {name!r}; {nearest(name, known)}")
    options = {} if pretrained else {"num_classes": classes}
    config = library.get_pretrained_cfg(name)
    if size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = size
    try:
        with _offline() if pretrained and not download else nullcontext():
            network = library.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise _absent(f"timm/{name}", error) if pretrained else _refused(f"timm/{name}", error) from error
    facts = network.pretrained_cfg
    own = tuple(facts["input_size"][1:]) if pretrained or facts.get("fixed_input_size") else None
    return _checked(
        Preprocessed(network, tuple(facts["mean"]), tuple(facts["std"]), (size, size) if size else own),
        f"timm/{name}",
        classes,
        network.num_classes,
    )


def hugging_face(name: str, classes: int, pretrained: bool, download: bool, size: int | None) -> nn.Module:
    """An image classifier of transformers, from its cache or a folder, with what its processor says.

    Without ``pretrained`` it is drawn at random from the configuration.

    Raises:
        GauntletError: There is no such model, or it is not here.
    """
    library = _library(f"hf/{name}", "transformers")
    where = {"local_files_only": not download}
    kind = library.AutoModelForImageClassification
    try:
        if pretrained:
            network = kind.from_pretrained(name, use_safetensors=True, **where)
        else:
            config = library.AutoConfig.from_pretrained(name, num_labels=classes, **where)
            network = kind.from_config(config)
    except (OSError, ValueError, ImportError) as error:
        raise _absent(f"hf/{name}", error) from error
    mean, std, own = _processor(library, name, where)
    config = network.config
    side = getattr(config, "image_size", None)
    fixed = own or ((side, side) if isinstance(side, int) else None)
    names = tuple(config.id2label[number] for number in sorted(config.id2label)) if pretrained else ()
    made = Preprocessed(network, mean, std, (size, size) if size else fixed, names)
    return _checked(made, f"hf/{name}", classes, config.num_labels)


def _processor(library: Any, name: str, where: dict[str, Any]) -> tuple[Any, Any, tuple[int, int] | None]:
    """Mean, std and size of a model's processor; ImageNet's where it has none."""
    try:
        facts, _ = library.image_processing_utils.BaseImageProcessor.get_image_processor_dict(name, **where)
    except (OSError, ValueError, AttributeError):
        return *_IMAGENET, None
    size = facts.get("crop_size") or facts.get("size") or {}
    size = {"height": size, "width": size} if isinstance(size, int) else size
    known = (size["height"], size["width"]) if "height" in size else None
    mean, std = facts.get("image_mean", _IMAGENET[0]), facts.get("image_std", _IMAGENET[1])
    return (tuple(mean), tuple(std), known) if facts.get("do_normalize", True) else ((0.0,), (1.0,), known)


@contextmanager
def _offline() -> Iterator[None]:
    """No request to the hub, which nobody has allowed."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _absent(name: str, error: Exception) -> NotAvailable:
    said = str(error).strip().partition("\n")[0].rstrip(".")
    return NotAvailable(
        f"Model {name!r} is not in its library's cache ({said}); run with --download, or give a folder."
    )


def _refused(name: str, error: Exception) -> GauntletError:
    said = str(error).strip().partition("\n")[0].rstrip(".")
    return GauntletError(f"Model {name!r} cannot be built: {said}.")


def _checked(module: Preprocessed, name: str, classes: int, known: int) -> Preprocessed:
    if known != classes:
        raise GauntletError(
            f"Model {name!r}: its own weights have {known} classes, the dataset has {classes}; leave `pretrained` out, "
            "or give the module to gauntlet.evaluate with classes=."
        )
    return module.eval()
