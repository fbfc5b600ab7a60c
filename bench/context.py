"""What a job is handed: the model of its row, images, outputs, and the results of other cells."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets import ImageSet, ResolvedDataset, make_outliers
from ..detectors import Outputs
from ..models import CheckpointStore, weights_fingerprint
from ..models.build import check_fit
from ..models.state import ModelState
from ..registry import EVALUATORS, NotAvailable, Selected, digest
from ..results.frame import write_bytes
from ..results.records import CellResult, PlannedCell
from .device_images import DeviceImages, drawn_positions
from .guard import global_state, is_foreign, own_copy, refuse_changes
from .jobs import Finished, Job, ModelRow
from .model_outputs import LIMIT, ModelOutputs, OutputCache
from .probe import probe_images, probe_outputs
from .suite import Suite
from .trained_models import HistorySink, TrainedModels, TrainingProgress
from .tuning import SYNTHETIC as OUTLIERS

T = TypeVar("T")


def nothing_stored(key: str) -> CellResult | None:
    """The result of a cell where there is no store."""
    return None


#: Features times training images that detectors are fitted to, where the suite sets no limit.
_FIT_NUMBERS = 2**28


def unheard(text: str) -> None:
    """What a user should read where nobody listens."""


class Resources:
    """What the rows that one process computes share: trained models, images on the device, the cache of outputs.

    Pickled, it is its device and cache folder: another process opens its own and tells nobody of its trainings.

    Args:
        device: Where models and images live.
        cache: The folder with trained models and their outputs.
        on_training: Progress of trainings.
        on_history: Receives training histories.
        on_note: Told what a user should read.
        keep_outputs: Whether outputs go to the cache.
    """

    def __init__(
        self,
        device: torch.device,
        cache: Path,
        *,
        on_training: TrainingProgress | None = None,
        on_history: HistorySink | None = None,
        on_note: Callable[[str], None] = unheard,
        keep_outputs: bool = True,
    ) -> None:
        _without_tf32(device)
        self.device, self._cache = device, cache
        self.images = DeviceImages(device)
        checkpoints = CheckpointStore(cache / "models")
        self.models = TrainedModels(
            self.images, checkpoints, on_training=on_training, on_history=on_history, on_note=on_note
        )
        self.outputs = OutputCache(cache / "outputs", LIMIT if keep_outputs else 0, note=on_note)

    def __reduce__(self) -> tuple[Any, ...]:
        return Resources, (self.device, self._cache)

    def content_hashes(self, dataset: ResolvedDataset, split: str) -> np.ndarray:
        """A hash (N,) of the pixels of each image of a split; kept in a file, so that no image is loaded for them."""
        path = self._cache / "content" / f"{digest(dataset.fingerprint(split), split)}.npy"
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError):
            found = self.images.hashes(dataset, split)
            write_bytes(lambda file: np.save(file, found, allow_pickle=False), path)
            return found


class RowContext:
    """Everything that the jobs of one row ask for, loaded or computed on the first call.

    Pickled, it is what it was made from: another process computes (or reads from the cache) what it needs anew.

    Args:
        row: The row.
        suite: For batch size, ``feature_dim`` and ``fit_limit``.
        resources: What it shares with the contexts of other rows.
        needs: All outputs that the row's jobs will ask for, so that one pass a split yields them.
        stored: Gives the stored result of a key, for cells that are derived from others.

    Attributes:
        batch_size: Most images in a pass; the suite's until memory runs out.
        remarks: What a reader of the cell that is being computed must know; they become its reason.
    """

    def __init__(
        self,
        row: ModelRow,
        suite: Suite,
        resources: Resources,
        needs: Iterable[str] = (),
        stored: Callable[[str], CellResult | None] = nothing_stored,
    ) -> None:
        self.row, self.suite, self.needs, self.stored = row, suite, frozenset(needs), stored
        self.device, self.batch_size = resources.device, suite.batch_size
        self._resources = resources
        self._failure: Exception | SystemExit | None = None
        self._state: ModelState | None = None
        self._guarding, self._borrower = False, ""
        self._set_back: Callable[[], None] = lambda: None
        self._kept: dict[Hashable, Any] = {}
        self.remarks: list[str] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return RowContext, (self.row, self.suite, self._resources, self.needs, self.stored)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, made on the first call with this key and kept until it is forgotten."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def forget(self, key: Hashable) -> None:
        """Let go of what was kept under a key, if anything was."""
        self._kept.pop(key, None)

    # -- models -----------------------------------------------------------------------------------------------

    def module(self) -> nn.Module:
        """The row's model, trained, in eval mode, on the device. A failed training is not tried again."""
        if self._failure is not None:
            raise self._failure
        try:
            module = self.once("module", lambda: self._make(self.row))
        except (Exception, SystemExit) as error:
            self._failure = error
            raise
        if self._guarding and self._state is None:
            self._state = ModelState(module)
        return module

    def guarded(self, job: Job, cells: Sequence[PlannedCell]) -> Generator[Finished, None, None]:
        """Run a job: what others use is afterwards as before. An evaluator of the user's own is handed copies.

        Raises:
            Harm: It changed weights or buffers of the row's model, before the first cell that is not yielded.
        """
        with global_state() as set_back:
            if not is_foreign(job):
                yield from job.run(cells, self)
                return
            try:
                self._guarding = True
                self._borrower = "" if EVALUATORS.get(job.evaluator).is_ours else f"Evaluator {job.evaluator!r}"
                self._set_back = set_back
                if "module" in self._kept:
                    self.module()  # its state is noted now
                for finished in job.run(cells, self):
                    self._refuse_harm(f"{job.label!r} ({job.evaluator})")
                    yield finished
                self._refuse_harm(f"{job.label!r} ({job.evaluator})")
            finally:
                self._guarding, self._borrower = False, ""
                if self._state is not None:
                    self._state.set_back()

    def _refuse_harm(self, who: str) -> None:
        if self._state is not None:
            refuse_changes(self._state.changed(), self.module(), who)

    def module_of(self, row: ModelRow) -> nn.Module:
        """The model of another row, trained where it is not yet, in eval mode."""
        return self.module() if row.key == self.row.key else self._make(row)

    def probe(self) -> Tensor | None:
        """What the row's model gives for the probe images; None where nothing needed the model."""
        return self.probe_outputs() if "module" in self._kept else None

    def probe_outputs(self) -> Tensor:
        """What the row's model gives for the probe images, a flat tensor on the CPU."""
        images = probe_images(self.row.dataset.shape)
        return self.once("probe", lambda: probe_outputs(self.module(), self._resources.images.lay_out(images)))

    def _make(self, row: ModelRow) -> nn.Module:
        return self._resources.models.make(row.model, row.dataset, row.seed, self.batch_size)

    # -- images -----------------------------------------------------------------------------------------------

    def images(self, dataset: ResolvedDataset, split: str) -> ImageSet:
        """One split, on the device if it is at most a gigabyte."""
        return self._lent(self._resources.images.split(dataset, split))

    def content_hashes(self, dataset: ResolvedDataset, split: str) -> np.ndarray:
        """A hash (N,) of the pixels of each image of a split."""
        return self._resources.content_hashes(dataset, split)

    def corrupted(self, dataset: ResolvedDataset, chosen: Selected, severity: int) -> ImageSet:
        """Test images after a corruption, kept where other rows will ask again."""
        several = len(self.suite.model_specs) * len(self.suite.seeds) > 1
        return self._lent(self._resources.images.corrupted(dataset, chosen, severity, keep=several))

    def _lent(self, images: ImageSet) -> ImageSet:
        if not self._borrower or not isinstance(images.pixels, Tensor):  # what is read again each time harms nobody
            return images
        return replace(images, pixels=images.pixels.clone(), labels=images.labels.clone())

    def _batches(self, images: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        return self._resources.images.batches(images, self.batch_size)

    # -- outputs ----------------------------------------------------------------------------------------------

    def outputs(self, dataset: ResolvedDataset, split: str, *, limit: int | None = None) -> Outputs:
        """Everything that was asked for of one split, from one pass or from the cache.

        ``limit`` takes a fixed random subset (the images that detectors are fitted on). Images are loaded only where
        the cache lacks something or a detector looks at them.
        """
        key = (dataset.fingerprint(split), split, limit)
        return self._read(key, (dataset.name, split), lambda: self._limited(dataset, split, limit))

    def fit_limit(self, width: int) -> int:
        """Most training images that detectors of ``width`` features are fitted to.

        All of them up to 2^28 numbers (1 GiB in float32), whatever the machine; a suite may say less or more.
        """
        return self.suite.fit_limit or max(1, _FIT_NUMBERS // width)

    def _limited(self, dataset: ResolvedDataset, split: str, limit: int | None) -> ImageSet:
        images = self.images(dataset, split)
        if limit is None or len(images) <= limit:
            return images
        return images.subset(drawn_positions(len(images), limit, images.name))

    def validation_outliers(self) -> Outputs:
        """Outputs on the OOD set that detectors are tuned on: the one that the suite names, or synthetic outliers.

        Raises:
            NotAvailable: Its files are absent.
        """
        own, named = self.row.dataset, self.row.outliers
        if named is not None:
            if reason := named.obstacle("test"):
                raise NotAvailable(reason)
            return self.outputs(named, "test")
        key = (own.fingerprint("val"), OUTLIERS, None)
        return self._read(key, (OUTLIERS, "test"), lambda: make_outliers(self.images(own, "val")).to(self.device))

    def outputs_of(self, images: ImageSet, needs: frozenset[str] | None = None) -> Outputs:
        """Everything that was asked for, or that meets ``needs``, of images that no dataset holds; never cached."""
        return self._model_outputs.of(images, self.needs if needs is None else needs)

    def why_no_head(self) -> str:
        """What keeps the row's model from having a head."""
        return self._model_outputs.why_no_head

    def features_taken(self) -> str:
        """What the features of the row's model are, in words; empty where no job reads them."""
        read = self.needs & {"features", "head"} and "module" in self._kept
        return self._model_outputs.taken if read else ""

    def _read(self, key: tuple[Any, ...], name: tuple[str, str], load: Callable[[], ImageSet]) -> Outputs:
        if self._borrower and ("outputs", *key) not in self._kept:  # they are for others, too
            self._set_back()
            self._refuse_harm(self._borrower)
            if self._state is not None:
                self._state.set_back()
        found = self.once(("outputs", *key), lambda: self._model_outputs.read(load, name, key, self.needs))
        return own_copy(found, self._borrower) if self._borrower else found

    @cached_property
    def _model_outputs(self) -> ModelOutputs:
        module, row = self.module(), self.row
        # Dropout passes are drawn from the seed, which the key of a model from a file does not hold.
        fingerprint = [row.key, weights_fingerprint(module), self.suite.feature_dim, row.seed]
        return ModelOutputs(
            module,
            fingerprint,
            self._probe,
            self._batches,
            self._resources.outputs,
            device=self.device,
            feature_dim=self.suite.feature_dim,
            stream=str(row.seed),
            identity=self.probe_outputs,
        )

    def _probe(self) -> Tensor:
        """A few test images, which the model is seen to take."""
        model, dataset = self.row.model, self.row.dataset
        check_fit(self.module(), model.label, dataset.label, dataset.shape, len(dataset.classes), model.outputs)
        test = self.images(dataset, "test")
        return self._resources.images.lay_out(test.subset(torch.arange(min(4, len(test)))).images)


def _without_tf32(device: torch.device) -> None:
    """Let CUDA multiply float32 in float32, for the rest of the process."""
    # TF32 keeps ten bits of a factor, and which kernel runs depends on the batch: the sweep that says which images
    # are right and the victim of an attack would disagree on near-ties. Trainings there work in bfloat16 anyway.
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
