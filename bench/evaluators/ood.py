"""OOD detection: all detectors on all OOD sets from one forward pass a split."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...detectors import Detector, build_detector, check_scores
from ...registry import NotAvailable, Selected, source_fingerprint
from ...results.records import CellResult, Measurement
from ...results.statistics import auroc_interval, ood_bootstrap
from ..failures import failure, out_of_memory
from .base import Evaluator, Finished

if TYPE_CHECKING:
    from ...detectors import Outputs
    from ..plan import Job, OODSet, Row
    from ..suite import Suite
    from ..workbench import Workbench


class OOD(Evaluator):
    """Separates test images from those of another dataset by each detector's score."""

    name = "ood"

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job a row: detectors share the outputs, so they run together."""
        from ..plan import Job

        cells, blocked, payload = [], {}, {}
        for detector in suite.detectors:
            parameters = {**detector.entry.defaults(), **detector.parameters}
            component = [detector.entry.name, parameters, source_fingerprint(detector.entry)]
            fit: list[Any] = [suite.feature_dim, suite.fit_limit, row.seed]
            if not row.blocked and detector.entry.is_class:
                fit += [row.dataset.fingerprint(split) for split in ("train", "val") if not row.dataset.missing(split)]
            for out in out_sets:
                print_of_set = f"blocked {out.dataset.label}" if out.blocked else out.dataset.fingerprint("test")
                cell = self.cell(
                    row,
                    component,
                    fit,
                    print_of_set,
                    facts={"ood_group": out.group},
                    params={
                        "detector": {"name": detector.entry.name, **parameters},
                        "feature_dim": suite.feature_dim,
                        "fit_limit": suite.fit_limit,
                        "ood": out.dataset.describe(),
                    },
                    detector=detector.label,
                    ood_dataset=out.dataset.label,
                )
                cells.append(cell)
                payload[cell.key] = (detector, out.dataset)
                if out.blocked:
                    blocked[cell.key] = out.blocked
        return [Job(self.name, row, "ood", tuple(cells), payload, blocked)] if cells else []

    def needs(self, job: Job, missing: frozenset[str]) -> set[str]:
        """What the detectors of the missing cells read."""
        return {need for key in missing for need in job.payload[key][0].entry.needs}

    def run(self, job: Job, missing: frozenset[str], bench: Workbench) -> Iterator[Finished]:
        """Score each set once per detector; a detector that fails takes only its own cells with it."""
        inside = bench.outputs(job.row.dataset, "test")
        todo: dict[str, tuple[Selected, list[tuple[str, Any]]]] = {}
        for key, (chosen, dataset) in job.payload.items():
            if key in missing:
                todo.setdefault(chosen.label, (chosen, []))[1].append((key, dataset))
        for chosen, cells in todo.values():
            keys = [key for key, _ in cells]
            try:
                detector = self._fitted(chosen, job, inside, bench)
                reference = check_scores(detector.score(inside), len(inside), chosen.label)
            except Exception as error:  # of any kind: the detector may be the user's own
                if out_of_memory(error):
                    raise
                yield from ((key, failure(error, chosen.label)) for key in keys)
                continue
            for key, dataset in cells:
                started = time.perf_counter()
                try:
                    outside = bench.outputs(dataset, "test")
                    scores = check_scores(detector.score(outside), len(outside), chosen.label)
                    result = _measure(reference.cpu().numpy(), scores.cpu().numpy())
                except Exception as error:  # of any kind: the detector may be the user's own
                    if out_of_memory(error):
                        raise
                    result = failure(error, chosen.label)
                yield key, replace(result, seconds=time.perf_counter() - started)

    def _fitted(self, chosen: Selected, job: Job, inside: Outputs, bench: Workbench) -> Detector:
        detector = build_detector(chosen)
        if "head" in detector.needs and inside.head is None:
            raise NotAvailable(f"{chosen.label} needs a head, but {bench.why_no_head()}.")
        for need in detector.needs:
            if need != "head" and inside.get(need) is None:
                raise NotAvailable(f"{chosen.label} needs {need}, which model {job.row.model.label} does not yield.")
        if detector.needs_fit:
            if reason := job.row.dataset.missing("train"):
                raise NotAvailable(reason)
            train = bench.outputs(job.row.dataset, "train", limit=bench.suite.fit_limit)
            val = bench.outputs(job.row.dataset, "val") if getattr(detector, "needs_val", False) else None
            detector.fit(train, val, inside.head)
        return detector


def _measure(inside: np.ndarray, outside: np.ndarray) -> CellResult:
    from ..kernels import ood_metrics

    points = ood_metrics(inside, outside)
    rest = {name: value for name, value in points.items() if name != "auroc"}
    intervals = {"auroc": auroc_interval(inside, outside), **ood_bootstrap(inside, outside, rest)}
    n = len(inside) + len(outside)
    measurements = tuple(Measurement(name, value, *intervals[name], n) for name, value in points.items())
    return CellResult(measurements=measurements, arrays={"id_score": inside, "ood_score": outside})
