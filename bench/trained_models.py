"""Models as a suite describes them: built, trained or loaded, calibrated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..datasets import ImageSet, ResolvedDataset
from ..datasets.process_state import global_state
from ..models import Calibrated, CheckpointStore, load_weights
from ..models.build import check_fit
from ..registry import GauntletError
from ..registry.locks import locked
from ..registry.safe_files import DamagedError
from .device_images import DeviceImages, drawn_positions
from .model_keys import build, start_of, training_key
from .model_specs import ModelSpec
from .recipes import build_recipe

#: Told about (model label, batches done, batches in all, figures) while a model trains.
TrainingProgress = Callable[[str, int, int, dict[str, Any]], None]
#: Told (training key, label, history) once a model is trained or loaded.
HistorySink = Callable[[str, str, list[dict[str, Any]]], None]

_CURVE_IMAGES = 1000


class TrainedModels:
    """Makes models; a training whose checkpoint is in the cache is never repeated.

    Args:
        images: The validation images that calibrators see; models go to the device of these.
        checkpoints: The cache of trained models.
        on_training: Progress of trainings.
        on_history: Receives training histories.
        on_note: Told what a user should read.
    """

    def __init__(
        self,
        images: DeviceImages,
        checkpoints: CheckpointStore,
        *,
        on_training: TrainingProgress | None = None,
        on_history: HistorySink | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._images, self._checkpoints, self._device = images, checkpoints, images.device
        self._on_training, self._on_history, self._note = on_training, on_history, on_note

    def make(self, spec: ModelSpec, dataset: ResolvedDataset, seed: int, batch_size: int) -> nn.Module:
        """The model in eval mode on the device, a new module each time; ``batch_size`` is that of calibration.

        Raises:
            GauntletError: The dataset is broken, or the model cannot be built, trained, loaded or calibrated.
        """
        if dataset.broken:
            raise GauntletError(dataset.broken)
        members = [self.make(member, dataset, seed, batch_size) for member in spec.members] or None
        stream = start_of(spec, seed)
        with global_state():
            torch.manual_seed(stream)
            module = build(spec, dataset, members)
            module.to(self._device).to(memory_format=torch.channels_last)
            if spec.weights is not None:
                load_weights(module, spec.weights)
            elif spec.recipe is not None:
                if spec.init_from is not None and training_key(spec, dataset, seed) not in self._checkpoints:
                    _start_from(self.make(spec.init_from, dataset, seed, batch_size), module, spec)
                self._train_or_load(spec, module, dataset, seed, stream)
        return self._calibrated(spec, module.eval(), dataset, batch_size)

    def _train_or_load(
        self, spec: ModelSpec, module: nn.Module, dataset: ResolvedDataset, seed: int, stream: int
    ) -> None:
        key = training_key(spec, dataset, seed)
        facts = self._loaded(key, spec, module)
        if facts is None:
            self._checkpoints.require_writable()
            with locked(self._checkpoints.lock_file(key), self._note, f"{spec.label} on {dataset.label}"):
                facts = self._loaded(key, spec, module)  # another process may have trained it since
                if facts is None:
                    check_fit(module, spec.label, dataset.label, dataset.shape, len(dataset.classes), spec.outputs)
                    facts = self._train(key, spec, module, dataset, seed, stream)
                    self._checkpoints.save(key, module, facts)
        if self._on_history is not None:
            self._on_history(key, spec.label, facts.get("history", []))

    def _loaded(self, key: str, spec: ModelSpec, module: nn.Module) -> dict[str, Any] | None:
        """What the checkpoint of ``key`` says, once its weights are in the module; None where there is no whole one."""
        if key not in self._checkpoints:
            return None
        drawn = {name: value.clone() for name, value in module.state_dict().items()}
        try:
            return self._checkpoints.load(key, module)
        except DamagedError as error:
            self._note(f"{spec.label} is trained again. {error}")
            self._checkpoints.discard(key)
            module.load_state_dict(drawn)
            return None

    def ready(self, spec: ModelSpec, dataset: ResolvedDataset, seed: int) -> bool:
        """Whether :meth:`make` would train nothing."""
        if spec.weights is not None or spec.recipe is None:
            return all(self.ready(member, dataset, seed) for member in spec.members)
        return training_key(spec, dataset, seed) in self._checkpoints

    def _train(
        self, key: str, spec: ModelSpec, module: nn.Module, dataset: ResolvedDataset, seed: int, stream: int
    ) -> dict[str, Any]:
        """Train the module; returns what the checkpoint says beside the weights."""
        assert spec.recipe is not None
        started, report = time.perf_counter(), self._on_training
        history = build_recipe(spec.recipe, dataset).train(
            module,
            dataset.load("train"),
            dataset.load("val"),
            device=self._device,
            seed=stream,
            progress=None if report is None else lambda done, total, figures: report(spec.label, done, total, figures),
            test=_for_curves(dataset),
            resume=self._checkpoints.progress_file(key),
        )
        return {
            "model": spec.entry.name,
            "label": spec.label,
            "parameters": spec.describe(),
            "dataset": dataset.label,
            "seed": seed,
            "seconds": time.perf_counter() - started,
            "device": str(self._device),
            "history": history,
        }

    def _calibrated(self, spec: ModelSpec, module: nn.Module, dataset: ResolvedDataset, batch_size: int) -> nn.Module:
        if spec.calibrator is None:
            return module
        val = self._images.split(dataset, "val")
        calibrator = spec.calibrator.entry.build(spec.calibrator.parameters)
        try:
            with torch.no_grad():
                batches = self._images.batches(val, batch_size)
                outputs = torch.cat([calibrator.read(module, batch) for batch, _ in batches])
            calibrator.fit(outputs, val.labels.to(self._device))
        except GauntletError as error:
            raise GauntletError(f"Model {spec.label!r} cannot be calibrated on {dataset.label!r}: {error}") from None
        return Calibrated(module, calibrator).eval()


def _start_from(start: nn.Module, module: nn.Module, spec: ModelSpec) -> None:
    try:
        module.load_state_dict(start.state_dict())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise GauntletError(f"Model {spec.label!r} cannot start from its init_from: {reason}.") from None


def _for_curves(dataset: ResolvedDataset) -> ImageSet:
    """A fixed sample of the test split, enough to draw a curve at little cost."""
    test = dataset.load("test")
    return test.subset(drawn_positions(len(test), _CURVE_IMAGES, dataset.name, "curves"))
