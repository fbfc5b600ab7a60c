"""Accuracy under attack: one job an attack, one cell an epsilon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...attacks import Attack, AttackResult, Draws, Victim, check_ball
from ...registry import GauntletError, Selected, source_fingerprint
from ...results.records import CellResult, Measurement
from ...results.statistics import median_interval
from .accuracy import checked_logits
from .base import Evaluator, Finished, proportion

if TYPE_CHECKING:
    from ...datasets import ImageSet
    from ..plan import Job, OODSet, Row
    from ..suite import Suite
    from ..workbench import Workbench


class AttackEvaluator(Evaluator):
    """Attacks the images that the model gets right; clean errors count as errors."""

    name = "attack"

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job an attack."""
        return [self._job(suite, row, attack) for attack in suite.attacks]

    def _job(self, suite: Suite, row: Row, attack: Selected) -> Job:
        from ..plan import Job

        epsilons = attack_epsilons(suite, attack)
        parameters = {**attack.entry.defaults(), **attack.parameters}
        component = [attack.entry.name, parameters, source_fingerprint(attack.entry)]
        norm = str(parameters.get("norm", attack.entry.meta.get("norm", "")))
        cells = tuple(
            self.cell(
                row,
                component,
                epsilon,
                row.seed,
                suite.attack_images,
                facts={"norm": norm},
                params={"attack": {"name": attack.entry.name, **parameters}, "images": suite.attack_images},
                attack=attack.label,
                epsilon=epsilon,
            )
            for epsilon in epsilons
        )
        payload = {"attack": attack, "images": suite.attack_images}
        return Job(self.name, row, attack.label, cells, payload)

    def run(self, job: Job, missing: frozenset[str], bench: Workbench) -> Iterator[Finished]:
        """Run the attack at all missing epsilons, check every result, measure."""
        chosen: Selected = job.payload["attack"]
        cells = [cell for cell in job.cells if cell.key in missing]
        epsilons = [cell.identity.epsilon or 0.0 for cell in cells]
        images, right = targets(job, bench)
        attack: Attack = chosen.entry.factory(**chosen.parameters)
        stream = f"{job.row.seed}/{job.row.dataset.name}/{chosen.entry.name}"
        with Victim(bench.module(), device=bench.device, batch_size=bench.batch_size) as victim:
            if len(images):
                x, y = images.images.to(bench.device), images.labels.to(bench.device)
                results = attack.run(victim, x, y, epsilons, rng=Draws(stream, images.indices))
                if len(results) != len(epsilons):
                    raise GauntletError(
                        f"Attack {chosen.label!r} gave {len(results)} results for {len(epsilons)} epsilons."
                    )
                for cell, result in zip(cells, results, strict=True):
                    yield cell.key, _measure(attack, chosen.label, result, x, y, right, victim)
            else:
                for cell in cells:
                    yield cell.key, CellResult(measurements=(proportion("robust_accuracy", 0, len(right)),))


def attack_epsilons(suite: Suite, attack: Selected) -> tuple[float, ...]:
    """The attack's own budgets, or those of the suite."""
    from ..suite import parse_epsilons

    given = attack.options.get("epsilons")
    return suite.epsilons if given is None else parse_epsilons(_listed(given), f"attack {attack.label!r}")


def targets(job: Job, bench: Workbench) -> tuple[ImageSet, Tensor]:
    """The correctly classified images among a fixed random subset, and which of the subset they are (a mask)."""
    from ..workbench import fixed_subset

    images = bench.images(job.row.dataset, "test")
    positions = fixed_subset(len(images), job.payload["images"], job.row.dataset.name)
    outputs = bench.outputs(job.row.dataset, "test")
    logits = checked_logits(outputs.logits, job.row.model.label)
    right = (logits.argmax(1) == outputs.labels)[positions.to(bench.device)].cpu()
    return images.subset(positions[right]), right


def _measure(
    attack: Attack, label: str, result: AttackResult, x: Tensor, y: Tensor, right: Tensor, victim: Victim
) -> CellResult:
    """Trust nothing that an attack says: check ball and bounds, classify again, then count."""
    try:
        check_ball(result.images, x, attack.norm, result.epsilon)
    except GauntletError as error:
        raise GauntletError(f"Attack {label!r} at epsilon {result.epsilon:g}: {error}") from None
    predictions = torch.cat([victim.logits(batch).argmax(1) for batch in result.images.split(victim.batch_size)])
    fooled = predictions != y
    total, attacked = len(right), len(y)
    measurements = [
        proportion("robust_accuracy", attacked - int(fooled.sum()), total),
        proportion("attack_success_rate", int(fooled.sum()), attacked),
        Measurement("forwards", result.forwards / attacked, n=attacked),
        Measurement("backwards", result.backwards / attacked, n=attacked),
        *_median_norm(result.smallest if result.smallest is not None else result.norms[fooled]),
    ]
    arrays = {
        "attacked": right.numpy(),
        "prediction": predictions.cpu().numpy().astype("int16"),
        "success": fooled.cpu().numpy(),
        "norm": result.norms.detach().float().cpu().numpy(),
    }
    return CellResult(measurements=tuple(measurements), arrays=arrays)


def _median_norm(norms: Tensor) -> list[Measurement]:
    """Median length of what fooled the model; none where the median is infinite (most were never fooled)."""
    if not len(norms) or not bool(norms.float().median().isfinite()):
        return []
    values = norms.double().cpu().numpy()
    low, high = median_interval(values)
    import numpy as np

    return [Measurement("median_norm", float(np.median(values)), low, high, len(values))]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
