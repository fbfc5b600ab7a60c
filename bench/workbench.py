"""What jobs of one row share: the model on its device, the images there, and one forward pass per split."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..datasets import ImageSet, ResolvedDataset, make_outliers
from ..datasets.corruptions import corrupted
from ..detectors import Head, Outputs
from ..models import Calibrated, CheckpointStore, load_weights
from ..models.build import check_fit
from ..registry import GauntletError, NotAvailable, Selected, digest
from ..results.records import CellResult
from .fitted_detector import FittedDetector
from .model_specs import ModelSpec, build, start_of, training_key
from .output_cache import OutputCache, weights_fingerprint
from .plan import Row
from .recipes import build_recipe
from .suite import Suite
from .sweep import Sweeper, Swept, output_names
from .tuning import SYNTHETIC as OUTLIERS

#: Told about (model label, batches done, batches in all, figures) while a model trains.
TrainingProgress = Callable[[str, int, int, dict[str, Any]], None]
#: Told (training key, label, history) once a model is trained or loaded.
HistorySink = Callable[[str, str, list[dict[str, Any]]], None]

_CURVE_IMAGES = 1000
_KEEP_ON_DEVICE = 2**30  # bytes of one split, and of all corrupted ones together
_HEAD = ("head-weight", "head-bias")
_LABELS = "image-labels"


class Workbench:
    """Everything that is loaded or computed once and used by several jobs.

    Args:
        suite: For batch size, ``feature_dim`` and ``fit_limit``.
        device: Where models and images live.
        checkpoints: The cache of trained models.
        cache: The cache of their outputs.
        on_training: Progress of trainings.
        on_history: Receives training histories.
        stored: Gives the stored result of a key, for cells that are derived from others.
    """

    def __init__(
        self,
        suite: Suite,
        device: torch.device,
        checkpoints: CheckpointStore,
        cache: OutputCache,
        *,
        on_training: TrainingProgress | None = None,
        on_history: HistorySink | None = None,
        stored: Callable[[str], CellResult | None] = lambda key: None,
    ) -> None:
        self.suite, self.device, self.batch_size = suite, device, suite.batch_size
        self._checkpoints, self._cache = checkpoints, cache
        self._on_training, self._on_history = on_training, on_history
        self.stored = stored
        _without_tf32(device)
        self._images: dict[tuple[str, str], ImageSet] = {}
        self._corrupted: dict[tuple[str, str, int], ImageSet] = {}
        self._room = _KEEP_ON_DEVICE
        self._row: Row | None = None
        self._forget_row()

    def _forget_row(self) -> None:
        self._module: nn.Module | None = None
        self._failure: Exception | None = None
        self._weights: str | None = None
        self._sweeper_of_row: Sweeper | None = None
        self._why_no_head = "no pass was made"
        self._outputs: dict[tuple[str, str, int | None], Outputs] = {}
        self._detectors: dict[str, FittedDetector] = {}
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
            try:
                module = self._prepare(self.row.model, self.row.dataset, self.row.seed)
            except Exception as error:
                self._failure = error
                raise
            self._module = module.eval()
        return self._module

    def module_of(self, row: Row) -> nn.Module:
        """The model of another row, trained where it is not yet, in eval mode."""
        return self.module() if row.key == self.row.key else self._prepare(row.model, row.dataset, row.seed)

    def _prepare(self, spec: ModelSpec, dataset: ResolvedDataset, seed: int) -> nn.Module:
        if dataset.broken:
            raise GauntletError(dataset.broken)
        members = [self._prepare(member, dataset, seed) for member in spec.members] if spec.members else None
        stream = start_of(spec, seed)
        with torch.random.fork_rng(devices=self._cuda_devices()):
            torch.manual_seed(stream)
            module = build(spec, dataset, members)
            module.to(self.device).to(memory_format=torch.channels_last)
            if spec.weights is not None:
                load_weights(module, spec.weights)
            elif spec.recipe is not None:
                if spec.init_from is not None and training_key(spec, dataset, seed) not in self._checkpoints:
                    self._start_from(self._prepare(spec.init_from, dataset, seed), module, spec)
                self._train(spec, module, dataset, seed, stream)
        return self._calibrated(spec, module.eval(), dataset)

    def _start_from(self, start: nn.Module, module: nn.Module, spec: ModelSpec) -> None:
        try:
            module.load_state_dict(start.state_dict())
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
            raise GauntletError(f"Model {spec.label!r} cannot start from its init_from: {reason}.") from None

    def _calibrated(self, spec: ModelSpec, module: nn.Module, dataset: ResolvedDataset) -> nn.Module:
        if spec.calibrator is None:
            return module
        val = self.images(dataset, "val")
        calibrator = spec.calibrator.entry.factory(**spec.calibrator.parameters)
        try:
            with torch.no_grad():
                outputs = torch.cat([calibrator.read(module, batch) for batch in self._batches(val)])
            calibrator.fit(outputs, val.labels.to(self.device))
        except GauntletError as error:
            raise GauntletError(f"Model {spec.label!r} cannot be calibrated on {dataset.label!r}: {error}") from None
        return Calibrated(module, calibrator).eval()

    def _train(self, spec: ModelSpec, module: nn.Module, dataset: ResolvedDataset, seed: int, stream: int) -> None:
        assert spec.recipe is not None
        key = training_key(spec, dataset, seed)
        if key in self._checkpoints:
            facts = self._checkpoints.load(key, module)
        else:
            self._checkpoints.require_writable()
            check_fit(module, spec.label, dataset.label, dataset.shape, len(dataset.classes), spec.outputs)
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
        return test.subset(drawn_positions(len(test), _CURVE_IMAGES, dataset.name, "curves"))

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

    def corrupted(self, dataset: ResolvedDataset, chosen: Selected, severity: int) -> ImageSet:
        """Test images after a corruption; where other rows will ask again, the first gigabyte of them is kept."""
        key = (dataset.fingerprint("test"), chosen.label, severity)
        if key in self._corrupted:
            return self._corrupted[key]
        made = corrupted(self.images(dataset, "test"), chosen.entry, severity, chosen.parameters)
        size = made.pixels.numel()
        if len(self.suite.model_specs) * len(self.suite.seeds) > 1 and self._room >= size:
            self._room -= size
            self._corrupted[key] = made
        return made

    # -- outputs ----------------------------------------------------------------------------------------------

    def outputs(self, dataset: ResolvedDataset, split: str, *, limit: int | None = None) -> Outputs:
        """Everything that was asked for of one split, from one pass or from the cache, made on the first call.

        ``limit`` takes a fixed random subset (the images that detectors are fitted on). Images are loaded only where
        the cache lacks something or a detector looks at them.
        """
        key = (dataset.fingerprint(split), split, limit)
        if key not in self._outputs:
            self._outputs[key] = self._read(lambda: self._drawn(dataset, split, limit), (dataset.name, split), key)
        return self._outputs[key]

    def _drawn(self, dataset: ResolvedDataset, split: str, limit: int | None) -> ImageSet:
        images = self.images(dataset, split)
        if limit is None or len(images) <= limit:
            return images
        return images.subset(drawn_positions(len(images), limit, images.name))

    def validation_outliers(self, dataset: ResolvedDataset) -> Outputs:
        """Outputs on the OOD set that detectors are tuned on: the one that the suite names, or synthetic outliers.

        Raises:
            NotAvailable: Its files are absent.
        """
        if self.row.outliers is not None:
            if reason := self.row.outliers.missing("test"):
                raise NotAvailable(reason)
            return self.outputs(self.row.outliers, "test")
        key = (dataset.fingerprint("val"), OUTLIERS, None)
        if key not in self._outputs:
            load = lambda: make_outliers(self.images(dataset, "val")).to(self.device)  # noqa: E731
            self._outputs[key] = self._read(load, (OUTLIERS, "test"), key)
        return self._outputs[key]

    def outputs_of(self, images: ImageSet, needs: frozenset[str] | None = None) -> Outputs:
        """Everything that was asked for, or that meets ``needs``, of images that no dataset holds; never cached."""
        swept = self._sweep(images, output_names(self.needs if needs is None else needs))
        tensors = swept.tensors | {_LABELS: images.labels.to(self.device)}
        return self._assemble(lambda: images, (images.name, images.split), tensors, {"layers": swept.layers})

    def detector(self, chosen: Selected) -> FittedDetector:
        """A detector of the suite, tuned and fitted for the row on the first call; labels are unique in a suite.

        Raises:
            NotAvailable: The model does not yield what it needs, or there is nothing to fit it to.
        """
        if chosen.label not in self._detectors:
            self._detectors[chosen.label] = FittedDetector(chosen, self.row, self)
        return self._detectors[chosen.label]

    def why_no_head(self) -> str:
        """What keeps the row's model from having a head."""
        return self._why_no_head

    def _fingerprint(self) -> list[Any]:
        """What the outputs depend on beside the images: architecture, weights, projection, and the seed.

        Dropout passes are drawn from the seed, which the key of a model from a file does not hold.
        """
        if self._weights is None:
            self._weights = weights_fingerprint(self.module())
        return [self.row.key, self._weights, self.suite.feature_dim, self.row.seed]

    def _read(self, load: Callable[[], ImageSet], name: tuple[str, str], content: tuple[Any, ...]) -> Outputs:
        """Outputs of the images that ``load`` gives, named by dataset and split, from the cache; one sweep adds what is
        missing there.
        """
        load = functools.cache(load)
        key = digest("outputs/2", self._fingerprint(), *content, name[0])
        wanted = output_names(self.needs)
        facts = self._cache.facts(key)
        # Names that were asked for and not found are not asked for again.
        tensors = self._cache.load(key, set(facts.get("kept", ())) & (wanted | {"features", _LABELS, *_HEAD}))
        missing = wanted - (set(facts.get("asked", ())) - set(facts.get("kept", ()))) - set(tensors)
        if missing or _LABELS not in tensors:
            images = load()
            swept = self._sweep(images, missing)
            made = swept.tensors | {_LABELS: images.labels}
            facts = {
                "asked": sorted(wanted | set(facts.get("asked", ()))),
                "kept": sorted({*tensors, *made, *facts.get("kept", ())}),
                "layers": swept.layers or facts.get("layers", []),
                "why_no_head": self._sweeper().tap.why_no_head,
            }
            self._cache.keep(key, made, facts)
            tensors |= made
        self._why_no_head = facts["why_no_head"]
        return self._assemble(load, name, {part: value.to(self.device) for part, value in tensors.items()}, facts)

    def _sweep(self, images: ImageSet, missing: set[str]) -> Swept:
        if len(images) == 0:
            raise GauntletError(f"Dataset {images.name!r} ({images.split}) has no images.")
        batches = (
            (self._batch(batch), indices.to(self.device)) for batch, _, indices in images.batches(self.batch_size)
        )
        swept = self._sweeper().sweep(batches, missing, f"{self.row.seed}/{images.name}/{images.split}")
        head = self._sweeper().tap.head
        return swept if head is None else swept._replace(tensors=swept.tensors | dict(zip(_HEAD, head, strict=True)))

    def _sweeper(self) -> Sweeper:
        if self._sweeper_of_row is None:
            row = self.row
            size = row.dataset.shape, len(row.dataset.classes)
            check_fit(self.module(), row.model.label, row.dataset.label, *size, row.model.outputs)
            probe = self.images(row.dataset, "test")
            few = probe.subset(torch.arange(min(4, len(probe)))).images
            self._sweeper_of_row = Sweeper(self.module(), self._batch(few), self.suite.feature_dim)
        return self._sweeper_of_row

    def _assemble(
        self, load: Callable[[], ImageSet], name: tuple[str, str], tensors: dict[str, Tensor], facts: dict[str, Any]
    ) -> Outputs:
        weight, bias = (tensors.pop(name, None) for name in _HEAD)
        features, reduced = tensors.pop("features", None), tensors.pop("reduced", None)
        return Outputs(
            labels=tensors.pop(_LABELS),
            logits=tensors.pop("logits", None),
            features=reduced if features is None else features,
            named=tensors,
            head=None if weight is None or bias is None else Head(weight, bias),
            model=self.module(),
            image_batches=lambda: self._batches(load()),
            reduced=None if features is None else reduced,
            tap=lambda batch: self._sweeper().tap(batch),
            name="/".join(name),
            layers=tuple(facts.get("layers", ())),
        )

    def _batches(self, images: ImageSet) -> Iterator[Tensor]:
        for batch, _, _ in images.batches(self.batch_size):
            yield self._batch(batch)

    def _batch(self, images: Tensor) -> Tensor:
        return images.to(self.device).to(memory_format=torch.channels_last)


def _without_tf32(device: torch.device) -> None:
    """Let CUDA multiply float32 in float32, for the rest of the process."""
    # TF32 keeps ten bits of a factor, and which kernel runs depends on the batch: the sweep that says which images
    # are right and the victim of an attack would disagree on near-ties. Trainings there work in bfloat16 anyway.
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def drawn_positions(total: int, size: int, *stream: Any) -> Tensor:
    """Positions of a random subset that depends on nothing but its arguments, in ascending order."""
    generator = torch.Generator().manual_seed(int(digest("subset", *stream)[:15], 16))
    return torch.randperm(total, generator=generator)[:size].sort().values


def output_cache(cache: Path) -> OutputCache:
    """The cache of outputs below the cache folder."""
    return OutputCache(cache / "outputs")


def checkpoint_store(cache: Path) -> CheckpointStore:
    """The cache of trained models below the cache folder."""
    return CheckpointStore(cache / "models")
