"""Adversarial inputs as OOD: any attack against any detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...datasets import ImageSet
from ...detectors import Outputs
from ...registry import Obstacle, evaluator
from ...results.metrics.detection import DETECTION
from ...results.records import CellResult, PlannedCell
from ..jobs import Finished, ModelRow, OODSet
from .attack import ATTACK_KEYS, attacks_on_classes
from .attack_measures import BROKEN, attacked_targets
from .attack_plans import AttackingJob, AttackPlan, plan_attack, unused_budgets
from .detector_plans import DETECTOR_KEYS, DetectorEvaluator, DetectorJob, Task, plan_detectors
from .ood import measure

if TYPE_CHECKING:
    from ..context import RowContext
    from ..fitted_detector import FittedDetector
    from ..suite import Suite


#: Outputs on images that fool the model (None where there are none); which image each clean one is, and each of those.
Fooling = tuple[Outputs | None, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class AttackedTask(Task):
    """What one cell is about: an attack and its budget."""

    attack: AttackPlan
    epsilon: float

    @property
    def obstacle(self) -> Obstacle:
        """Why the attack cannot run."""
        return self.attack.obstacle


@evaluator(
    "adversarial-detection",
    title="Detection of adversarial images",
    order=60,
    needs="logits",
    needs_keys=("attacks", "detectors"),
    reads=(*ATTACK_KEYS, *DETECTOR_KEYS, "cross"),
    crosses=("attacks",),
    metrics=DETECTION,
)
class AdversarialDetection(DetectorEvaluator):
    """Tells images that the model gets right from those that an attack made of them and that fool it."""

    statistics = ("ranking",)
    version = 3  # intervals that cover as promised

    def unused(self, suite: Suite) -> Iterator[str]:
        """Budgets of other attacks, and a wish to tune where there is nothing to choose."""
        yield from unused_budgets(suite)
        yield from super().unused(suite)

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[AdversarialJob]:
        """One job an attack: its images are made once for all detectors."""
        plans = [plan_attack(suite, row, attack) for attack in attacks_on_classes(suite)]
        return [job for plan in plans for job in self._jobs(suite, row, plan)]

    def _jobs(self, suite: Suite, row: ModelRow, attack: AttackPlan) -> list[AdversarialJob]:
        tasks = [
            AttackedTask(plan, attack, epsilon)
            for plan in plan_detectors(suite, row)
            for epsilon in attack.epsilons
            if epsilon is not None
        ]
        pairs = [(self._cell(row, task), task) for task in tasks]
        more = {"others": attack.others, "attack": attack.attack, "images": attack.images}
        return self.jobs(AdversarialJob, row, attack.attack.label, pairs, **more)

    def _cell(self, row: ModelRow, task: AttackedTask) -> PlannedCell:
        return self.cell(
            row,
            task.attack.content,
            task.epsilon,
            task.attack.images,
            task.plan.content,
            facts={"norm": task.attack.norm},
            params={**task.attack.params, **task.plan.params},
            attack=task.attack.attack.label,
            epsilon=task.epsilon,
            detector=task.detector.label,
        )


@dataclass(frozen=True, kw_only=True)
class AdversarialJob(DetectorJob[AttackedTask], AttackingJob):
    """Attacks once at all missing epsilons, then lets each detector look at what came out."""

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Attack, then measure one cell after the other."""
        clean, fooling = self._attacked(sorted({self.tasks[cell.key].epsilon for cell in cells}), context)

        def compare(task: AttackedTask, detector: FittedDetector) -> CellResult:
            outputs, images = fooling[task.epsilon]
            if clean is None or outputs is None:
                reason = f"{task.detector.label}: the attack fooled the model on no image."
                return CellResult(status="skipped", reason=reason)
            return measure(detector.scores(clean), detector.scores(outputs), None, images, self.evaluator)

        return self.ask(cells, context, compare)

    def _attacked(self, epsilons: Sequence[float], context: RowContext) -> tuple[Outputs | None, dict[float, Fooling]]:
        """Outputs on the clean images (None where there are none), and on those at each epsilon that fool the model."""
        attacked = attacked_targets(self, context)
        images = attacked.targets.images
        every = images.indices.cpu().numpy()
        if not len(images):
            return None, dict.fromkeys(epsilons, (None, (every, every)))
        fooling: dict[float, Fooling] = {}
        for epsilon, found in zip(epsilons, list(attacked.at(epsilons)), strict=True):
            mask = (found.answer != attacked.y) & (found.answer != BROKEN)
            made = _as_set(images, found.result.images[mask], mask, f"{images.name}/{self.label}/{epsilon:g}")
            fooling[epsilon] = context.outputs_of(made) if len(made) else None, (every, made.indices.cpu().numpy())
        return context.outputs_of(images), fooling


def _as_set(images: ImageSet, pixels: Tensor, mask: Tensor, name: str) -> ImageSet:
    mask = mask.to(images.labels.device)
    return replace(
        images,
        pixels=pixels.detach().float().clamp(0, 1).contiguous(),
        labels=images.labels[mask],
        indices=images.indices[mask],
        name=name,
    )
