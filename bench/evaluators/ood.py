"""OOD detection: all detectors on all OOD sets from one forward pass a split."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry import Selected, source_fingerprint
from ...results.estimates import estimate
from ...results.intervals import mean_auroc_interval
from ...results.metrics import plugged_in
from ...results.metrics.detection import DETECTION
from ...results.records import CellResult, Measurement
from ...results.samples import Scores
from ..failures import failure, out_of_memory
from ..fitted_detector import fitted
from ..tuning import tuning_facts
from .base import Evaluator, Finished, detectors_for, small, unmet_needs

if TYPE_CHECKING:
    from ...datasets import ResolvedDataset
    from ...detectors import Outputs
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..plan import Job, OODSet, Row
    from ..suite import Suite

FULL_SPECTRUM = "full-spectrum"


@dataclass(frozen=True)
class Task:
    """What one cell is about: a detector, one OOD set or the several of a group, and what counts as ID beside ID."""

    detector: Selected
    label: str
    group: str
    outside: tuple[OODSet, ...]
    shifted: tuple[OODSet, ...] = ()

    @property
    def role(self) -> str:
        """What the cell is among the others."""
        return "mean" if len(self.outside) > 1 else "measured" if self.shifted else role_of(self.outside[0])

    @property
    def blocked(self) -> str:
        """Why it cannot be computed here, if so."""
        return next((part.blocked for part in (*self.outside, *self.shifted) if part.blocked), "")


class OOD(Evaluator):
    """Separates test images from those of another dataset by each detector's score."""

    name = "ood"
    version = 3  # shifted images, means over groups
    requires = ()

    def misfits(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, str]]:
        """Detectors that need what the model does not yield."""
        for chosen in suite.detectors:
            if need := unmet_needs(chosen, model):
                yield chosen.label, f"it needs {need}, and {model.label} yields {', '.join(model.outputs)}"

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job a row: detectors share the outputs, so they run together."""
        from ..plan import Job

        tasks = [task for detector in detectors_for(suite, row.model) for task in _tasks(detector, out_sets)]
        cells = [self._cell(suite, row, task) for task in tasks]
        payload = {cell.key: task for cell, task in zip(cells, tasks, strict=True)}
        blocked = {key: task.blocked for key, task in payload.items() if task.blocked}
        return [Job(self.name, row, "ood", tuple(cells), payload, blocked)] if cells else []

    def _cell(self, suite: Suite, row: Row, task: Task) -> Any:
        detector = task.detector
        tuned = tuning_facts(suite, detector)
        return self.cell(
            row,
            detector_content(suite, row, detector),
            [_print_of(part) for part in task.outside],
            [_print_of(part) for part in task.shifted],
            facts={"ood_group": task.group},
            params={
                "detector": {"name": detector.entry.name, **detector.entry.defaults(), **detector.parameters},
                "feature_dim": suite.feature_dim,
                "fit_limit": suite.fit_limit,
                "ood": _described(task.outside),
                **({"shifted": _described(task.shifted)} if task.shifted else {}),
                **({} if task.shifted else held_out_fact(task.outside[0])),
                **({"tune": tuned} if tuned else {}),
            },
            detector=detector.label,
            ood_dataset=task.label,
            role=task.role,
        )

    def needs(self, job: Job, missing: frozenset[str]) -> set[str]:
        """What the detectors of the missing cells read."""
        return {need for key in missing for need in job.payload[key].detector.entry.needs}

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Score each set once per detector; a detector that fails takes only its own cells with it."""
        inside = bench.outputs(job.row.dataset, "test")
        todo: dict[str, list[tuple[str, Task]]] = {}
        for key, task in job.payload.items():
            if key in missing:
                todo.setdefault(task.detector.label, []).append((key, task))
        scorers: dict[str, Scorer] = {}  # all of them are fitted first, so that they share what they look for
        for label, tasks in todo.items():
            try:
                scorers[label] = Scorer(tasks[0][1].detector, job.row, inside, bench)
            except Exception as error:  # of any kind: the detector may be the user's own
                if out_of_memory(error):
                    raise
                yield from ((key, failure(error, label)) for key, _ in tasks)
        for label, scorer in scorers.items():
            for key, task in todo[label]:
                started = time.perf_counter()
                try:
                    result = scorer.measure(task)
                except Exception as error:  # of any kind: the detector may be the user's own
                    if out_of_memory(error):
                        raise
                    result = failure(error, label)
                yield key, replace(result, seconds=time.perf_counter() - started)


