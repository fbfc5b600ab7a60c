"""Which images an attack gets, and what is measured on what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...attacks import Attack, AttackResult, PerImageRNG, Victim, build_attack, check_ball, perturbation_norms
from ...attacks.norms import InvalidAdversarial
from ...attacks.smallest_epsilon import smallest_epsilons
from ...attacks.victim import not_numbers
from ...registry import GauntletError
from ...results.intervals import median_interval
from ...results.records import CellResult, Measurement
from ..device_images import drawn_positions
from ..guard import global_state
from .accuracy import checked_logits
from .attack_plans import victim_of
from .base import proportion, small

if TYPE_CHECKING:
    from ...datasets import ImageSet
    from ...detectors import Outputs
    from ..context import RowContext
    from ..jobs import ModelRow
    from .attack_plans import AttackingJob

#: In place of a prediction: the logits are NaN, which is neither robust nor fooled.
BROKEN = -1

#: Share of the attacked images up to which NaN logits are only counted.
BROKEN_LIMIT = 0.05

#: The norms in which every perturbation is measured, in the order of the array ``distances``.
NORMS = ("linf", "l2", "l1", "l0")


@dataclass(frozen=True)
class Targets:
    """The images under attack.

    Attributes:
        images: Those that the model gets right.
        positions: Where the evaluated images stand in the test split (total,), in ascending order.
        right: Which of them the model gets right (total,): ``images`` are these.
    """

    images: ImageSet
    positions: Tensor
    right: Tensor


def find_targets(row: ModelRow, count: int, context: RowContext) -> Targets:
    """The correctly classified images among a fixed random subset, of which smaller ones are part of larger ones.

    Raises:
        GauntletError: Logits are not finite, or a label is not a class of the model.
    """
    images = context.images(row.dataset, "test")
    outputs = context.outputs(row.dataset, "test")
    logits, labels = checked_logits(outputs.logits, row.model.label), outputs.labels
    assert labels is not None
    wrong = (labels < 0) | (labels >= logits.shape[1])
    if wrong.any():
        raise GauntletError(
            f"{row.dataset.label} has {int(wrong.sum())} labels out of range (the first is {int(labels[wrong][0])}): "
            f"{row.model.label!r} has {logits.shape[1]} classes, so that labels must lie in 0 to {logits.shape[1] - 1}."
        )
    positions = drawn_positions(len(images), count, row.dataset.name)
    right = (logits.argmax(1) == labels)[positions.to(labels.device)].cpu()
    return Targets(images.subset(positions[right]), positions, right)


@dataclass(frozen=True)
class Answered:
    """What an attack made at one budget, checked, and what the model answers to it.

    Attributes:
        result: As the attack returned it.
        answer: Of the model, asked again about ``result.images``: predictions (N,), say.
    """

    result: AttackResult
    answer: Tensor


def attack_and_ask(
    attack: Attack,
    label: str,
    victim: Victim,
    x: Tensor,
    y: Tensor,
    epsilons: Sequence[float],
    rng: PerImageRNG,
    answer: Callable[[Tensor], Tensor],
) -> Iterator[Answered]:
    """Attack, and trust nothing that comes back: check ball and bounds, and ask the model again.

    Args:
        attack: The attack.
        label: Its name in the suite.
        victim: The model, entered.
        x: Images (N, C, H, W).
        y: Their labels (N,).
        epsilons: Budgets.
        rng: The random numbers of these images.
        answer: Asks the model about images (N, C, H, W).

    Raises:
        InvalidAdversarial: The attack broke its promise; the message names attack and epsilon.
    """
    with global_state():
        results = attack.run(victim, x.clone(), y.clone(), epsilons, rng=rng)
    if len(results) != len(epsilons):
        raise GauntletError(f"Attack {label!r} gave {len(results)} results for {len(epsilons)} epsilons.")
    for result in results:
        try:
            check_ball(result.images, x, attack.norm, result.epsilon)
        except InvalidAdversarial as error:
            raise InvalidAdversarial(f"Attack {label!r} at epsilon {result.epsilon:g}: {error}") from None
        yield Answered(result, answer(result.images))


class AttackedTargets:
    """The images that a row's model gets right, and what one attack makes of them: at each budget once.

    Evaluators that look at one attack share it, through :func:`attacked_targets`.

    Attributes:
        attack: The attack.
        targets: The images.
        x: Their pixels (N, C, H, W), on the device.
        y: Their labels (N,), on the device.
    """

    def __init__(self, job: AttackingJob, context: RowContext) -> None:
        self._job, self._context = job, context
        chosen = job.attack
        self.attack, self._label = build_attack(chosen.entry, chosen.parameters), chosen.label
        self.targets = find_targets(job.row, job.images, context)
        images, device = self.targets.images, context.device
        self.x, self.y = images.images.to(device), images.labels.to(device)
        stream = f"{job.row.seed}/{job.row.dataset.name}/{chosen.entry.name}"
        self._rng = PerImageRNG(stream, images.indices.to(device))  # large sets are not on the device
        self._found: dict[float, Answered] = {}
        self._outputs: dict[float, Outputs] = {}
        self._failure: GauntletError | None = None

    def at(self, epsilons: Sequence[float]) -> Iterator[Answered]:
        """Results with predictions (N,), one for each budget; an attack that failed is not tried again."""
        absent = [epsilon for epsilon in epsilons if epsilon not in self._found]
        if absent and self._failure is None:
            self._attack(absent)
        for epsilon in epsilons:
            if epsilon not in self._found and self._failure is not None:
                raise self._failure
            yield self._found[epsilon]

    def _attack(self, epsilons: Sequence[float]) -> None:
        """Keep every result up to the first that is invalid, and why that is so."""
        try:
            with victim_of(self._job, self._context) as victim:
                given = self.x, self.y, epsilons, self._rng
                made = attack_and_ask(self.attack, self._label, victim, *given, partial(_predictions, victim))
                for epsilon, found in zip(epsilons, made, strict=True):
                    self._found[epsilon] = found
        except GauntletError as error:
            self._failure = error

    def outputs(self, epsilon: float) -> Outputs:
        """Outputs on all evaluated images after the attack; those that the model gets wrong are as they were."""
        if epsilon not in self._outputs:
            found = next(self.at([epsilon]))
            whole = self._context.images(self._job.row.dataset, "test").subset(self.targets.positions)
            pixels = whole.images.to(self._context.device, copy=True).float()
            pixels[self.targets.right.to(pixels.device)] = found.result.images.detach().float().clamp(0, 1)
            made = replace(whole, pixels=pixels.contiguous(), name=f"{whole.name}/{self._label}/{epsilon:g}")
            self._outputs[epsilon] = self._context.outputs_of(made)
        return self._outputs[epsilon]

    def smallest(self) -> Tensor:
        """The smallest successful budget (N,) of each image, infinite where none succeeds."""
        known = next((found.result.smallest for found in self._found.values()), None)
        if known is not None:
            return known
        with victim_of(self._job, self._context) as victim:
            return smallest_epsilons(self.attack, victim, self.x, self.y, self._rng)


def attacked_targets(job: AttackingJob, context: RowContext) -> AttackedTargets:
    """What the attack of a job makes of its images, shared with the jobs of other evaluators."""
    return context.once(job.shared, lambda: AttackedTargets(job, context))


def _predictions(victim: Victim, images: Tensor) -> Tensor:
    """Predictions (N,); :data:`BROKEN` where the logits are NaN."""
    outputs = victim.outputs(images)
    return outputs.argmax(dim=1).masked_fill(not_numbers(outputs), BROKEN)


def measure(found: Answered, attacked: AttackedTargets, examples: int = 0) -> CellResult:
    """What one budget did to the target images; counted by the predictions made again."""
    result, predictions, targets, x, y = found.result, found.answer, attacked.targets, attacked.x, attacked.y
    broken = predictions == BROKEN
    fooled, lost = (predictions != y) & ~broken, int(broken.sum())
    total, count = len(targets.right), len(y)
    if lost > BROKEN_LIMIT * count:
        reason = f"Under attack the model's logits are NaN for {lost} of {count} images: neither robust nor fooled"
        return CellResult(status="failed", reason=f"{reason} (up to {BROKEN_LIMIT:.0%} are only counted).")
    sizes = torch.where(fooled, result.norms, torch.inf) if result.smallest is None else result.smallest
    measurements = (
        proportion("robust_accuracy", count - int(fooled.sum()) - lost, total),
        proportion("attack_success_rate", int(fooled.sum()), count),
        Measurement("forwards", result.forwards / count, n=count),
        Measurement("backwards", result.backwards / count, n=count),
        *((Measurement("broken_outputs", lost / count, n=count),) if lost else ()),
        *((Measurement("lost_gradients", result.lost_gradients, n=count),) if result.lost_gradients else ()),
        *_median_norm(_with_errors(sizes, total)),
    )
    distances = torch.stack([perturbation_norms(result.images, x, norm) for norm in NORMS])
    arrays = {
        "index": targets.positions.numpy().astype("int32"),
        "attacked": targets.right.numpy(),
        "prediction": small(predictions),
        "label": small(y),
        "success": fooled.cpu().numpy(),
        "claimed": result.success.cpu().numpy(),
        **({"broken": broken.cpu().numpy()} if lost else {}),
        "norm": numbers(result.norms),
        "distances": numbers(distances),
        **({} if result.smallest is None else {"smallest": numbers(result.smallest)}),
    }
    kept = _examples(result.images, x, y, predictions, examples)
    return CellResult(measurements=measurements, arrays=arrays, examples=kept)


def _examples(attacked: Tensor, clean: Tensor, y: Tensor, predictions: Tensor, count: int) -> dict[str, np.ndarray]:
    """The first attacked images before and after; all of them were classified right before."""
    if not count:
        return {}
    kept = {"clean": numbers(clean[:count]), "adversarial": numbers(attacked[:count])}
    return {**kept, "label": small(y[:count]), "prediction": small(predictions[:count])}


def measure_minimal(smallest: Tensor, targets: Targets) -> CellResult:
    """The cell of the smallest successful budgets: 0 where the image is misclassified, infinite where none succeeds."""
    arrays = {
        "index": targets.positions.numpy().astype("int32"),
        "attacked": targets.right.numpy(),
        "smallest": numbers(smallest),
    }
    found = int(smallest.isfinite().sum())
    measurements = (
        proportion("attack_success_rate", found, len(smallest)),
        *_median_norm(_with_errors(smallest, len(targets.right))),
    )
    return CellResult(measurements=measurements, arrays=arrays)


def nothing_left(targets: Targets) -> CellResult:
    """The cell of a model that gets none of the images right."""
    return CellResult(measurements=(proportion("robust_accuracy", 0, len(targets.right)),))


def _with_errors(smallest: Tensor, total: int) -> Tensor:
    """Smallest sizes of all images: 0 for those that are misclassified as they are."""
    return torch.cat([smallest, smallest.new_zeros(total - len(smallest))])


def _median_norm(norms: Tensor) -> list[Measurement]:
    """Median of the sizes; none where it is infinite (most were never fooled)."""
    values = np.sort(norms.double().cpu().numpy())
    if not len(values) or not math.isfinite(values[len(values) // 2]):
        return []
    low, high = median_interval(values)
    return [Measurement("median_norm", float(np.median(values)), low, high, len(values))]


def numbers(values: Tensor) -> np.ndarray:
    """Values as the store keeps them, in float32."""
    return values.detach().float().cpu().numpy()
