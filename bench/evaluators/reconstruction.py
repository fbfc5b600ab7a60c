"""Reconstruction error of models that reconstruct: on each set of images, and under attacks on that very error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...attacks import PerImageRNG, build_attack
from ...attacks.function import norm_of
from ...attacks.reconstruction import ReconstructionVictim
from ...registry import GauntletError, Selected
from ...results.intervals import mean_interval
from ...results.records import CellResult, Measurement, PlannedCell
from .attack import DETACH_TARGET, budgets, impossible
from .attack_measures import Answered, attack_and_ask, numbers
from .attack_plans import plan_attack
from .base import Evaluator, Finished, examples_key, small
from .ood import held_out_fact, role_of

if TYPE_CHECKING:
    from ...datasets import ImageSet, ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..plan import Job, OODSet, Row
    from ..suite import Suite


class Reconstruction(Evaluator):
    """Mean squared errors on the test split, on the OOD sets, and on test images that an attack has changed.

    There are no right or wrong answers here, so every image is attacked and none is ever fooled.
    """

    name = "reconstruction"
    requires = ("reconstruction", "reconstruction_error")

    def misfits(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, str]]:
        """The evaluator itself, or attacks that need classes."""
        whole = list(super().misfits(suite, model, dataset))
        yield from whole or (
            (attack.label, f"{reason}, and {model.label} is attacked by its reconstruction error")
            for attack in suite.attacks
            if (reason := _needs_classes(suite, attack))
        )

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job for all sets of images, then one for each attack."""
        fitting = [attack for attack in suite.attacks if not _needs_classes(suite, attack)]
        return [self._on_sets(suite, row, out_sets), *(self._attacked(suite, row, attack) for attack in fitting)]

    def _on_sets(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> Job:
        from ..plan import Job

        wanted = examples_key(suite)
        clean = self.cell(row, *wanted, facts={}, params={})
        sets: dict[str, ResolvedDataset] = {clean.key: row.dataset}
        cells, blocked = [clean], {}
        for part in out_sets:
            content = f"blocked {part.dataset.label}" if part.blocked else part.dataset.fingerprint("test")
            cell = self.cell(
                row,
                content,
                *wanted,
                facts={"ood_group": part.group},
                params={"ood": part.dataset.describe(), **held_out_fact(part)},
                ood_dataset=part.dataset.label,
                role=role_of(part),
            )
            cells.append(cell)
            sets[cell.key] = part.dataset
            if part.blocked:
                blocked[cell.key] = part.blocked
        return Job(self.name, row, self.name, tuple(cells), {"sets": sets}, blocked)

    def _attacked(self, suite: Suite, row: Row, attack: Selected) -> Job:
        from ..plan import Job

        plan = plan_attack(suite, row, attack)
        detach = bool(attack.options.get(DETACH_TARGET))
        params = {**plan.params, "attack": {**plan.params["attack"], DETACH_TARGET: detach}}
        cells = tuple(
            self.cell(
                row,
                [*plan.content, detach],
                epsilon,
                row.seed,
                plan.images,
                *examples_key(suite),
                facts={"norm": plan.norm},
                params=params,
                attack=attack.label,
                epsilon=epsilon,
            )
            for epsilon in budgets(suite, attack, plan.norm)
        )
        blocked = {cell.key: reason for cell in cells if (reason := impossible(plan, cell.identity.epsilon))}
        return Job(self.name, row, attack.label, cells, {"attack": attack, "images": plan.images}, blocked)

    def needs(self, job: Job, missing: frozenset[str]) -> set[str]:
        """The errors, where they are measured on whole sets; attacks make their own passes."""
        return {"output:reconstruction_error"} if missing and "sets" in job.payload else set()

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Read the errors of the missing sets, or attack at all missing epsilons."""
        cells = [cell for cell in job.cells if cell.key in missing]
        if "sets" in job.payload:
            yield from ((cell.key, _measure_set(job.payload["sets"][cell.key], job.row, bench)) for cell in cells)
        else:
            yield from _under_attack(job, cells, bench)


def _needs_classes(suite: Suite, attack: Selected) -> str:
    """Why an attack cannot climb a reconstruction error, or nothing."""
    loss = {**attack.entry.defaults(), **attack.parameters}.get("loss", "xent")
    if attack.entry.meta.get("loss") != "any" or loss != "xent":
        what = attack.entry.name if loss == "xent" else f"{attack.entry.name} with the {loss} loss"
        return f"{what} needs classes"
    if None in budgets(suite, attack, norm_of(attack.entry, attack.parameters)):
        return "the epsilon `minimal` needs classes"
    return ""


def _measure_set(dataset: ResolvedDataset, row: Row, bench: RowContext) -> CellResult:
    """Errors on one set; of the row's own test split also for each class."""
    outputs = bench.outputs(dataset, "test")
    errors = _checked(outputs.named.get("reconstruction_error"), row.model.label)
    measurements = [_mean("reconstruction_mse", errors)]
    arrays = {"error": errors.astype("float32"), "label": small(outputs.labels)}
    if dataset is row.dataset:
        arrays["classes"] = np.array(dataset.classes)
        for index, name in enumerate(dataset.classes):
            if (members := arrays["label"] == index).any():
                measurements.append(_mean("reconstruction_mse", errors[members], name))
    kept = _examples(bench.images(dataset, "test"), errors, bench) if bench.suite.examples else {}
    return CellResult(measurements=tuple(measurements), arrays=arrays, examples=kept)


def _under_attack(job: Job, cells: Sequence[PlannedCell], bench: RowContext) -> Iterator[Finished]:
    from ..device_images import drawn_positions

    chosen: Selected = job.payload["attack"]
    attack = build_attack(chosen.entry, chosen.parameters)
    whole = bench.images(job.row.dataset, "test")
    positions = drawn_positions(len(whole), job.payload["images"], job.row.dataset.name)
    images = whole.subset(positions)
    x, epsilons = images.images.to(bench.device), [cell.identity.epsilon or 0.0 for cell in cells]
    rng = PerImageRNG(f"{job.row.seed}/{job.row.dataset.name}/{chosen.entry.name}", images.indices.to(bench.device))
    labels = torch.zeros(len(x), dtype=torch.int64, device=bench.device)  # of no meaning to this victim
    with ReconstructionVictim(
        bench.module(),
        detach_target=bool(chosen.options.get(DETACH_TARGET)),
        device=bench.device,
        batch_size=bench.batch_size,
    ) as victim:
        clean = victim.reconstruct(x)
        made = attack_and_ask(attack, chosen.label, victim, x, labels, epsilons, rng, victim.reconstruct)
        for cell, found in zip(cells, made, strict=True):
            measured = _measure_attacked(found, x, clean, chosen.label, bench.suite.examples)
            places = {"index": positions.numpy().astype("int32")}
            yield cell.key, replace(measured, arrays={**places, **measured.arrays})


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


def _examples(images: ImageSet, errors: np.ndarray, bench: RowContext) -> dict[str, np.ndarray]:
    """The first images of a set, their reconstructions and errors."""
    first = torch.arange(min(bench.suite.examples, len(images)))
    x = images.subset(first).images.to(bench.device)
    module: Any = bench.module()
    with torch.no_grad():
        made = module.forward_outputs(x)["reconstruction"]
    return {"image": numbers(x), "reconstruction": numbers(made), "error": errors[: len(first)].astype("float32")}
