"""Outputs of a model: one pass over a set of images yields all that somebody asked for, and the cache keeps it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..datasets import ImageSet
from ..detectors import Head, Outputs
from ..registry import GauntletError, digest
from .sweep import Sweeper, Swept

#: Bytes that the cache may take; the folders used least recently go first.
LIMIT = 8 * 2**30

_HEAD = ("head-weight", "head-bias")
_LABELS = "image-labels"

#: Cuts images into batches (B, C, H, W) on the device, with the indices (B,) of the images.
Batches = Callable[[ImageSet], Iterator[tuple[Tensor, Tensor]]]


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


class OutputCache:
    """Tensors by key and name: a folder a key, in it a `.safetensors` file a name and `facts.json`.

    Every file appears in one rename, so several processes may share the folder. Deleting any of it is always safe,
    and a folder that cannot be written only costs the passes that it would have saved.

    Args:
        folder: Where the folders live (made when something is kept).
        limit: Bytes that they may take together.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit

    def facts(self, key: str) -> dict[str, Any]:
        """What was said about the outputs of ``key``, ``{}`` if nothing is kept."""
        try:
            return json.loads((self.folder / key / "facts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def load(self, key: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Those of ``names`` that are kept, memory-mapped on the CPU."""
        found = {}
        for name in names:
            try:
                found[name] = load_file(self._file(key, name))["values"]
            except (OSError, SafetensorError, KeyError):
                continue
        if found:
            self._touch(key)
        return found

    def keep(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep tensors and facts of ``key``, then evict what was used least recently if all takes too much."""
        if sum(value.numel() * value.element_size() for value in tensors.values()) > self.limit // 2:
            return
        try:
            (self.folder / key).mkdir(parents=True, exist_ok=True)
            for name, value in tensors.items():
                self._write(key, self._file(key, name), lambda path, value=value: _save(value, path))
            text = json.dumps(facts)
            self._write(key, self.folder / key / "facts.json", lambda path: path.write_text(text, encoding="utf-8"))
            self._evict(spare=key)
        except OSError:
            return

    def _file(self, key: str, name: str) -> Path:
        return self.folder / key / f"{quote(name, safe='')}.safetensors"

    def _write(self, key: str, target: Path, write: Any) -> None:
        handle, draft = tempfile.mkstemp(dir=self.folder / key, prefix=".draft-")
        os.close(handle)
        try:
            write(Path(draft))
            Path(draft).replace(target)
        finally:
            Path(draft).unlink(missing_ok=True)

    def _touch(self, key: str) -> None:
        try:
            os.utime(self.folder / key)
        except OSError:
            return

    def _evict(self, spare: str) -> None:
        folders = sorted((path for path in self.folder.iterdir() if path.is_dir()), key=_last_use, reverse=True)
        total = 0
        for path in sorted(folders, key=lambda path: path.name != spare):  # a stable sort: the newest stays first
            total += _size(path)
            if total > self.limit:
                shutil.rmtree(path, ignore_errors=True)


def _save(value: Tensor, path: Path) -> None:
    save_file({"values": value.detach().to("cpu").contiguous()}, path)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return sum(file.stat().st_size for file in path.iterdir())
    except OSError:
        return 0
