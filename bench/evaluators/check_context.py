"""What the checks look at: the stored results of a row's attacks, and the model on a few images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...attacks import PerImageRNG, Victim, build_attack
from ...registry import Entry, digest
from ...results.records import CellResult
from .attack_measures import Targets, find_targets

if TYPE_CHECKING:
    from ..context import RowContext
    from ..jobs import ModelRow

#: Images that the checks run the model on.
IMAGES = 64


class NotApplicable(Exception):
    """A check has nothing to look at; the message says what is lacking."""


@dataclass(frozen=True)
class CheckResult:
    """Whether the model's robust figures may be trusted as far as a check goes (``None``: not applicable), and why."""

    passed: bool | None
    text: str
    figure: float | None = None


@dataclass(frozen=True)
class AttackRun:
    """One attack at one epsilon, with its stored result."""

    label: str
    entry: Entry
    norm: str
    epsilon: float | None
    result: CellResult

    @property
    def where(self) -> str:
        """For sentences: the attack and its budget."""
        return self.label if self.epsilon is None else f"{self.label} at {self.epsilon:g}"

    @property
    def gradient(self) -> bool:
        """Whether it is a white-box attack."""
        return self.entry.meta.get("access") == "gradient"

    @property
    def sound(self) -> bool:
        """Whether it is neither weak nor broken by its own account."""
        return not self.entry.meta.get("fault")

    @property
    def kind(self) -> str:
        """``fixed``, ``minimum-norm`` or ``other``."""
        return str(self.entry.meta.get("kind", "fixed"))

    def measured(self, metric: str) -> float:
        """A measurement of the cell; NaN where there is none."""
        return next((item.value for item in self.result.measurements if item.metric == metric), float("nan"))

    @cached_property
    def survivors(self) -> dict[int, bool]:
        """Whether each evaluated image (by its place in the test split) is still classified correctly."""
        arrays = self.result.arrays
        robust = arrays["attacked"].copy()
        robust[arrays["attacked"]] = ~(arrays["success"] | arrays.get("broken", False))
        return dict(zip(arrays["index"].tolist(), robust.tolist(), strict=True))


@dataclass(frozen=True)
class CheckContext:
    """Everything about one row that a check may ask for.

    Attributes:
        row: The model and its data.
        context: Builds the model.
        runs: The attacks that were measured, with arrays.
        failures: Attacks that were not, with their result.
        others: Rows of other models on the same data.
    """

    row: ModelRow
    context: RowContext
    runs: Sequence[AttackRun]
    failures: Sequence[AttackRun]
    others: Sequence[ModelRow] = ()
    _fooled: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def targets(self) -> Targets:
        """A few images that the model gets right."""
        found = find_targets(self.row, IMAGES, self.context)
        if not len(found.images):
            raise NotApplicable("The model gets none of the images right.")
        return found

    @property
    def images(self) -> tuple[Tensor, Tensor]:
        """Those images and their labels, on the device."""
        chosen = self.targets.images
        return chosen.images.to(self.context.device), chosen.labels.to(self.context.device)

    def victim(self) -> Victim:
        """The model, to be entered."""
        return Victim(self.context.module(), device=self.context.device, batch_size=self.context.batch_size)

    def attacked(self, name: str, epsilon: float, victim: Victim, **parameters: object) -> Tensor:
        """Which of the few images a registered attack fools (N,); the same attack runs once for all checks."""
        key = digest(name, epsilon, parameters)
        if key not in self._fooled:
            attack = build_attack(name, parameters)
            indices = self.targets.images.indices.to(self.context.device)
            draws = PerImageRNG(f"checks/{self.row.seed}/{self.row.dataset.name}", indices)
            self._fooled[key] = attack.run(victim, *self.images, [epsilon], rng=draws)[0].success
        return self._fooled[key]

    @property
    def epsilon(self) -> float:
        """A Linf budget that is neither tiny nor ample: the middle one of the suite, or 0.1."""
        budgets = sorted({run.epsilon for run in self.runs if run.norm == "linf" and run.epsilon})
        usable = [epsilon for epsilon in budgets if epsilon <= 0.5]
        return usable[(len(usable) - 1) // 2] if usable else 0.1

    def by_budget(self) -> Iterator[tuple[str, float, list[AttackRun]]]:
        """Norm, epsilon, and all runs with that ball, from small to large."""

        def ball(run: AttackRun) -> tuple[str, float]:
            return run.norm, run.epsilon or 0.0

        chosen = sorted((run for run in self.runs if run.epsilon), key=ball)
        for (norm, epsilon), group in itertools.groupby(chosen, key=ball):
            yield norm, epsilon, list(group)


def accuracies(*groups: Sequence[AttackRun]) -> list[float]:
    """Robust accuracy against each group (an image counts if it survives all of them), on the images common to all."""
    everyone = [run.survivors for group in groups for run in group]
    common = sorted(set(everyone[0]).intersection(*everyone[1:]))
    return [float(np.mean([all(run.survivors[i] for run in group) for i in common])) for group in groups]


Check = Callable[[CheckContext], CheckResult]
