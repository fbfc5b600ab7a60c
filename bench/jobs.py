"""What a plan is made of: the model that a row is about, OOD sets, and the jobs that yield cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..datasets import ResolvedDataset
from ..registry import Obstacle, digest
from ..results.records import CellResult, PlannedCell
from .model_keys import model_key
from .model_specs import ModelSpec
from .recipes import outlier_sets, parts, recipe_obstacle

if TYPE_CHECKING:
    from .context import RowContext

#: A finished cell: its key and its result.
Finished = tuple[str, CellResult]


@dataclass(frozen=True)
class ModelRow:
    """A model trained (or loaded) for one dataset and one seed: what a leaderboard row is about.

    Attributes:
        key: Digest of everything that decides the model's weights.
        obstacle: Why nothing can be computed here (a file is absent); its cells are planned and skipped.
        outliers: The OOD set that the suite names to tune detectors on.
    """

    model: ModelSpec
    dataset: ResolvedDataset
    seed: int
    key: str
    obstacle: Obstacle = ""
    outliers: ResolvedDataset | None = None

    @classmethod
    def of(
        cls, model: ModelSpec, dataset: ResolvedDataset, seed: int, outliers: ResolvedDataset | None = None
    ) -> ModelRow:
        """The row of a model on a dataset, with an obstacle where a file is absent."""
        needed = ("train", "val", "test") if model.trains else ("val", "test") if model.calibrates else ("test",)
        absent = map(dataset.obstacle, needed)
        trainings = (recipe_obstacle(recipe, dataset) for recipe in model.recipes)
        if obstacle := next(filter(None, (*absent, *trainings)), ""):
            return cls(model, dataset, seed, digest("blocked", model.label, dataset.label, seed), obstacle, outliers)
        return cls(model, dataset, seed, model_key(model, dataset, seed), "", outliers)

    @cached_property
    def exposed_to(self) -> list[tuple[ResolvedDataset, str]]:
        """The sets, each with its split, whose images train the model as outliers."""
        recipes = [part for recipe in self.model.recipes for part in parts(recipe)]
        return [one for recipe in recipes for one in outlier_sets(recipe, self.dataset)]

    @property
    def name(self) -> str:
        """For progress and messages."""
        return f"{self.model.label} on {self.dataset.label}"


@dataclass(frozen=True)
class OODSet:
    """An OOD set of a suite in the shape of the in-distribution set, or a ``shifted`` set that counts as ID.

    ``origin`` is the label of the dataset whose class this is, where that holds out one class in turn.
    """

    group: str
    dataset: ResolvedDataset
    shifted: bool = False
    origin: str = ""

    @property
    def role(self) -> str:
        """The role of a cell about it."""
        return "held-out" if self.origin else "measured"

    @property
    def held_out(self) -> dict[str, Any]:
        """What ``params`` says of a class that is held out in turn: the dataset's label, and the class."""
        return {"held_out": {"of": self.origin, "class": self.dataset.label}} if self.origin else {}

    @cached_property
    def obstacle(self) -> Obstacle:
        """Why its images are not here."""
        return self.dataset.obstacle("test")

    @property
    def fingerprint(self) -> str:
        """What keys cover of it."""
        return f"blocked {self.dataset.label}" if self.obstacle else self.dataset.fingerprint("test")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A computation that yields cells; each evaluator derives what it needs to know. Jobs can be pickled.

    Attributes:
        evaluator: Name of the evaluator that planned it.
        row: The model and its data.
        label: For progress and messages.
        cells: What it yields.
        obstacles: Why cells cannot be computed here, by key.
        others: Rows whose models it takes beside that of ``row``.
    """

    evaluator: str
    row: ModelRow
    label: str
    cells: tuple[PlannedCell, ...]
    obstacles: Mapping[str, Obstacle] = field(default_factory=dict)
    others: tuple[ModelRow, ...] = ()

    @property
    def shared(self) -> str:
        """Names what its context keeps for other jobs of the row, which then run right after it; or nothing."""
        return ""

    def obstacle(self, cell: PlannedCell) -> Obstacle:
        """Why one of its cells cannot be computed here."""
        return self.row.obstacle or self.obstacles.get(cell.key, "")

    def needs(self, cells: Sequence[PlannedCell]) -> set[str]:
        """Outputs beside logits that these of its cells read."""
        return set()

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Compute these of its cells; each is yielded as soon as it is finished."""
        raise NotImplementedError
