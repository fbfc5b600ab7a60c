"""What jobs of one row share: the model on its device, the images there, and one forward pass per split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..datasets import ImageSet, ResolvedDataset
from ..detectors import Head, Outputs, random_projection
from ..models import Calibrated, CheckpointStore, Tap, create_module, load_weights
from ..models.build import check_fit
from ..registry import GauntletError, digest
from ..results.records import CellResult
from .model_specs import ModelSpec, training_key
from .plan import Row
from .recipes import build_recipe
from .suite import Suite

#: Told about (model label, batches done, batches in all, figures) while a model trains.
TrainingProgress = Callable[[str, int, int, dict[str, Any]], None]
#: Told (training key, label, history) once a model is trained or loaded.
HistorySink = Callable[[str, str, list[dict[str, Any]]], None]

_CURVE_IMAGES = 1000
_KEEP_ON_DEVICE = 2**30  # bytes of one split


class Workbench:
    """Everything that is loaded or computed once and used by several jobs.

    Args:
        suite: For batch size, ``feature_dim`` and ``fit_limit``.
        device: Where models and images live.
        checkpoints: The cache of trained models.
        on_training: Progress of trainings.
        on_history: Receives training histories.
        stored: Gives the stored result of a key, for cells that are derived from others.
    """

    def __init__(
        self,
        suite: Suite,
        device: torch.device,
        checkpoints: CheckpointStore,
        *,
        on_training: TrainingProgress | None = None,
        on_history: HistorySink | None = None,
        stored: Callable[[str], CellResult | None] = lambda key: None,
    ) -> None:
        self.suite, self.device, self.batch_size = suite, device, suite.batch_size
        self._checkpoints = checkpoints
        self._on_training, self._on_history = on_training, on_history
        self.stored = stored
        self._images: dict[tuple[str, str], ImageSet] = {}
        self._row: Row | None = None
        self._forget_row()

    def _forget_row(self) -> None:
        self._module: nn.Module | None = None
        self._failure: Exception | None = None
        self._tap: Tap | None = None
        self._outputs: dict[tuple[str, str, int | None], Outputs] = {}
        self.needs: frozenset[str] = frozenset()

    def open_row(self, row: Row, needs: Iterable[str]) -> None:
        """Turn to the jobs of one row; ``needs`` are all outputs that they will ask for."""
        if row is not self._row:
            self._row = row
            self._forget_row()
        self.needs = frozenset(needs)

    @property
    def row(self) -> Row:
        """The row that is open."""
        assert self._row is not None
        return self._row

    # -- models -----------------------------------------------------------------------------------------------

    def module(self) -> nn.Module:
        """The row's model, trained, in eval mode, on the device. A failed training is not tried again."""
        if self._failure is not None:
            raise self._failure
        if self._module is None:
            row = self.row
            try:
                module = self._prepare(row.model, row.dataset, row.seed)
                check_fit(module, row.model.label, row.dataset.label, row.dataset.shape, len(row.dataset.classes))
            except Exception as error:
                self._failure = error
                raise
            self._module = module.eval()
        return self._module

    def module_of(self, row: Row) -> nn.Module:
        """The model of another row, trained where it is not yet, in eval mode."""
        return self.module() if row.key == self.row.key else self._prepare(row.model, row.dataset, row.seed)

    def _prepare(self, spec: ModelSpec, dataset: ResolvedDataset, seed: int) -> nn.Module:
        members = [self._prepare(member, dataset, seed) for member in spec.members] if spec.members else None
        stream = int(digest("init", seed, spec.replica)[:15], 16)
        with torch.random.fork_rng(devices=self._cuda_devices()):
            torch.manual_seed(stream)
            module = create_module(
                spec.entry,
                spec.parameters,
                classes=len(dataset.classes),
                shape=dataset.shape,
                members=members,
                download=dataset.source.download,
            )
            module.to(self.device).to(memory_format=torch.channels_last)
            if spec.weights is not None:
                load_weights(module, spec.weights)
            elif spec.recipe is not None:
                self._train(spec, module, dataset, seed, stream)
        return self._calibrated(spec, module.eval(), dataset)

    def _calibrated(self, spec: ModelSpec, module: nn.Module, dataset: ResolvedDataset) -> nn.Module:
        if spec.calibrator is None:
            return module
        val = self.images(dataset, "val")
        with torch.no_grad():
            logits = torch.cat([module(batch) for batch in self._batches(val)])
        calibrator = spec.calibrator.entry.factory(**spec.calibrator.parameters)
        try:
            calibrator.fit(logits, val.labels.to(self.device))
        except GauntletError as error:
            raise GauntletError(f"Model {spec.label!r} cannot be calibrated on {dataset.label!r}: {error}") from None
        return Calibrated(module, calibrator).eval()

    def _train(self, spec: ModelSpec, module: nn.Module, dataset: ResolvedDataset, seed: int, stream: int) -> None:
        assert spec.recipe is not None
        key = training_key(spec, dataset, seed)
        if key in self._checkpoints:
            facts = self._checkpoints.load(key, module)
        else:
            check_fit(module, spec.label, dataset.label, dataset.shape, len(dataset.classes))
            recipe = build_recipe(spec.recipe, dataset)
            report = self._on_training
            progress = (
                None if report is None else (lambda done, total, figures: report(spec.label, done, total, figures))
            )
            started = time.perf_counter()
            history = recipe.train(
                module,
                dataset.load("train"),
                dataset.load("val"),
                device=self.device,
                seed=stream,
                progress=progress,
                test=self._for_curves(dataset),
                resume=self._checkpoints.progress_file(key),
            )
            facts = {
                "model": spec.entry.name,
                "label": spec.label,
                "parameters": spec.describe(),
                "dataset": dataset.label,
                "seed": seed,
                "seconds": time.perf_counter() - started,
                "device": str(self.device),
                "history": history,
            }
            self._checkpoints.save(key, module, facts)
        if self._on_history is not None:
            self._on_history(key, spec.label, facts.get("history", []))

    def _for_curves(self, dataset: ResolvedDataset) -> ImageSet:
        """A fixed sample of the test split, enough to draw a curve at little cost."""
        test = dataset.load("test")
        return test.subset(fixed_subset(len(test), _CURVE_IMAGES, dataset.name, "curves"))

    def _cuda_devices(self) -> list[torch.device]:
        return [self.device] if self.device.type == "cuda" else []

    # -- images -----------------------------------------------------------------------------------------------

    def images(self, dataset: ResolvedDataset, split: str) -> ImageSet:
        """One split, on the device if it is at most a gigabyte."""
        key = (dataset.fingerprint(split), split)
        if key not in self._images:
            loaded = dataset.load(split)
            size = loaded.pixels.numel() * loaded.pixels.element_size()
            self._images[key] = loaded.to(self.device) if size <= _KEEP_ON_DEVICE else loaded
        return self._images[key]

    # -- outputs ----------------------------------------------------------------------------------------------

    def outputs(self, dataset: ResolvedDataset, split: str, *, limit: int | None = None) -> Outputs:
        """Logits, features and named outputs of one split from one pass, made on the first call.

        ``limit`` takes a fixed random subset (the images that detectors are fitted on).
        """
        key = (dataset.fingerprint(split), split, limit)
        if key not in self._outputs:
            images = self.images(dataset, split)
            if limit is not None and len(images) > limit:
                images = images.subset(fixed_subset(len(images), limit, images.name))
            self._outputs[key] = self._pass(images)
        return self._outputs[key]

    def why_no_head(self) -> str:
        """What keeps the row's model from having a head."""
        return self._tap.why_no_head if self._tap is not None else "no pass was made"

    def forget_outputs(self, dataset: ResolvedDataset, split: str) -> None:
        """Free what one split holds."""
        self._outputs = {key: value for key, value in self._outputs.items() if key[0] != dataset.fingerprint(split)}

    def _pass(self, images: ImageSet) -> Outputs:
        if len(images) == 0:
            raise GauntletError(f"Dataset {images.name!r} ({images.split}) has no images.")
        module = self.module()
        with torch.no_grad():
            return self._sweep(module, images)

    def _sweep(self, module: nn.Module, images: ImageSet) -> Outputs:
        if self._tap is None:
            self._tap = Tap(module, self._batch(images.subset(torch.arange(min(4, len(images)))).images))
        head = self._tap.head
        parts: dict[str, list[Tensor]] = {}
        for batch in self._batches(images):
            for name, value in self._tap(batch).items():
                if self._wanted(name):
                    parts.setdefault(name, []).append(self._shrink(name, value))
        named = {name: torch.cat(values) for name, values in parts.items()}
        features = named.pop("features", None)
        return Outputs(
            labels=images.labels.to(self.device),
            logits=named.pop("logits", None),
            features=features,
            named=named,
            head=None if head is None else Head(*head),
            model=module,
            image_batches=lambda: self._batches(images),
            reduced=self._reduced(features),
        )

    def _wanted(self, name: str) -> bool:
        if name == "logits":
            return True
        if name == "features":
            return bool(self.needs & {"features", "head"})
        return name in self.needs or f"output:{name}" in self.needs

    def _shrink(self, name: str, value: Tensor) -> Tensor:
        """Project wide features batch by batch, unless a detector needs them whole beside the head."""
        if name != "features" or "head" in self.needs or value.shape[1] <= self.suite.feature_dim:
            return value
        return value @ random_projection(value.shape[1], self.suite.feature_dim, self.device)

    def _reduced(self, features: Tensor | None) -> Tensor | None:
        if features is None or features.shape[1] <= self.suite.feature_dim:
            return None
        return features @ random_projection(features.shape[1], self.suite.feature_dim, self.device)

    def _batches(self, images: ImageSet) -> Iterator[Tensor]:
        for batch, _, _ in images.batches(self.batch_size):
            yield self._batch(batch)

    def _batch(self, images: Tensor) -> Tensor:
        return images.to(self.device).to(memory_format=torch.channels_last)


def fixed_subset(total: int, size: int, *stream: Any) -> Tensor:
    """Positions of a random subset that depends on nothing but its arguments, in ascending order."""
    generator = torch.Generator().manual_seed(int(digest("subset", *stream)[:15], 16))
    return torch.randperm(total, generator=generator)[:size].sort().values


def checkpoint_store(cache: Path) -> CheckpointStore:
    """The cache of trained models below the cache folder."""
    return CheckpointStore(cache / "models")
