"""One pass of a model over images: outputs, features, feature maps, Gram statistics, dropout passes.

Hooks live inside a call only, and no module changes its mode: dropout is switched on by a hook that draws the masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attacks import PerImageRNG
from ..detectors import random_projection
from ..models import Calibrated, Tap

#: Number of passes with dropout switched on.
PASSES = 30
#: Powers of the Gram statistics.
POWERS = (1, 2, 3, 4, 5)

Act = Callable[[nn.Module, Tensor], Tensor | None]
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@contextmanager
def watching(modules: Iterable[nn.Module], act: Act) -> Iterator[None]:
    """Call ``act(module, output)`` after each call of the modules; what it returns replaces the output."""
    handles = [
        module.register_forward_hook(lambda part, _, output: act(part, output) if torch.is_tensor(output) else None)
        for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Swept(NamedTuple):
    """What a sweep yields: tensors of N rows by name, and the widths of the layers behind ``gram-statistics``."""

    tensors: dict[str, Tensor]
    layers: tuple[int, ...]


class Sweeper:
    """Reads outputs of one model.

    Args:
        module: In eval mode, on its device.
        probe: A few images there.
        feature_dim: Features with more dimensions also come as ``reduced``, projected to as many.
    """

    def __init__(self, module: nn.Module, probe: Tensor, feature_dim: int) -> None:
        self._module, self._probe, self._feature_dim = module, probe, feature_dim
        self.tap = Tap(module, probe)
        self._maps: LastMaps | None = None
        self._matrix: Tensor | None = None

    @torch.no_grad()
    def sweep(self, batches: Iterable[tuple[Tensor, Tensor]], wanted: set[str], stream: str) -> Swept:
        """Run over batches of images and their indices; ``stream`` names the draws of dropout."""
        parts: dict[str, list[Tensor]] = {}
        layers: tuple[int, ...] = ()
        for images, indices in batches:
            statistics: list[Tensor] = []
            named: dict[str, Tensor] = {}
            with watching_layers(self._module, wanted, named):
                if "gram-statistics" in wanted:
                    tapped: dict[str, Tensor] = {}
                    statistics = gram_statistics(self._module, lambda x=images, into=tapped: into.update(self.tap(x)))  # type: ignore[misc]
                    layers = tuple(part.shape[1] for part in statistics)
                else:
                    tapped = self.tap(images)
            tapped |= named
            for name, value in self._select(tapped, statistics, images, PerImageRNG(stream, indices), wanted):
                parts.setdefault(name, []).append(value)
        return Swept({name: torch.cat(values) for name, values in parts.items()}, layers)

    def _select(
        self, tapped: dict[str, Tensor], statistics: list[Tensor], images: Tensor, draws: PerImageRNG, wanted: set[str]
    ) -> Iterator[tuple[str, Tensor]]:
        features = tapped.pop("features", None)
        if features is not None:
            wide = features.shape[1] > self._feature_dim
            if "features" in wanted or (not wide and "reduced" in wanted):
                yield "features", features
            if wide and "reduced" in wanted:
                yield "reduced", self._project(features)
        yield from ((name, value) for name, value in tapped.items() if name in wanted)
        if statistics:
            yield "gram-statistics", torch.cat(statistics, dim=1)
        if wanted & {"feature-maps", "deflated-logits"} and self._last_maps().found:
            if "feature-maps" in wanted:
                yield "feature-maps", self._last_maps().read(images)
            if "deflated-logits" in wanted:
                yield "deflated-logits", self._last_maps().deflated(images)
        if "passes" in wanted and dropout_layers(self._module):
            yield "passes", dropout_passes(self._module, images, draws)

    def _last_maps(self) -> LastMaps:
        if self._maps is None:
            self._maps = LastMaps(self._module, self._probe)
        return self._maps

    def _project(self, features: Tensor) -> Tensor:
        if self._matrix is None:
            self._matrix = random_projection(features.shape[1], self._feature_dim, features.device)
        return features @ self._matrix


# -- layers by name -------------------------------------------------------------------------------------------


@contextmanager
def watching_layers(module: nn.Module, wanted: Iterable[str], into: dict[str, Tensor]) -> Iterator[None]:
    """Put the outputs (N, D) of each layer that is wanted as ``layer:NAME`` into a mapping, by that name.

    They are averaged over pixels or tokens; of a layer that is called several times the last output counts.
    """
    known = dict(_uncalibrated(module).named_modules())
    layers = {known[name]: f"layer:{name}" for name in _layer_names(wanted) if name in known}

    def act(layer: nn.Module, output: Tensor) -> None:
        into[layers[layer]] = pooled(output)

    with watching(layers, act):
        yield


def _layer_names(wanted: Iterable[str]) -> list[str]:
    return [name.removeprefix("layer:") for name in wanted if name.startswith("layer:")]


def pooled(output: Tensor) -> Tensor:
    """A layer's output (N, C, H, W), (N, tokens, C) or (N, D) as one vector an image."""
    return output.flatten(2).mean(dim=2) if output.ndim == 4 else output.mean(dim=1) if output.ndim == 3 else output


# -- the last feature maps ------------------------------------------------------------------------------------


