"""One pass of a model over images: every output that somebody asked for, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attacks import PerImageRNG
from ..detectors import random_projection
from ..models import Tap
from .probes import LastMaps, dropout_layers, dropout_passes, gram_statistics


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
            if "gram-statistics" in wanted:
                tapped: dict[str, Tensor] = {}
                statistics = gram_statistics(self._module, lambda x=images, into=tapped: into.update(self.tap(x)))  # type: ignore[misc]
                layers = tuple(part.shape[1] for part in statistics)
            else:
                tapped = self.tap(images)
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


def output_names(needs: Iterable[str]) -> set[str]:
    """The tensors that serve these needs; features whole where a detector has the head beside them."""
    names = {need.removeprefix("output:") for need in needs} - {"images", "labels", "model", "tap", "head"}
    if "features" in names:
        names = (names - {"features"}) | {"reduced"} | ({"features"} if "head" in set(needs) else set())
    return names | {"logits"}
