"""Reconstruction error of models that reconstruct: on each set of images, and under attacks on that very error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...attacks import PerImageRNG, build_attack
from ...attacks.reconstruction import ReconstructionVictim
from ...registry import GauntletError, Obstacle, Selected, evaluator
from ...results.intervals import mean_interval
from ...results.records import CellResult, Measurement, PlannedCell
from ..device_images import drawn_positions
from ..jobs import Finished, Job, ModelRow, OODSet
from .attack import ATTACK_KEYS, DETACH_TARGET
from .attack_measures import Answered, attack_and_ask, numbers
from .attack_plans import budgets, plan_attack, unused_budgets
from .base import Evaluator, examples_key, small

if TYPE_CHECKING:
    from ...datasets import ImageSet, ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..suite import Suite


@evaluator(
    "reconstruction",
    title="Reconstruction",
    order=90,
    needs=("reconstruction", "reconstruction_error"),
    reads=("ood", "shifted", "attacks", *ATTACK_KEYS),
    metrics=("reconstruction_mse", "reconstruction_mse_input", "forwards", "backwards"),
    plots=("reconstruction-epsilon", "reconstructions"),
)
class Reconstruction(Evaluator):
    """Mean squared errors on the test split, on the OOD sets, and on test images that an attack has changed.

    There are no right or wrong answers here, so every image is attacked and none is ever fooled.
    """

    def left_out(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, Obstacle]]:
        """Attacks that need classes."""
        for attack in suite.attacks:
            if reason := _needs_classes(suite, attack):
                yield attack.label, f"{reason}, and {model.label} is attacked by its reconstruction error"

    def unused(self, suite: Suite) -> Iterator[str]:
        """Budgets and numbers of images of other attacks."""
        return unused_budgets(suite)

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> Sequence[Job]:
        """One job for all sets of images, then one for each attack."""
        fitting = [attack for attack in suite.attacks if not _needs_classes(suite, attack)]
        return [self._on_sets(suite, row, out_sets), *(self._attacked(suite, row, attack) for attack in fitting)]

    def _on_sets(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> SetsJob:
        wanted = examples_key(suite)
        cells = [self.cell(row, *wanted)]
        for part in out_sets:
            cell = self.cell(
                row,
                part.fingerprint,
                *wanted,
                facts={"ood_group": part.group},
                params={"ood": part.dataset.describe(), **part.held_out},
                ood_dataset=part.dataset.label,
                role=part.role,
            )
            cells.append(cell)
        keys = [cell.key for cell in cells]
        return SetsJob(
            evaluator=self.name,
            row=row,
            label=self.name,
            cells=tuple(cells),
            obstacles={key: part.obstacle for key, part in zip(keys[1:], out_sets, strict=True) if part.obstacle},
            sets=dict(zip(keys, (row.dataset, *(part.dataset for part in out_sets)), strict=True)),
        )

    def _attacked(self, suite: Suite, row: ModelRow, attack: Selected) -> ReconstructionAttackJob:
        plan = plan_attack(suite, row, attack)
        detach = bool(attack.options.get(DETACH_TARGET))
        params = {**plan.params, "attack": {**plan.params["attack"], DETACH_TARGET: detach}}
        plan = replace(plan, content=(*plan.content, detach), params=params)
        cells = plan.cells(self, suite, row)
        return ReconstructionAttackJob(
            evaluator=self.name,
            row=row,
            label=attack.label,
            cells=cells,
            obstacles=plan.obstacles(cells),
            attack=attack,
            images=plan.images,
        )


@dataclass(frozen=True, kw_only=True)
class SetsJob(Job):
    """Reads the errors of whole sets of images, by key."""

    sets: Mapping[str, ResolvedDataset]

    def needs(self, cells: Sequence[PlannedCell]) -> set[str]:
        """The errors."""
        return {"output:reconstruction_error"} if cells else set()

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Measure one set after the other."""
        for cell in cells:
            yield cell.key, _measure_set(self.sets[cell.key], self.row, context)


