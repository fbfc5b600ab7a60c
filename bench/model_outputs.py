"""Outputs of a model: one pass over a set of images yields all that somebody asked for, and the cache keeps it."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..datasets import ImageSet
from ..detectors import Head, Outputs
from ..models.tensor_files import load_tensors, save_tensors
from ..registry import GauntletError, digest
from ..registry.locks import locked
from ..registry.safe_files import sealed, unsealed, write_whole
from .probe import differs
from .sweep import Sweeper, Swept

#: Bytes that the cache may take; the folders used least recently go first.
LIMIT = 8 * 2**30

_HEAD = ("head-weight", "head-bias")
_LABELS = "image-labels"
_PROBE = "probe-outputs"

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
        identity: The model's outputs for the probe images; those kept beside other outputs must be the same.

    Attributes:
        why_no_head: What keeps the model from having a head, as far as outputs were read.
        taken: What its features are, in words, likewise.
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
        identity: Callable[[], Tensor],
    ) -> None:
        self._module, self._fingerprint, self._probe = module, fingerprint, probe
        self._batches, self._cache, self._device = batches, cache, device
        self._feature_dim, self._stream, self._identity = feature_dim, stream, identity
        self.why_no_head, self.taken = "no pass was made", ""

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
        key = digest("outputs/3", self._fingerprint, *content, name[0])
        wanted = output_names(needs)
        facts, tensors, missing = self._kept(key, wanted)
        if missing is not None:
            with self._cache.locked(key, "/".join(name)) as waited:
                if waited:
                    facts, tensors, missing = self._kept(key, wanted)  # another process has made them
                if missing is not None:
                    facts, made = self._made(load(), wanted, missing, facts, set(tensors))
                    self._cache.keep(key, made, facts)
                    tensors |= made
        self.why_no_head, self.taken = facts["why_no_head"], facts["taken"]
        return self._assemble(load, name, tensors, facts["layers"])

    def _made(
        self, images: ImageSet, wanted: set[str], missing: set[str], before: Mapping[str, Any], there: set[str]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a sweep yields of what is missing, and the facts about all that is then there."""
        swept = self._sweep(images, missing)
        made = swept.tensors | {_LABELS: images.labels, _PROBE: self._identity()}
        facts = {
            "asked": sorted({*wanted, *before.get("asked", ())}),
            "kept": sorted({*there, *made, *before.get("kept", ())}),
            "layers": swept.layers or before.get("layers", []),
            "why_no_head": self._sweeper.tap.why_no_head,
            "taken": self._sweeper.tap.taken,
        }
        return facts, made

    def _kept(self, key: str, wanted: set[str]) -> tuple[dict[str, Any], dict[str, Tensor], set[str] | None]:
        """What the cache says and holds under a key, and what must be computed: None where nothing must."""
        facts, tensors = self._own(key, {*wanted, "features", _LABELS, *_HEAD})
        asked, kept = set(facts.get("asked", ())), set(facts.get("kept", ()))
        missing = wanted - (asked - kept) - set(tensors)  # what was asked for and not found is not asked for again
        lost = (kept & {_LABELS, *_HEAD}) - set(tensors)
        return facts, tensors, missing if missing or lost or _LABELS not in tensors else None

    def _own(self, key: str, names: set[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the cache says and holds under a key; nothing where another model left it."""
        facts = self._cache.facts(key)
        tensors = self._cache.load(key, set(facts.get("kept", ())) & {*names, _PROBE})
        probe = tensors.pop(_PROBE, None)
        if probe is not None and not differs(self._identity(), probe):
            return facts, tensors
        if probe is not None:  # it is there, and another's
            self._cache.note("Outputs in the cache are not this model's any more: they are computed again.")
        return {}, {}

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
        note: Told where what is kept cannot be used.
    """

    def __init__(self, folder: Path, limit: int = LIMIT, note: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.limit, self.note = folder, limit, note

    def locked(self, key: str, what: str) -> AbstractContextManager[bool]:
        """Hold the lock on the outputs of ``key``; says whether another process held it before."""
        return (
            locked(self.folder / f".{key}.lock", self.note, f"the outputs of {what}")
            if self.limit
            else nullcontext(False)
        )

    def facts(self, key: str) -> dict[str, Any]:
        """What was said about the outputs of ``key``, ``{}`` if nothing is kept."""
        try:
            return unsealed((self.folder / key / "facts.json").read_text(encoding="utf-8"))
        except OSError:
            return {}
        except ValueError as error:
            self._say_damaged("facts", error)
            return {}

    def load(self, key: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Those of ``names`` that are kept, memory-mapped on the CPU."""
        found = {}
        for name in names:
            try:
                found[name] = load_tensors(self._file(key, name))["values"]
            except OSError:
                continue
            except (SafetensorError, KeyError, ValueError) as error:
                self._say_damaged(name, error)
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
                save_tensors({"values": value}, self._file(key, name))
            text = sealed(facts)
            write_whole(self.folder / key / "facts.json", lambda path: path.write_text(text, encoding="utf-8"))
            self._evict(spare=key)
        except OSError:
            return

    def _file(self, key: str, name: str) -> Path:
        return self.folder / key / f"{quote(name, safe='')}.safetensors"

    def _say_damaged(self, name: str, error: Exception) -> None:
        self.note(f"The {name} of images in the cache of outputs are damaged ({error}): they are computed again.")

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