class Scorer:
    """The cells of one detector."""

    def __init__(self, chosen: Selected, row: Row, inside: Outputs, bench: RowContext) -> None:
        self._row, self._bench, self._inside = row, bench, inside
        self._detector = fitted(chosen, bench)
        self._labels = small(inside.labels)

    def measure(self, task: Task) -> CellResult:
        """The metrics of a cell, a mean over sets where it has several, and the hyper-parameters that were chosen."""
        scores, correct = self._detector.scores(self._inside), _correct(self._inside)
        for part in task.shifted:
            more, right = self._side(part.dataset)
            scores = np.concatenate([scores, more])
            correct = None if correct is None or right is None else np.concatenate([correct, right])
        outside = [self._side(part.dataset)[0] for part in task.outside]
        single, numbers = len(outside) == 1, self._numbers(task, len(outside[0]))
        result = measure(scores, outside[0], correct, numbers) if single else _mean(scores, outside, correct)
        if result.arrays:
            unknown = np.full(len(scores) - len(self._labels), -1, dtype=self._labels.dtype)
            result = replace(result, arrays={**result.arrays, "id_label": np.concatenate([self._labels, unknown])})
        chosen = tuple(Measurement(f"tuned_{name}", float(value)) for name, value in self._detector.choices.items())
        return replace(result, measurements=(*result.measurements, *chosen))

    def _numbers(self, task: Task, outside: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Which image each score is of, where shifted images are versions of the clean ones; None where all differ."""
        own = self._row.dataset
        if not any(part.dataset.name == own.name for part in task.shifted):
            return None
        parts = [self._bench.images(own, "test").indices.cpu().numpy()]
        for part in task.shifted:
            numbers = self._bench.images(part.dataset, "test").indices.cpu().numpy()
            others = max(map(np.max, parts)) + 1 + numbers
            parts.append(numbers if part.dataset.name == own.name else others)
        inside = np.concatenate(parts)
        return inside, inside.max() + 1 + np.arange(outside)

    def _side(self, dataset: ResolvedDataset) -> tuple[np.ndarray, np.ndarray | None]:
        outputs = self._bench.outputs(dataset, "test")
        same = dataset.classes == self._row.dataset.classes
        return self._detector.scores(outputs), _correct(outputs) if same else None


def role_of(part: OODSet) -> str:
    """The role of a cell about one OOD set."""
    return "held-out" if part.origin else "measured"


def held_out_fact(part: OODSet) -> dict[str, Any]:
    """What the params of a cell say of a set that is a class left out in turn: the dataset's label, and the class."""
    return {"held_out": {"of": part.origin, "class": part.dataset.label}} if part.origin else {}


def detector_content(suite: Suite, row: Row, detector: Selected) -> list[Any]:
    """What the key of a cell covers of a detector: itself, what it is fitted to, and how it is tuned."""
    content = [
        [detector.entry.name, {**detector.entry.defaults(), **detector.parameters}, source_fingerprint(detector.entry)],
        [suite.feature_dim if "features" in detector.entry.needs else 0, row.seed],
        [suite.fit_limit] if detector.entry.is_class else [],
        tuning_facts(suite, detector),
    ]
    tuned = content[-1]
    if not row.blocked and (detector.entry.is_class or tuned):
        if tuned and row.outliers is not None and not row.outliers.missing("test"):
            content.append(row.outliers.fingerprint("test"))
        content += [row.dataset.fingerprint(split) for split in ("train", "val") if not row.dataset.missing(split)]
    return content


def measure(
    inside: np.ndarray,
    outside: np.ndarray,
    correct: np.ndarray | None,
    images: tuple[np.ndarray, np.ndarray] | None = None,
) -> CellResult:
    """All metrics of scores of ID and OOD images; the OSCR where it is known which ID images are classified right.

    Where several scores may be of one image, ``images`` says which image each of both sides is of.
    """
    sample = Scores(inside, outside, correct, images)
    oscr = ("oscr",) if correct is not None else ()
    added = [entry.name for entry in plugged_in("ood", sample.kinds)]
    n = len(inside) + len(outside)
    found = estimate((*DETECTION, *oscr, *added), sample)
    measurements = tuple(Measurement(name, *estimate, n) for name, estimate in found.items())
    return CellResult(measurements=measurements, arrays={"id_score": inside, "ood_score": outside})


def _mean(inside: np.ndarray, sides: Sequence[np.ndarray], correct: np.ndarray | None) -> CellResult:
    """Unweighted means over OOD sets.

    The AUROC's interval knows that all sets share the ID images; that of every other metric is the mean of both ends,
    which is never too narrow.
    """
    tables = [{m.metric: m for m in measure(inside, side, correct).measurements} for side in sides]
    joint = mean_auroc_interval(inside, sides)

    def mean(name: str) -> Measurement:
        values = np.array([(t[name].value, t[name].ci_low, t[name].ci_high) for t in tables], dtype=np.float64)
        value, low, high = (float(part) for part in values.mean(axis=0))
        low, high = joint if name == "auroc" else (low, high)
        return Measurement(name, value, low, high, len(inside) + sum(map(len, sides)))

    return CellResult(measurements=tuple(mean(name) for name in tables[0]))


def _tasks(detector: Selected, out_sets: Sequence[OODSet]) -> Iterator[Task]:
    """One set after the other, the mean of each named group of several, and the same with shifted ID images."""
    shifted = tuple(part for part in out_sets if part.shifted)
    outside = [part for part in out_sets if not part.shifted]
    groups: dict[str, list[OODSet]] = {}
    for part in outside:
        groups.setdefault(part.group, []).append(part)
    plain = [Task(detector, part.dataset.label, part.group, (part,)) for part in outside]
    plain += [
        Task(detector, f"{group} mean", group, tuple(parts))
        for group, parts in groups.items()
        if group and len(parts) > 1
    ]
    yield from plain
    if shifted:
        for task in plain:
            group = f"{task.group} {FULL_SPECTRUM}".strip()
            yield replace(task, label=f"{task.label} ({FULL_SPECTRUM})", group=group, shifted=shifted)


def _print_of(part: OODSet) -> str:
    return f"blocked {part.dataset.label}" if part.blocked else part.dataset.fingerprint("test")


def _described(parts: Sequence[OODSet]) -> Mapping[str, Any] | list[Mapping[str, Any]]:
    facts: list[Mapping[str, Any]] = [part.dataset.describe() for part in parts]
    return facts[0] if len(facts) == 1 else facts


def _correct(outputs: Outputs) -> np.ndarray | None:
    if outputs.logits is None:
        return None
    return np.asarray((outputs.logits.argmax(dim=1) == outputs.labels).cpu())