@dataclass(frozen=True, kw_only=True)
class ReconstructionAttackJob(Job):
    """Attacks the errors of some test images; it makes its own passes."""

    attack: Selected
    images: int

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Attack at all epsilons, check every result, measure."""
        chosen = self.attack
        attack = build_attack(chosen.entry, chosen.parameters)
        whole = context.images(self.row.dataset, "test")
        positions = drawn_positions(len(whole), self.images, self.row.dataset.name)
        images = whole.subset(positions)
        x, epsilons = images.images.to(context.device), [cell.identity.epsilon or 0.0 for cell in cells]
        stream = f"{self.row.seed}/{self.row.dataset.name}/{chosen.entry.name}"
        rng = PerImageRNG(stream, images.indices.to(context.device))
        labels = torch.zeros(len(x), dtype=torch.int64, device=context.device)  # of no meaning to this victim
        with ReconstructionVictim(
            context.module(),
            detach_target=bool(chosen.options.get(DETACH_TARGET)),
            device=context.device,
            batch_size=context.batch_size,
        ) as victim:
            clean = victim.reconstruct(x)
            made = attack_and_ask(attack, chosen.label, victim, x, labels, epsilons, rng, victim.reconstruct)
            for cell, found in zip(cells, made, strict=True):
                measured = _measure_attacked(found, x, clean, chosen.label, context.suite.examples)
                places = {"index": positions.numpy().astype("int32")}
                yield cell.key, replace(measured, arrays={**places, **measured.arrays})


def _needs_classes(suite: Suite, attack: Selected) -> Obstacle:
    """Why an attack cannot climb a reconstruction error."""
    loss = {**attack.entry.defaults(), **attack.parameters}.get("loss", "xent")
    if attack.entry.meta.get("loss") != "any" or loss != "xent":
        what = attack.entry.name if loss == "xent" else f"{attack.entry.name} with the {loss} loss"
        return f"{what} needs classes"
    if None in budgets(suite, attack):
        return "the epsilon `minimal` needs classes"
    return ""


def _measure_set(dataset: ResolvedDataset, row: ModelRow, context: RowContext) -> CellResult:
    """Errors on one set; of the row's own test split also for each class."""
    outputs = context.outputs(dataset, "test")
    errors = _checked(outputs.named.get("reconstruction_error"), row.model.label)
    measurements = [_mean("reconstruction_mse", errors)]
    arrays = {"error": errors.astype("float32"), "label": small(outputs.labels)}
    if dataset is row.dataset:
        arrays["classes"] = np.array(dataset.classes)
        for index, name in enumerate(dataset.classes):
            if (members := arrays["label"] == index).any():
                measurements.append(_mean("reconstruction_mse", errors[members], name))
    kept = _examples(context.images(dataset, "test"), errors, context) if context.suite.examples else {}
    return CellResult(measurements=tuple(measurements), arrays=arrays, examples=kept)


def _measure_attacked(found: Answered, x: Tensor, clean: Tensor, label: str, examples: int) -> CellResult:
    """Compare reconstructions of attacked images with the clean images and with the attacked ones."""
    result, made = found.result, found.answer
    errors = {
        "reconstruction_mse": _checked(_squared(made, x), label),
        "reconstruction_mse_input": _checked(_squared(made, result.images), label),
    }
    spent = {"forwards": result.forwards / len(x), "backwards": result.backwards / len(x)}
    arrays = {
        "error": errors["reconstruction_mse"].astype("float32"),
        "error_input": errors["reconstruction_mse_input"].astype("float32"),
        "norm": numbers(result.norms),
    }
    pictures = {"clean": x, "clean_reconstruction": clean, "adversarial": result.images, "reconstruction": made}
    return CellResult(
        measurements=(
            *(_mean(name, values) for name, values in errors.items()),
            *(Measurement(name, value, n=len(x)) for name, value in spent.items()),
        ),
        arrays=arrays,
        examples={name: numbers(value[:examples]) for name, value in pictures.items()} if examples else {},
    )


def _squared(made: Tensor, images: Tensor) -> Tensor:
    return (made - images).square().flatten(1).mean(dim=1)


def _checked(errors: Tensor | None, label: str) -> np.ndarray:
    """Errors (N,) in float64 that are there and finite."""
    if errors is None:
        raise GauntletError(f"Model {label!r} declares a reconstruction_error, but its forward_outputs give none.")
    bad = int((~errors.isfinite()).sum())
    if bad:
        raise GauntletError(f"{label}: the reconstruction error is not finite for {bad} of {len(errors)} images.")
    return np.asarray(errors.double().cpu())


def _mean(metric: str, errors: np.ndarray, class_name: str = "") -> Measurement:
    return Measurement(metric, float(errors.mean()), *mean_interval(errors), len(errors), class_name)


def _examples(images: ImageSet, errors: np.ndarray, context: RowContext) -> dict[str, np.ndarray]:
    """The first images of a set, their reconstructions and errors."""
    first = torch.arange(min(context.suite.examples, len(images)))
    x = images.subset(first).images.to(context.device)
    module: Any = context.module()
    with torch.no_grad():
        made = module.forward_outputs(x)["reconstruction"]
    return {"image": numbers(x), "reconstruction": numbers(made), "error": errors[: len(first)].astype("float32")}