class LastMaps:
    """The last feature maps (N, C, H, W) of a model, or of each member of an ensemble, as one forward pass makes them.

    Args:
        module: In eval mode.
        probe: A few images.

    Attributes:
        found: Whether there are any that are more than one pixel large.
    """

    def __init__(self, module: nn.Module, probe: Tensor) -> None:
        self._module = module
        members = getattr(_uncalibrated(module), "members", None)
        parts = list(members) if isinstance(members, nn.ModuleList) else [module]
        self._calls = dict(filter(None, (_last_map(part, module, probe) for part in parts)))
        self.found = len(self._calls) == len(parts)

    def read(self, images: Tensor) -> Tensor:
        """The maps (N, C, H, W) of the last part."""
        caught: list[Tensor] = []
        self._run(images, lambda maps: caught.append(maps.clone()))
        return caught[-1]

    def deflated(self, images: Tensor) -> Tensor:
        """Logits (N, K) after the largest singular component was taken out of each image's maps."""
        return self._run(images, without_largest_component)

    def _run(self, images: Tensor, change: Callable[[Tensor], Tensor | None]) -> Tensor:
        left = dict(self._calls)

        def act(part: nn.Module, output: Tensor) -> Tensor | None:
            left[part] -= 1
            return change(output) if left[part] == 0 else None

        with watching(self._calls, act):
            return self._module(images)


def _uncalibrated(module: nn.Module) -> nn.Module:
    """The model inside a calibrated one, which has its maps."""
    while isinstance(module, Calibrated):
        module = module.model
    return module


def _last_map(part: nn.Module, whole: nn.Module, probe: Tensor) -> tuple[nn.Module, int] | None:
    """The module inside ``part`` that gives its last map larger than a pixel, and how often it is called for that."""
    calls: dict[nn.Module, int] = {}
    last: list[nn.Module] = []

    def act(module: nn.Module, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            last[:] = [module]

    with watching(part.modules(), act):
        whole(probe)
    return (last[0], calls[last[0]]) if last else None


def without_largest_component(maps: Tensor) -> Tensor:
    """Maps (N, C, H, W), seen as C x HW matrices, less ``s u v'`` of their largest singular value."""
    flat = maps.flatten(2)
    tall = flat.shape[1] > flat.shape[2]
    gram = flat.mT @ flat if tall else flat @ flat.mT
    leading = torch.linalg.eigh(gram.double() if gram.device.type != "mps" else gram).eigenvectors[:, :, -1:]
    leading = leading.to(flat.dtype)
    component = (flat @ leading) @ leading.mT if tall else leading @ (leading.mT @ flat)
    return (flat - component).view_as(maps)


# -- Gram statistics ------------------------------------------------------------------------------------------


def gram_layers(module: nn.Module) -> list[nn.Module]:
    """The convolutions and rectifiers, whose maps the Gram statistics are taken of."""
    return [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.ReLU, nn.GELU))]


def gram_statistics(module: nn.Module, run: Callable[[], object]) -> list[Tensor]:
    """Row sums of the Gram matrices of all powers, one tensor (N, powers * C) a layer, as ``run`` runs the module."""
    found: list[Tensor] = []

    def act(_: nn.Module, output: Tensor) -> None:
        if output.ndim == 4:
            found.append(row_sums(output))

    with watching(gram_layers(module), act):
        run()
    return found


def row_sums(maps: Tensor) -> Tensor:
    """For each power p and channel c ``sum_d <F_c^p, F_d^p>``, brought back to the unit of p = 1; (N, powers * C)."""
    flat = maps.flatten(2)
    rows = []
    for power in POWERS:
        raised = flat**power
        sums = (raised @ raised.sum(dim=1).unsqueeze(2)).squeeze(2)  # of the rows of the Gram matrix, without it
        rows.append(sums.sign() * sums.abs() ** (1 / power))
    return torch.cat(rows, dim=1)


# -- dropout --------------------------------------------------------------------------------------------------


def dropout_layers(module: nn.Module) -> list[nn.Module]:
    """The dropout layers that drop anything."""
    return [part for part in module.modules() if isinstance(part, _DROPOUTS) and part.p > 0]


def dropout_passes(module: nn.Module, images: Tensor, draws: PerImageRNG, passes: int = PASSES) -> Tensor:
    """Logits (N, passes, K) with dropout switched on; the masks belong to the images, not to their batch."""
    layers = dropout_layers(module)
    order = {layer: position for position, layer in enumerate(layers)}
    found = []
    for number in range(passes):

        def act(layer: nn.Module, output: Tensor, number: int = number) -> Tensor:
            whole = output.shape[1:] if isinstance(layer, nn.Dropout) else output.shape[1:2]
            drawn = draws.uniform(tuple(whole), purpose=f"dropout/{order[layer]}", step=number)
            kept = (drawn >= float(layer.p)).to(output.dtype) / (1 - float(layer.p))  # type: ignore[arg-type]
            return output * kept.reshape(*kept.shape, *[1] * (output.ndim - kept.ndim))

        with watching(layers, act):
            found.append(module(images))
    return torch.stack(found, dim=1)
