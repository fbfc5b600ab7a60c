"""Adaptive attacks on detectors: OOD images made to look ID, ID images to look OOD, and the classifier with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...registry import ATTACKS, Obstacle, Selected, evaluator, source_fingerprint
from ...results.estimates import estimate
from ...results.metrics.robust_ood import ADAPTIVE
from ...results.records import CellResult, Measurement, PlannedCell
from ...results.samples import Scores
from ..device_images import drawn_positions
from ..jobs import Finished, ModelRow, OODSet
from ..leaks import require_unseen
from .attack import ATTACK_KEYS
from .attack_plans import AttackPlan, plan_attack, unused_budgets
from .base import proportion
from .detector_attacks import STARTS, DetectorAttack, Side
from .detector_plans import DETECTOR_KEYS, DetectorEvaluator, DetectorJob, Task, plan_detectors

if TYPE_CHECKING:
    from ...datasets import ImageSet, ResolvedDataset
    from ..context import RowContext
    from ..fitted_detector import FittedDetector
    from ..model_specs import ModelSpec
    from ..suite import Suite


@dataclass(frozen=True)
class RobustTask(Task):
    """What one cell is about: a detector, an attack with its budget, and an OOD set."""

    attack: AttackPlan
    epsilon: float
    outside: OODSet

    @property
    def obstacle(self) -> Obstacle:
        """Why it cannot be computed here."""
        return self.attack.obstacle or self.outside.obstacle


@evaluator(
    "robust-ood",
    title="OOD detection under attack",
    order=65,
    needs="logits",
    needs_keys=("attacks", "detectors", "ood"),
    reads=(*ATTACK_KEYS, *DETECTOR_KEYS),
    metrics=("auroc", *ADAPTIVE, "fpr95", "accepted_and_wrong"),
)
class RobustOOD(DetectorEvaluator):
    """Attacks each detector's own score, on both sides, with every attack of the suite that can climb any loss.

    An image counts with the most extreme score that any start, or the image itself, has: the attacked AUROC is never
    above the clean one. A score without gradients, or whose gradients are 0 (a rounded one), is attacked from outside:
    by images made against the largest probability (transfer), and by square search; the reason says so.
    """

    def left_out(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, Obstacle]]:
        """Detectors as ever, and attacks that need logits."""
        yield from super().left_out(suite, model, dataset)
        for attack in suite.attacks:
            if not _climbs(attack):
                yield attack.label, "it needs the logits of a classifier, and cannot climb a detector's score"

    def unused(self, suite: Suite) -> Iterator[str]:
        """Budgets of other attacks, and a wish to tune where there is nothing to choose."""
        yield from unused_budgets(suite)
        yield from super().unused(suite)

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[RobustJob]:
        """One job an attack."""
        jobs: list[RobustJob] = []
        outside = [part for part in out_sets if not part.shifted]
        for attack in (plan_attack(suite, row, chosen) for chosen in suite.attacks if _climbs(chosen)):
            tasks = [
                RobustTask(plan, attack, epsilon, part)
                for plan in plan_detectors(suite, row)
                for part in outside
                for epsilon in attack.epsilons
                if epsilon is not None
            ]
            jobs += self.jobs(
                RobustJob, row, attack.attack.label, [(self._cell(row, task), task) for task in tasks], attack=attack
            )
        return jobs

    def _cell(self, row: ModelRow, task: RobustTask) -> PlannedCell:
        attack, outside = task.attack, task.outside
        return self.cell(
            row,
            [task.plan.content, attack.content, task.epsilon, attack.images, outside.fingerprint, STARTS],
            source_fingerprint(ATTACKS.get("square")),
            facts={"norm": attack.norm, "ood_group": outside.group},
            params={**attack.params, **task.plan.params, "ood": outside.dataset.describe(), **outside.held_out},
            attack=attack.attack.label,
            epsilon=task.epsilon,
            detector=task.detector.label,
            ood_dataset=outside.dataset.label,
            role=outside.role,
        )


def _climbs(attack: Selected) -> bool:
    """Whether an attack can climb any loss within a ball."""
    facts = attack.entry.meta
    losses = facts.get("loss") == "any" and attack.parameters.get("loss", "xent") == "xent"
    return facts.get("kind", "fixed") == "fixed" and (losses or attack.entry.name == "square")


@dataclass(frozen=True, kw_only=True)
class RobustJob(DetectorJob[RobustTask]):
    """One attack on all detectors; ID images are attacked once a detector, whatever the OOD sets."""

    attack: AttackPlan

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Attack and measure one cell after the other."""
        epsilons = tuple(sorted({self.tasks[cell.key].epsilon for cell in cells}))
        study = _Study(self, epsilons, context)
        return self.ask(cells, context, study.cell)


class _Study:
    """Attacks each (detector, set of images) once at all budgets."""

    def __init__(self, job: RobustJob, epsilons: Sequence[float], context: RowContext) -> None:
        self._job, self._epsilons, self._context = job, epsilons, context
        self._sides: dict[tuple[str, str], Side] = {}
        self._joint: dict[str, dict[float, tuple[int, int]]] = {}

    def cell(self, task: RobustTask, fitted: FittedDetector) -> CellResult:
        """The metrics of one cell."""
        require_unseen(task.outside.dataset, self._context)
        attacker = DetectorAttack(self._job, task.detector.label, fitted, self._epsilons, self._context)
        inside = self._side(attacker, self._job.row.dataset, 0)
        outside = self._side(attacker, task.outside.dataset, 1)
        measurements = _measured(inside, outside, task.epsilon)
        if attacker.has_gradient:
            if task.detector.label not in self._joint:
                self._joint[task.detector.label] = attacker.joint(self._images(self._job.row.dataset))
            wrong, total = self._joint[task.detector.label][task.epsilon]
            measurements.append(proportion("accepted_and_wrong", wrong, total))
        arrays = {
            "id_score": inside.clean,
            "ood_score": outside.clean,
            "id_attacked_score": inside.attacked[task.epsilon],
            "ood_attacked_score": outside.attacked[task.epsilon],
        }
        return CellResult(measurements=tuple(measurements), reason=attacker.reason, arrays=arrays)

    def _images(self, dataset: ResolvedDataset) -> ImageSet:
        images = self._context.images(dataset, "test")
        return images.subset(drawn_positions(len(images), self._job.attack.images, dataset.name))

    def _side(self, attacker: DetectorAttack, dataset: ResolvedDataset, label: int) -> Side:
        key = attacker.label, dataset.label if label else ""
        if key not in self._sides:
            self._sides[key] = attacker.side(self._images(dataset), label)
        return self._sides[key]


def _measured(inside: Side, outside: Side, epsilon: float) -> list[Measurement]:
    """Clean and attacked figures, with the same images on either side throughout."""
    low, high = outside.attacked[epsilon], inside.attacked[epsilon]
    n = len(low) + len(high)
    samples = {
        ("auroc", "fpr95"): Scores(inside.clean, outside.clean),
        ("adaptive_auroc", "adaptive_fpr95"): Scores(high, low),
        ("ood_attacked_auroc",): Scores(inside.clean, low),
        ("id_attacked_auroc",): Scores(high, outside.clean),
    }
    found = {name: value for names, sample in samples.items() for name, value in estimate(names, sample).items()}
    return [Measurement(name, *estimated, n) for name, estimated in found.items()]
