"""Worst-case rows: what survives every attack of a norm together, image by image; computed from stored arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...registry import GauntletError, nearest
from ...results.records import CellResult, PlannedCell
from ..jobs import Finished, Job, ModelRow
from .base import Evaluator, proportion, run_derived

if TYPE_CHECKING:
    from ..context import RowContext
    from ..suite import Suite

#: Raised where the same parts are joined to another result.
_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class WorstCaseJob(Job):
    """Joins the stored results of several attacks: ``parts`` holds, for each key, theirs."""

    parts: Mapping[str, Sequence[str]]

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Join what is stored."""
        return run_derived(self.parts, cells, context, lambda _, results: _joined(results), "attacks of this row")


def worst_case_jobs(evaluator: Evaluator, suite: Suite, row: ModelRow, jobs: Sequence[Job]) -> list[WorstCaseJob]:
    """One job for each norm, one cell for each positive epsilon at which several attacks are measured.

    By default all attacks of a norm are joined; ``worst_case`` in the suite names them (``{linf: [PGD, AA]}``, by
    label) or turns the rows off (``false``).

    Raises:
        GauntletError: ``worst_case`` names an attack that the suite does not run in that norm.
    """
    found = []
    for norm, parts in _by_norm(suite, jobs).items():
        budgets: dict[float, list[PlannedCell]] = {}
        without: dict[float, dict[str, str]] = {}
        for job in parts:
            for cell in job.cells:
                if cell.identity.epsilon and cell.key in job.obstacles:
                    without.setdefault(cell.identity.epsilon, {})[job.label] = job.obstacles[cell.key]
                elif cell.identity.epsilon:
                    budgets.setdefault(cell.identity.epsilon, []).append(cell)
        shared = {epsilon: cells for epsilon, cells in sorted(budgets.items()) if len(cells) > 1}
        label = f"worst-case {norm}"
        cells = tuple(
            _cell(evaluator, row, label, norm, epsilon, joined, without.get(epsilon, {}))
            for epsilon, joined in shared.items()
        )
        of = {cell.key: tuple(part.key for part in joined) for cell, joined in zip(cells, shared.values(), strict=True)}
        if cells:
            found.append(WorstCaseJob(evaluator=evaluator.name, row=row, label=label, cells=cells, parts=of))
    return found


def _by_norm(suite: Suite, jobs: Sequence[Job]) -> dict[str, list[Job]]:
    if suite.worst_case is False:
        return {}
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        norm = job.cells[0].facts.norm if job.cells else ""
        if norm not in ("", "none"):
            groups.setdefault(norm, []).append(job)
    if suite.worst_case is True:
        return groups
    return {norm: [_named(suite, label, norm, groups) for label in labels] for norm, labels in suite.worst_case.items()}


def _named(suite: Suite, label: str, norm: str, groups: dict[str, list[Job]]) -> Job:
    known = {job.label: job for job in groups.get(norm, [])}
    if label not in known:
        raise GauntletError(
            f"{suite.at('worst_case')}: no attack {label!r} of norm {norm} in this suite; {nearest(label, [*known])}"
        )
    return known[label]


def _cell(
    evaluator: Evaluator,
    row: ModelRow,
    label: str,
    norm: str,
    epsilon: float,
    parts: Sequence[PlannedCell],
    without: Mapping[str, str],
) -> PlannedCell:
    """The cell over the parts; its params name the attacks that it is without, and why."""
    labels = [part.identity.attack for part in parts]
    return evaluator.cell(
        row,
        "worst-case",
        [_VERSION, *(part.key for part in parts)],
        facts={"norm": norm},
        params={"attack": {"name": "worst-case", "of": labels}, **({"without": dict(without)} if without else {})},
        attack=label,
        epsilon=epsilon,
        role="worst-case",
    )


def _of_all(result: CellResult, name: str) -> np.ndarray:
    """An array of the attacked images, for all evaluated ones (total,); False where it says nothing."""
    found = np.zeros(len(result.arrays["index"]), dtype=bool)
    found[result.arrays["attacked"]] = result.arrays.get(name, False)
    return found


def _joined(results: Sequence[CellResult]) -> CellResult:
    """An image survives if it survives every part; on the images that all parts have seen."""
    # A part without arrays: the model gets none of its images right, so nothing survives where all parts have looked.
    lost = [result.measurements[:1] for result in results if "success" not in result.arrays]
    if lost:
        return CellResult(measurements=min(lost, key=lambda found: found[0].n or 0))
    index = results[0].arrays["index"]
    for result in results[1:]:
        index = np.intersect1d(index, result.arrays["index"])
    attacked = np.zeros(len(index), dtype=bool)
    fooled, broken = np.zeros_like(attacked), np.zeros_like(attacked)
    for result in results:
        place = np.searchsorted(result.arrays["index"], index)
        attacked = result.arrays["attacked"][place]  # the same in each: it is the model's own doing
        fooled |= _of_all(result, "success")[place]
        broken |= _of_all(result, "broken")[place]
    robust = int((attacked & ~fooled & ~broken).sum())
    return CellResult(
        measurements=(
            proportion("robust_accuracy", robust, len(index)),
            *((proportion("attack_success_rate", int(fooled.sum()), int(attacked.sum())),) if attacked.any() else ()),
        ),
        arrays={
            "index": index,
            "attacked": attacked,
            "success": fooled[attacked],
            **({"broken": broken[attacked]} if broken.any() else {}),
        },
    )
