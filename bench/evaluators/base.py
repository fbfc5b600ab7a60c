"""What every evaluator is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry import EVALUATORS, Component, Entry, Obstacle, digest, source_fingerprint
from ...results.declarations import EvaluatorDeclaration
from ...results.intervals import proportion_interval
from ...results.metrics import metric_named, plugged_in
from ...results.presets import TABLES
from ...results.records import CellResult, Facts, Identity, Measurement, PlannedCell
from ..jobs import Finished, Job, ModelRow, OODSet

if TYPE_CHECKING:
    from torch import Tensor

    from ...datasets import ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..suite import Suite


class Evaluator(Component):
    """Plans the cells of one kind for a row, as jobs that compute them.

    Its decorator says the rest (:class:`gauntlet.registry.facts.EvaluatorFacts`): what it needs of a model and of a
    suite, and what it is to tables, plots and the page.

    Attributes:
        entry: The registry's entry.
        version: Raised when the meaning of a number changes; part of every key.
        statistics: What its metrics are computed from; the metrics of plug-ins that read these join its own.
    """

    entry: Entry
    version: int = 1
    statistics: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The value of the column ``evaluator``."""
        return self.entry.name

    @property
    def declaration(self) -> EvaluatorDeclaration:
        """What it is to tables, plots and the page, with the metrics that plug-ins add to its own."""
        facts = self.entry.meta
        added = (entry.name for entry in plugged_in(self.name, self.statistics))
        return EvaluatorDeclaration(
            self.name,
            facts.get("title", self.name),
            facts["order"],
            tuple(map(metric_named, dict.fromkeys((*facts.get("metrics", ()), *added)))),
            (*(table for table in TABLES if table.evaluator == self.name), *facts.get("tables", ())),
            facts.get("plots", ()),
        )

    def obstacle(self, model: ModelSpec) -> Obstacle:
        """Why it can never look at a model."""
        lacking = next((name for name in self.entry.needs if name not in model.outputs), None)
        return f"it needs {lacking}, and {model.label} yields {', '.join(model.outputs)}" if lacking else ""

    def left_out(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, Obstacle]]:
        """Parts of its axes, by label, that can never fit a model on a dataset, and why; ``plan`` leaves them out."""
        yield from ()

    def unused(self, suite: Suite) -> Iterator[str]:
        """What the suite says about its axes and has no effect, one sentence each."""
        yield from ()

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> Sequence[Job]:
        """The jobs of this kind for one row."""
        raise NotImplementedError

    def cell(
        self,
        row: ModelRow,
        *content: Any,
        facts: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        **where: Any,
    ) -> PlannedCell:
        """A planned cell of ``row``: ``content`` is what its key covers, ``where`` its further coordinates."""
        identity = Identity(
            evaluator=self.name, model=row.model.label, dataset=row.dataset.label, seed=row.seed, **where
        )
        fingerprint = f"blocked {identity}" if row.obstacle else row.dataset.fingerprint("test")
        described = {"model": row.model.describe(len(row.dataset.classes)), "dataset": row.dataset.describe()}
        return PlannedCell(
            identity=identity,
            key=digest("cell/1", self.name, self.version, row.key, fingerprint, *content, *self._plugged_in()),
            facts=Facts(architecture=row.model.entry.name, recipe=row.model.recipe_label, **(facts or {})),
            params={**described, **_with_exposure(params or {}, row)},
        )

    def _plugged_in(self) -> list[list[str]]:
        return [[entry.name, source_fingerprint(entry)] for entry in plugged_in(self.name, self.statistics)]


def _with_exposure(params: Mapping[str, Any], row: ModelRow) -> dict[str, Any]:
    """The params, whose OOD sets say what other part of them trained the model, or tuned its detectors."""
    given = params.get("ood")
    if not given or row.obstacle:
        return dict(params)
    others = {dataset.name: f"{row.model.label} was trained on its {split} part" for dataset, split in row.exposed_to}
    if row.outliers is not None:
        others.setdefault(row.outliers.name, "detectors were tuned on another part of it")
    marked = [
        {**one, "exposed": others[one["name"]]} if one.get("name") in others else one
        for one in (given if isinstance(given, list) else [given])
    ]
    return {**params, "ood": marked if isinstance(given, list) else marked[0]}


def build_evaluator(name: str) -> Evaluator:
    """The evaluator that is registered under a name.

    Raises:
        GauntletError: There is none.
    """
    evaluator: Evaluator = EVALUATORS.create(name)
    return evaluator


def with_entry(entry: Entry, parameters: Mapping[str, Any]) -> Evaluator:
    """The evaluator of an entry, which knows what its decorator says."""
    evaluator: Evaluator = entry.build(parameters)
    evaluator.entry = entry
    return evaluator


def run_derived(
    parts: Mapping[str, Sequence[str]],
    cells: Sequence[PlannedCell],
    context: RowContext,
    join: Callable[[PlannedCell, Sequence[CellResult]], CellResult],
    what: str,
) -> Iterator[Finished]:
    """Cells that are made of the stored results of others (``parts``, by key).

    One of which a part is not there is skipped, and tried again by the next run; ``what`` names the parts.
    """
    for cell in cells:
        results = [context.stored(part) for part in parts[cell.key]]
        whole = [result for result in results if result is not None and result.status == "ok"]
        if absent := len(results) - len(whole):
            reason = f"{absent} of the {len(results)} {what} have no result."
            yield cell.key, CellResult(status="skipped", reason=reason)
        else:
            yield cell.key, join(cell, whole)


def mean_of(metric: str, found: Iterable[Sequence[Measurement]]) -> Measurement:
    """Unweighted mean of one metric; its interval is the mean of both ends, which is never too narrow."""
    picked = [next(item for item in part if item.metric == metric) for part in found]
    table = [[item.value, item.ci_low, item.ci_high, item.n] for item in picked]
    value, low, high, n = np.array(table, dtype=np.float64).mean(axis=0).tolist()
    return Measurement(metric, value, low, high, round(n))


def examples_key(suite: Suite) -> tuple[str, ...]:
    """What the key of a cell that keeps examples covers beside its content: a cell without them is no substitute."""
    return (f"examples {suite.examples}",) if suite.examples else ()


def small(values: Tensor) -> np.ndarray:
    """Labels or predictions as the store keeps them."""
    return values.cpu().numpy().astype("int16")


def proportion(metric: str, right: float, n: int, class_name: str = "") -> Measurement:
    """A share with its exact (Clopper-Pearson) interval."""
    low, high = proportion_interval(right, n)
    return Measurement(metric, right / n, low, high, n, class_name)
