"""The cross product: from a suite to jobs with cells, keys, and the pairs that can never fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..datasets import DataSource, ResolvedDataset, resolve
from ..registry import (
    DATASETS,
    MODELS,
    GauntletError,
    check_unique,
    fingerprints_remembered,
    is_pattern,
    parse_spec,
)
from ..registry import left_out as left_out_of
from ..registry.nameable import FUNCTION, naming
from ..results.records import PlannedCell
from .evaluators.base import Evaluator, build_evaluator
from .jobs import Job, ModelRow, OODSet
from .model_specs import ModelSpec
from .recipes import warnings
from .suite import LEAVE_OUT, Suite
from .tuning import SYNTHETIC

#: Where something stands in a suite: keys and positions.
Path = tuple[Any, ...]

#: Group of the class that is held out of the in-distribution set.
HELD_OUT = "held-out"


@dataclass(frozen=True)
class LeftOut:
    """A combination that can never fit, with the reason."""

    what: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All jobs of a suite, row by row, what was left out, and what the user should know before it runs."""

    suite: Suite
    jobs: tuple[Job, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> list[PlannedCell]:
        """Every planned cell."""
        return [cell for job in self.jobs for cell in job.cells]


def groups(plan: Plan) -> list[list[Job]]:
    """The jobs of each row: what one worker computes, since cells are derived from others of their row alone."""
    return [list(jobs) for _, jobs in itertools.groupby(plan.jobs, key=lambda job: id(job.row))]


def make_plan(suite: Suite, source: DataSource) -> Plan:
    """Expand a suite.

    Raises:
        GauntletError: Something the suite names is wrong, or nothing fits together.
    """
    with fingerprints_remembered(), naming(suite.modules):
        return _expand_suite(suite, source)


def _expand_suite(suite: Suite, source: DataSource) -> Plan:
    evaluators = [build_evaluator(name) for name in suite.evaluators]
    datasets, models = _datasets(suite, source), suite.model_specs
    without = {**suite.left_out, **left_out_of(MODELS, suite.models)}
    left_out = [LeftOut(name, reason) for name, reason in without.items()]
    jobs: list[Job] = []
    for dataset, held_out in datasets:
        wanted = {"ood", "shifted"} & suite.keys_read
        out_sets = _all_sets(suite, dataset, held_out, source, left_out) if wanted else []
        outliers = _outliers(suite, dataset, out_sets, source)
        for model in models:
            fitting = _fitting(evaluators, suite, model, dataset, left_out)
            for seed in suite.seeds if fitting else ():
                row = ModelRow.of(model, dataset, seed, outliers)
                jobs += [job for evaluator in fitting for job in _planned(evaluator, suite, row, out_sets)]
    if not jobs:
        reasons = "; ".join(f"{item.what}: {item.reason}" for item in left_out[:3])
        raise GauntletError(f"{suite.where}: nothing in this suite fits together ({reasons}).")
    notes = dict.fromkeys(_notes(suite, evaluators, jobs))
    return Plan(suite, tuple(jobs), tuple(dict.fromkeys(left_out)), tuple(notes))


def _planned(evaluator: Evaluator, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> Sequence[Job]:
    """The jobs of an evaluator, which may be the user's own."""
    try:
        return evaluator.plan(suite, row, out_sets)
    except (Exception, SystemExit) as error:
        if isinstance(error, GauntletError) or evaluator.entry.is_ours:
            raise
        what = f"{type(error).__name__}: {error}"
        raise GauntletError(f"Evaluator {evaluator.name!r} ({evaluator.entry.where}) cannot plan: {what}.") from error


def _fitting(
    evaluators: Sequence[Evaluator], suite: Suite, model: ModelSpec, dataset: ResolvedDataset, left_out: list[LeftOut]
) -> list[Evaluator]:
    """The evaluators that can look at a model on a dataset; what can never fit is added to ``left_out``."""
    where = f"{model.label} on {dataset.label}"
    if reason := model.obstacle(dataset):
        left_out.append(LeftOut(where, reason))
        return []
    found = []
    for evaluator in evaluators:
        if reason := evaluator.obstacle(model):
            left_out.append(LeftOut(f"{evaluator.name} of {where}", reason))
            continue
        left_out += [LeftOut(f"{what} of {where}", why) for what, why in evaluator.left_out(suite, model, dataset)]
        found.append(evaluator)
    return found


def _notes(suite: Suite, evaluators: Sequence[Evaluator], jobs: Sequence[Job]) -> Iterator[str]:
    """What is known against the recipes, and what the suite says that nothing uses, each with its place."""
    used = [*suite.model_specs, *(other.model for job in jobs for other in job.others)]
    yield from (note for model in used for recipe in model.recipes for note in warnings(recipe))
    yield from suite.notes
    yield from _untrained(suite)
    yield from suite.unread
    yield from (note for evaluator in evaluators for note in evaluator.unused(suite))


def _untrained(suite: Suite) -> Iterator[str]:
    """The functions that a suite names as models, which its own recipe does not train."""
    for model in suite.model_specs if suite.recipe is not None else ():
        if FUNCTION.fullmatch(model.entry.name) and not model.trains and model.weights is None:
            name = model.entry.name
            yield f"model {model.label!r} arrives trained; write {{name: {name!r}, recipe: ...}} to train it."


def _datasets(suite: Suite, source: DataSource) -> list[tuple[ResolvedDataset, OODSet | None]]:
    """Every in-distribution set, with the class that is held out as OOD set where there is one."""
    found: list[tuple[ResolvedDataset, OODSet | None]] = []
    for path, spec in _expand(suite, ("datasets",), suite.datasets):
        with suite.locating(*path):
            found += _in_turn(spec, source)
            check_unique((dataset.label for dataset, _ in found), "dataset")
    return found


def _in_turn(spec: Any, source: DataSource) -> list[tuple[ResolvedDataset, OODSet | None]]:
    """``{digits: {leave_out: each}}``, or a list of classes: the set without one class after the other."""
    if isinstance(spec, str) or LEAVE_OUT not in parse_spec(spec, "dataset")[1]:
        return [(resolve(spec, source, labelled=True), None)]
    name, options = parse_spec(spec, "dataset")
    wanted = options.pop(LEAVE_OUT)
    whole = resolve({"name": name, **options}, source, labelled=True)
    classes = [str(part) for part in (whole.classes if wanted == "each" else wanted)]
    if whole.broken:
        return [(whole, None)]
    found: list[tuple[ResolvedDataset, OODSet | None]] = []
    for one in classes:
        inside = {**options, "name": name, "hold_out": [one], "label": f"{whole.label} without {one}"}
        outside = {**options, "name": name, "only": [one], "label": one}
        held_out = OODSet(HELD_OUT, resolve(outside, source, shape=whole.shape), origin=whole.label)
        found.append((resolve(inside, source, labelled=True), held_out))
    return found


def _all_sets(
    suite: Suite, inside: ResolvedDataset, held_out: OODSet | None, source: DataSource, left_out: list[LeftOut]
) -> list[OODSet]:
    """The class that is held out, the suite's OOD sets, and the sets that are shifted but in distribution."""
    sets = [held_out] if held_out else []
    for path, item in _ood_sets(suite, inside, source, left_out):
        sets.append(item)
        with suite.locating(*path):
            check_unique((known.dataset.label for known in sets), "OOD set")
    for position, spec in enumerate(suite.shifted):
        with suite.locating("shifted", position):
            shifted = resolve(spec, source, shape=inside.shape)
        sets.append(OODSet("", shifted, shifted=True))
    return sets


def _outliers(
    suite: Suite, inside: ResolvedDataset, out_sets: list[OODSet], source: DataSource
) -> ResolvedDataset | None:
    """The OOD set that the suite tunes on; None for the synthetic outliers of each dataset.

    Raises:
        GauntletError: It is also a test OOD set, and the suite does not say ``oracle: true``.
    """
    if suite.tune is None:
        return None
    named = suite.tune.outliers
    outliers = None
    if named != SYNTHETIC:
        with suite.locating("tune"):
            outliers = resolve(named, source, shape=inside.shape)
    for part in out_sets:
        same = _is_set(part.dataset, outliers) and not (outliers is not None and _disjoint(outliers, part.dataset))
        if same and not part.shifted and not suite.tune.oracle:
            raise GauntletError(
                f"{suite.at('tune')}: detectors would be tuned on {part.dataset.label!r}, which is also a test OOD "
                "set: name other outliers, or say `oracle: true`, and the labels will say so too."
            )
    return outliers


def _ood_sets(
    suite: Suite, inside: ResolvedDataset, source: DataSource, left_out: list[LeftOut]
) -> list[tuple[Path, OODSet]]:
    """The suite's OOD sets, each with its place in the suite."""
    found: list[tuple[Path, OODSet]] = []
    for group, path, spec in _expand_groups(suite):
        with suite.locating(*path):
            dataset = resolve(spec, source, shape=inside.shape, of=inside.name)
        if dataset.is_same_set(inside) and not _disjoint(inside, dataset):
            reason = "it is the in-distribution set itself"
            left_out.append(LeftOut(f"{dataset.label} as OOD for {inside.label}", reason))
            continue
        if "test" not in dataset.declared_splits:
            left_out.append(LeftOut(f"{dataset.label} as OOD for {inside.label}", "it has no test split"))
            continue
        found.append((path, OODSet(group, dataset)))
    return found


def _is_set(dataset: ResolvedDataset, outliers: ResolvedDataset | None) -> bool:
    """Whether a set has the images that are tuned on; None stands for the synthetic outliers."""
    return dataset.name == SYNTHETIC if outliers is None else dataset.is_same_set(outliers)


def _disjoint(inside: ResolvedDataset, outside: ResolvedDataset) -> bool:
    """Whether two views of one dataset share no class (held-out classes as OOD)."""
    return bool(inside.classes and outside.classes) and not set(inside.classes) & set(outside.classes)


def _expand(suite: Suite, key: Path, specs: Sequence[Any]) -> list[tuple[Path, Any]]:
    """Replace patterns by the names they pick; a pattern never picks what is named beside it.

    ``key`` is where the specs stand in the suite.
    """
    named: set[str] = set()
    for position, spec in enumerate(specs):
        with suite.locating(*key, position):
            named |= set() if isinstance(spec, str) and is_pattern(spec) else {parse_spec(spec, "dataset")[0]}
    expanded: list[tuple[Path, Any]] = []
    for position, spec in enumerate(specs):
        path = (*key, position)
        if isinstance(spec, str) and is_pattern(spec):
            found = [entry.name for entry in DATASETS.match(spec) if not entry.lacks(())]
            if not found:
                message = f"No dataset matches {spec!r}; `gauntlet list datasets` shows them all."
                raise GauntletError(f"{suite.at(*path)}: {message}")
            expanded += [(path, name) for name in found if name not in named]
            named.update(found)
        else:
            expanded.append((path, spec))
    return expanded


def _expand_groups(suite: Suite) -> list[tuple[str, Path, Any]]:
    groups = dict.fromkeys(group for group, _ in suite.ood)
    return [
        (group, path, spec)
        for group in groups
        for path, spec in _expand(suite, ("ood", group) if group else ("ood",), _in_group(suite, group))
    ]


def _in_group(suite: Suite, group: str) -> list[Any]:
    return [spec for name, spec in suite.ood if name == group]
