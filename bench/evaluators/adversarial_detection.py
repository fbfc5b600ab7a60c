"""Adversarial inputs as OOD: any attack against any detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...datasets import ImageSet
from ...detectors import Outputs
from ...registry import Selected
from ...results.records import CellResult
from ..failures import failure, out_of_memory
from ..fitted_detector import fitted
from ..tuning import tuning_facts
from .attack import attacks_on_classes, budgets
from .attack_measures import attacked_targets
from .attack_plans import plan_attack
from .base import Evaluator, Finished, detectors_for
from .ood import detector_content, measure

if TYPE_CHECKING:
    from ..context import RowContext
    from ..plan import Job, OODSet, Row
    from ..suite import Suite


#: Which image each clean one is, and each attacked one.
Numbers = tuple[np.ndarray, np.ndarray]


class AdversarialDetection(Evaluator):
    """Tells images that the model gets right from those that an attack made of them and that fool it."""

    name = "adversarial-detection"
    version = 2  # the AUROC's interval knows that both sides are of the same images

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job an attack: its images are made once for all detectors."""
        return [self._job(suite, row, attack) for attack in attacks_on_classes(suite)]

    def _job(self, suite: Suite, row: Row, attack: Selected) -> Job:
        from ..plan import Job

        plan = plan_attack(suite, row, attack)
        epsilons = [epsilon for epsilon in budgets(suite, attack, plan.norm) if epsilon is not None]
        cells, payload = [], {}
        for detector in detectors_for(suite, row.model):
            tuned = tuning_facts(suite, detector)
            for epsilon in epsilons:
                chosen = {**detector.entry.defaults(), **detector.parameters}
                cell = self.cell(
                    row,
                    plan.content,
                    epsilon,
                    plan.images,
                    detector_content(suite, row, detector),
                    facts={"norm": plan.norm},
                    params={
                        **plan.params,
                        "detector": {"name": detector.entry.name, **chosen},
                        **({"tune": tuned} if tuned else {}),
                    },
                    attack=attack.label,
                    epsilon=epsilon,
                    detector=detector.label,
                )
                cells.append(cell)
                payload[cell.key] = (detector, epsilon)
        blocked = dict.fromkeys(payload, plan.blocked) if plan.blocked else {}
        facts = {"attack": attack, "images": plan.images}
        return Job(self.name, row, attack.label, tuple(cells), {**payload, **facts}, blocked, plan.others)

    def needs(self, job: Job, missing: frozenset[str]) -> set[str]:
        """What the detectors of the missing cells read."""
        return {need for key in missing for need in job.payload[key][0].entry.needs}

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Attack once at all missing epsilons, then let each detector look at what came out."""
        epsilons = sorted({job.payload[key][1] for key in missing})
        clean, fooling = _attacked(job, epsilons, bench)
        for label in dict.fromkeys(job.payload[cell.key][0].label for cell in job.cells if cell.key in missing):
            mine = {
                job.payload[cell.key][1]: cell.key
                for cell in job.cells
                if cell.key in missing and job.payload[cell.key][0].label == label
            }
            chosen = job.payload[next(iter(mine.values()))][0]
            try:
                detector = fitted(chosen, bench)
                reference = None if clean is None else detector.scores(clean)
                results = {
                    key: _compare(reference, None if outputs is None else detector.scores(outputs), numbers, label)
                    for epsilon, key in mine.items()
                    for outputs, numbers in [fooling[epsilon]]
                }
            except Exception as error:  # of any kind: the detector may be the user's own
                if out_of_memory(error):
                    raise
                results = {key: failure(error, label) for key in mine.values()}
            yield from results.items()


def _attacked(
    job: Job, epsilons: Sequence[float], bench: RowContext
) -> tuple[Outputs | None, dict[float, tuple[Outputs | None, Numbers]]]:
    """Outputs on the clean images, and on those at each epsilon that fool the model (None where there are none).

    With the latter, which image each clean one is, and each of those.
    """
    attacked = attacked_targets(job, bench)
    images = attacked.targets.images
    every = images.indices.cpu().numpy()
    if not len(images):
        return None, dict.fromkeys(epsilons, (None, (every, every)))
    fooling = {}
    for epsilon, found in zip(epsilons, list(attacked.at(epsilons)), strict=True):
        mask = found.answer != attacked.y
        made = _as_set(images, found.result.images[mask], mask, f"{images.name}/{job.label}/{epsilon:g}")
        fooling[epsilon] = bench.outputs_of(made) if len(made) else None, (every, made.indices.cpu().numpy())
    return bench.outputs_of(images), fooling


def _as_set(images: ImageSet, pixels: Tensor, mask: Tensor, name: str) -> ImageSet:
    mask = mask.to(images.labels.device)
    return replace(
        images,
        pixels=pixels.detach().float().clamp(0, 1).contiguous(),
        labels=images.labels[mask],
        indices=images.indices[mask],
        name=name,
    )


def _compare(clean: np.ndarray | None, adversarial: np.ndarray | None, images: Numbers, label: str) -> CellResult:
    if clean is None or adversarial is None:
        return CellResult(status="skipped", reason=f"{label}: the attack fooled the model on no image.")
    return measure(clean, adversarial, None, images)
