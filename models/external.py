"""Models that are not registered but can be named: `torchvision/NAME`, `timm/NAME`, `hf/NAME`, `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..registry import Entry, GauntletError, NotAvailable, nearest
from ..registry.nameable import FUNCTION, require_nameable
from ..registry.parameters import read_signature
from .layers import Normalize

_PREFIX = "torchvision/"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def find(name: str) -> Entry | None:
    """The entry that a name outside the registry stands for; None if it is of neither kind.

    Raises:
        GauntletError: The module cannot be imported, may not be named here or lacks the function, or torchvision has no
            such model.
    """
    if name.startswith(_PREFIX):
        return _torchvision(name.removeprefix(_PREFIX))
    if name.startswith(("timm/", "hf/")):
        return _of_zoo(*name.split("/", 1))
    return _function(name) if FUNCTION.fullmatch(name) else None


def _function(name: str) -> Entry:
    module_name, _, attribute = name.partition(":")
    require_nameable(module_name)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise GauntletError(
            f"Model {name!r}: the module {module_name!r} cannot be imported ({error}); is it on PYTHONPATH?"
        ) from None
    made = getattr(module, attribute, None)
    if not callable(made):
        hint = nearest(attribute, [key for key, value in vars(module).items() if callable(value) and key[0] != "_"])
        raise GauntletError(f"Model {name!r}: the module {module_name!r} has no function {attribute!r}; {hint}")
    return _entry(name, made, summary=f"{attribute} of {module_name}.", trained=True)


def _torchvision(name: str) -> Entry:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise GauntletError(f"torchvision has no classification model {name!r}; {nearest(name, known)}")

    def build(*, classes: int = 1000, pretrained: bool = False, download: bool = False) -> nn.Module:
        return _Normalised(_with_head(name, classes, pretrained, download))

    return _entry(_PREFIX + name, build, summary=f"torchvision's {name}.", versions=("torchvision",))


def _of_zoo(zoo: str, name: str) -> Entry:
    """A model of timm or transformers, which are imported when it is built."""

    def build(
        *, classes: int = 1000, pretrained: bool = False, download: bool = False, size: int | None = None
    ) -> nn.Module:
        from . import zoos

        make = {"timm": zoos.timm, "hf": zoos.hugging_face}[zoo]
        return make(name, classes, pretrained, download, size)

    library = {"timm": "timm", "hf": "transformers"}[zoo]
    return _entry(f"{zoo}/{name}", build, summary=f"{library}'s {name}.", versions=(library,))


def _entry(name: str, factory: Callable[..., Any], summary: str, **meta: Any) -> Entry:
    _, parameters = read_signature(factory, leading=False)
    return Entry("model", name, factory, summary=summary, parameters=parameters, meta=meta)


class _Normalised(nn.Module):
    """A network of torchvision behind the normalisation that it was trained with."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.normalize = Normalize(_MEAN, _STD)
        self.model = network

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to logits."""
        logits = self.model(self.normalize(x))
        return logits.logits if hasattr(logits, "logits") else logits  # the Inceptions add auxiliary ones in training


def _with_head(name: str, classes: int, pretrained: bool, download: bool) -> nn.Module:
    from torchvision import models

    if not pretrained:
        options = {"init_weights": True} if name in ("inception_v3", "googlenet") else {}
        return models.get_model(name, weights=None, num_classes=classes, **options)
    if classes != 1000:
        raise GauntletError(
            f"Model 'torchvision/{name}': torchvision's own weights have 1000 classes, the dataset has {classes}; "
            "leave `pretrained` out, or give `weights:` of your own."
        )
    weights = models.get_model_weights(name).DEFAULT
    network = models.get_model(name, weights=None)
    network.load_state_dict(_weights(name, weights.url, weights, download))
    return network


def _weights(name: str, url: str, weights: Any, download: bool) -> dict[str, Tensor]:
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file() and not download:
        raise NotAvailable(
            f"The weights of torchvision/{name} are not at {path}; run with --download, or give a file as `weights:`."
        )
    if not path.is_file():
        return weights.get_state_dict(progress=False, check_hash=True)
    return torch.load(path, map_location="cpu", weights_only=True)
