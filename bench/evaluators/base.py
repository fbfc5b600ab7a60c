"""What every evaluator is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...registry import Selected, digest
from ...results.intervals import proportion_interval
from ...results.records import CellResult, Facts, Identity, Measurement, PlannedCell

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ...datasets import ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..plan import Job, OODSet, Row
    from ..suite import Suite

#: A finished cell: its key and its result.
Finished = tuple[str, CellResult]


class Evaluator:
    """Plans the cells of one kind for a row, and computes those that are missing.

    Attributes:
        name: The value of the column ``evaluator``.
        version: Raised when the meaning of a number changes; part of every key.
        requires: Outputs that a model must yield.
    """

    name: str
    version: int = 1
    requires: tuple[str, ...] = ("logits",)

    def misfits(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, str]]:
        """What can never fit ``model`` on ``dataset``, each with the reason: the whole evaluator, or parts of its axes.

        Parts are named here and left out of the plan by the evaluator itself.
        """
        if lacking := [name for name in self.requires if name not in model.outputs]:
            yield self.name, f"it needs {lacking[0]}, and {model.label} yields {', '.join(model.outputs)}"

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """The jobs of this kind for one row."""
        raise NotImplementedError

    def needs(self, job: Job, missing: frozenset[str]) -> set[str]:
        """Outputs beside logits that the missing cells of ``job`` read."""
        return set()

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Compute the cells of ``job`` whose keys are in ``missing``; a cell is yielded as soon as it is finished."""
        raise NotImplementedError

    def cell(self, row: Row, *content: Any, facts: dict[str, str], params: dict[str, Any], **where: Any) -> PlannedCell:
        """A planned cell of ``row``: ``content`` is what its key covers, ``where`` its further coordinates."""
        identity = Identity(
            evaluator=self.name, model=row.model.label, dataset=row.dataset.label, seed=row.seed, **where
        )
        fingerprint = f"blocked {identity}" if row.blocked else row.dataset.fingerprint("test")
        return PlannedCell(
            identity=identity,
            key=digest("cell/1", self.name, self.version, row.key, fingerprint, *content),
            facts=Facts(architecture=row.model.entry.name, recipe=row.model.recipe_label, **facts),
            params={"model": row.model.describe(len(row.dataset.classes)), "dataset": row.dataset.describe(), **params},
        )


def detectors_for(suite: Suite, model: ModelSpec) -> list[Selected]:
    """The suite's detectors whose needs a model can meet, as far as its declared outputs tell."""
    return [chosen for chosen in suite.detectors if not unmet_needs(chosen, model)]


def unmet_needs(chosen: Selected, model: ModelSpec) -> str:
    """The need of a detector that a model will never meet, by what it declares; empty if there is none.

    A named output is one that the model declares; what else one that declares nothing yields shows when it runs.
    """
    declared = model.entry.meta.get("outputs")
    for need in chosen.entry.needs:
        named = need.removeprefix("output:")
        if need.startswith("output:") and named not in (declared or ()):
            return named
        if declared is None:
            continue
        if need in ("logits", "head", "passes", "deflated-logits") and "logits" not in declared:
            return "logits"
        if need == "features" and not {"logits", "features"} & set(declared):
            return "features"
    return ""


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
