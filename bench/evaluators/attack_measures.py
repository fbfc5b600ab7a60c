"""Which images an attack gets, and what is measured on what it returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...attacks import Attack, AttackResult, Victim, check_ball, perturbation_norms
from ...registry import GauntletError
from ...results.records import CellResult, Measurement
from ...results.statistics import median_interval
from .accuracy import checked_logits
from .base import proportion, small

if TYPE_CHECKING:
    from ...datasets import ImageSet
    from ..context import RowContext
    from ..plan import Row

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


def find_targets(row: Row, count: int, bench: RowContext) -> Targets:
    """The correctly classified images among a fixed random subset, of which smaller ones are part of larger ones.

    Raises:
        GauntletError: Logits are not finite, or a label is not a class of the model.
    """
    from ..device_images import drawn_positions

    images = bench.images(row.dataset, "test")
    outputs = bench.outputs(row.dataset, "test")
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


def measure(
    attack: Attack,
    label: str,
    result: AttackResult,
    targets: Targets,
    x: Tensor,
    y: Tensor,
    victim: Victim,
    examples: int = 0,
) -> CellResult:
    """Trust nothing that an attack says: check ball and bounds, classify again, then count."""
    try:
        check_ball(result.images, x, attack.norm, result.epsilon)
    except GauntletError as error:
        raise GauntletError(f"Attack {label!r} at epsilon {result.epsilon:g}: {error}") from None
    predictions = torch.cat([victim.logits(batch).argmax(1) for batch in result.images.split(victim.batch_size)])
    fooled = predictions != y
    total, attacked = len(targets.right), len(y)
    found = torch.where(fooled, result.norms, torch.inf) if result.smallest is None else result.smallest
    sizes = _with_errors(found, total)
    measurements = (
        proportion("robust_accuracy", attacked - int(fooled.sum()), total),
        proportion("attack_success_rate", int(fooled.sum()), attacked),
        Measurement("forwards", result.forwards / attacked, n=attacked),
        Measurement("backwards", result.backwards / attacked, n=attacked),
        *_median_norm(sizes),
    )
    distances = torch.stack([perturbation_norms(result.images, x, norm) for norm in NORMS])
    arrays = {
        "index": targets.positions.numpy().astype("int32"),
        "attacked": targets.right.numpy(),
        "prediction": small(predictions),
        "label": small(y),
        "success": fooled.cpu().numpy(),
        "claimed": result.success.cpu().numpy(),
        "norm": _numbers(result.norms),
        "distances": _numbers(distances),
        **({} if result.smallest is None else {"smallest": _numbers(result.smallest)}),
    }
    kept = _examples(result.images, x, y, predictions, examples)
    return CellResult(measurements=measurements, arrays=arrays, examples=kept)


def _examples(attacked: Tensor, clean: Tensor, y: Tensor, predictions: Tensor, count: int) -> dict[str, np.ndarray]:
    """The first attacked images before and after; all of them were classified right before."""
    if not count:
        return {}
    kept = {"clean": _numbers(clean[:count]), "adversarial": _numbers(attacked[:count])}
    return {**kept, "label": small(y[:count]), "prediction": small(predictions[:count])}


def measure_minimal(smallest: Tensor, targets: Targets) -> CellResult:
    """The cell of the smallest successful budgets: 0 where the image is misclassified, infinite where none succeeds."""
    arrays = {
        "index": targets.positions.numpy().astype("int32"),
        "attacked": targets.right.numpy(),
        "smallest": _numbers(smallest),
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


def _numbers(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
