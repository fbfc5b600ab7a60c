"""Outputs of a model: one pass over a set of images yields all that somebody asked for, and the cache keeps it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attacks import PerImageRNG
from ..datasets import ImageSet
from ..detectors import Head, Outputs, random_projection
from ..models import Tap
from ..registry import GauntletError, digest
from .output_cache import OutputCache
from .probes import LastMaps, dropout_layers, dropout_passes, gram_statistics

_HEAD = ("head-weight", "head-bias")
_LABELS = "image-labels"

#: Cuts images into batches (B, C, H, W) on the device, with the indices (B,) of the images.
Batches = Callable[[ImageSet], Iterator[tuple[Tensor, Tensor]]]


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


class ModelOutputs:
    """Outputs of one model: what a sweep yields, kept on disk.

    Args:
        module: The model, in eval mode, on its device.
        fingerprint: What the outputs depend on beside the images.
        probe: A few images (at most four) on the device, from which the sweep learns what the model is like.
        batches: How images come to the device.
        cache: Where outputs are kept.
        device: Where outputs are wanted.
        feature_dim: Features with more dimensions are projected to as many.
        stream: Names the draws of dropout, together with the images.

    Attributes:
        why_no_head: What keeps the model from having a head, as far as outputs were read.
    """

    def __init__(
        self,
        module: nn.Module,
        fingerprint: list[Any],
        probe: Callable[[], Tensor],
        batches: Batches,
        cache: OutputCache,
        *,
        device: torch.device,
        feature_dim: int,
        stream: str,
    ) -> None:
        self._module, self._fingerprint, self._probe = module, fingerprint, probe
        self._batches, self._cache, self._device = batches, cache, device
        self._feature_dim, self._stream = feature_dim, stream
        self.why_no_head = "no pass was made"

    def read(
        self, load: Callable[[], ImageSet], name: tuple[str, str], content: tuple[Any, ...], needs: Iterable[str]
    ) -> Outputs:
        """Outputs that meet ``needs`` of the images that ``load`` gives; one sweep adds what the cache lacks.

        Args:
            load: Called only where the cache lacks something or somebody looks at the images.
            name: Dataset and split.
            content: What decides the images.
            needs: Names of outputs.
        """
        load = functools.cache(load)
        key = digest("outputs/2", self._fingerprint, *content, name[0])
        wanted = output_names(needs)
        facts = self._cache.facts(key)
        asked, kept = set(facts.get("asked", ())), set(facts.get("kept", ()))
        tensors = self._cache.load(key, kept & (wanted | {"features", _LABELS, *_HEAD}))
        missing = wanted - (asked - kept) - set(tensors)  # what was asked for and not found is not asked for again
        if missing or _LABELS not in tensors:
            images = load()
            swept = self._sweep(images, missing)
            made = swept.tensors | {_LABELS: images.labels}
            facts = {
                "asked": sorted(wanted | asked),
                "kept": sorted({*tensors, *made, *kept}),
                "layers": swept.layers or facts.get("layers", []),
                "why_no_head": self._sweeper.tap.why_no_head,
            }
            self._cache.keep(key, made, facts)
            tensors |= made
        self.why_no_head = facts["why_no_head"]
        return self._assemble(load, name, tensors, facts["layers"])

    def of(self, images: ImageSet, needs: Iterable[str]) -> Outputs:
        """Outputs that meet ``needs`` of images that no dataset holds; never cached."""
        swept = self._sweep(images, output_names(needs))
        return self._assemble(
            lambda: images, (images.name, images.split), swept.tensors | {_LABELS: images.labels}, swept.layers
        )

    def _sweep(self, images: ImageSet, missing: set[str]) -> Swept:
        if len(images) == 0:
            raise GauntletError(f"Dataset {images.name!r} ({images.split}) has no images.")
        swept = self._sweeper.sweep(self._batches(images), missing, f"{self._stream}/{images.name}/{images.split}")
        head = self._sweeper.tap.head
        return swept if head is None else swept._replace(tensors=swept.tensors | dict(zip(_HEAD, head, strict=True)))

    @cached_property
    def _sweeper(self) -> Sweeper:
        return Sweeper(self._module, self._probe(), self._feature_dim)

    def _assemble(
        self, load: Callable[[], ImageSet], name: tuple[str, str], tensors: dict[str, Tensor], layers: Iterable[int]
    ) -> Outputs:
        parts = {part: value.to(self._device) for part, value in tensors.items()}
        weight, bias = (parts.pop(part, None) for part in _HEAD)
        features, reduced = parts.pop("features", None), parts.pop("reduced", None)
        return Outputs(
            labels=parts.pop(_LABELS),
            logits=parts.pop("logits", None),
            features=reduced if features is None else features,
            named=parts,
            head=None if weight is None or bias is None else Head(weight, bias),
            model=self._module,
            image_batches=lambda: (batch for batch, _ in self._batches(load())),
            projected=None if features is None else reduced,
            tap=lambda batch: self._sweeper.tap(batch),
            name="/".join(name),
            layers=tuple(layers),
        )


def output_names(needs: Iterable[str]) -> set[str]:
    """Tensor names to compute for these needs; keeps unprojected features if any detector also needs the head."""
    names = {need.removeprefix("output:") for need in needs} - {"images", "labels", "model", "tap", "head"}
    if "features" in names:
        names = (names - {"features"}) | {"reduced"} | ({"features"} if "head" in set(needs) else set())
    return names | {"logits"}
