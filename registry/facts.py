"""The facts that a decorator takes beside the name: which there are for each kind of component, and their types."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from .errors import GauntletError, nearest
from .parameters import coerce

Norm = Literal["linf", "l2", "l1", "l0", "none"]
Kind = Literal["fixed", "minimum-norm", "other"]
Access = Literal["gradient", "score", "decision", "none"]
Cost = Literal["fast", "standard", "full"]
Interval = Literal[
    "bootstrap",
    "bootstrap-minimum",
    "calibration",
    "clopper-pearson",
    "delong",
    "gap",
    "normal",
    "order-statistics",
    "student",
]


class Facts(TypedDict, total=False):
    """Of any component.

    Attributes:
        needs: What the leading arguments are; by default their names say it.
        reference: Paper or other source.
        tags: Words for selections (``tag:white-box``).
        aliases: Further names.
        summary: Replaces the first docstring line.
        row: Table row that defines the entry, for table-driven ones.
        files: Files that decide its results beside its source; relative paths start at the folder of its module.
        versions: Distributions whose installed version joins the fingerprint.
        extras: Optional packages without which it cannot run; each is an extra of Gauntlet.
        unavailable: Why it can never run, for what is listed all the same.
    """

    needs: str | tuple[str, ...]
    reference: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    summary: str
    row: str
    files: tuple[str | Path, ...]
    versions: tuple[str, ...]
    extras: tuple[str, ...]
    unavailable: str


class DatasetFacts(Facts, total=False):
    """Of a dataset.

    Attributes:
        splits: Those that it has.
        classes: Their names.
        shape: (C, H, W).
        files: From split, source and parameters to the files that are read; or their names, as elsewhere.
        download: Gets these files.
        describe: What result rows say of a split beside its name.
        home: Where they can be had, the end of that message.
        stand_in: What it stands in for; tables say so.
        opens: Whether the factory opens a collection (``gauntlet.datasets.collection``), which knows its splits.
        places: Parameters that say where files are: what is there decides the images, not the place.
    """

    splits: tuple[str, ...]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    files: Callable[..., list[Path]] | tuple[str | Path, ...]  # type: ignore[misc]
    download: Callable[..., None]
    describe: Callable[..., Mapping[str, str]]
    home: str
    stand_in: str
    opens: bool
    places: tuple[str, ...]


class CorruptionFacts(Facts, total=False):
    """Of a corruption: its severities, the images that it is made for (C, H, W), and what it stands in for."""

    severities: tuple[int, ...]
    shape: tuple[int, int, int]
    channels: int
    stand_in: str


class ModelFacts(Facts, total=False):
    """Of a model.

    Attributes:
        outputs: What it yields; logits where nothing is said.
        recipe: The recipe that trains it, where the suite's cannot.
        shape: The images that it takes (C, H, W), where these are the only ones.
        children: The parameter that holds models.
        trained: Whether it arrives trained.
        gradients: False where none reaches the images.
    """

    outputs: tuple[str, ...]
    recipe: str
    shape: tuple[int, int, int]
    children: str
    trained: bool
    gradients: bool


class RecipeFacts(Facts, total=False):
    """Of a recipe: named settings, what is known against some, and the parameter that holds datasets."""

    profiles: Mapping[str, Mapping[str, Any]]
    warnings: Mapping[str, str]
    datasets: str


class CalibratorFacts(Facts, total=False):
    """Of a calibrator: the letter that it adds to a model's label."""

    short: str


class AttackFacts(Facts, total=False):
    """Of an attack.

    Attributes:
        norm: In which its budget is measured; ``linf`` where neither this nor a parameter ``norm`` says otherwise.
        norms: All norms that its parameter ``norm`` offers.
        kind: Whether it spends a budget, looks for the nearest adversarial image, or neither.
        access: What it uses of the model.
        cost: Decides, with ``attack_images`` of the suite, how many images it gets.
        loss: ``any`` where it can climb the loss that a victim brings.
        inputs: What it takes beside images and labels (``surrogate``, ``targets``, ``starting points``, ...).
        few: Parameters that make it fast, for tests.
        coupling: What ties the images of one chunk together.
        fault: What is known to be wrong with it.
    """

    norm: Norm
    norms: tuple[Norm, ...]
    kind: Kind
    access: Access
    cost: Cost
    loss: Literal["any"]
    inputs: tuple[str, ...]
    few: Mapping[str, Any]
    coupling: str
    fault: str


class DetectorFacts(Facts, total=False):
    """Of a detector: the values that tuning tries for its parameters, and whether attacks can climb its score."""

    grid: Mapping[str, list[Any]]
    differentiable: bool


class MetricFacts(Facts, total=False):
    """Of a metric.

    Attributes:
        title: For headings; its name where nothing is said.
        higher_is_better: None where neither direction is better in itself.
        low: Smallest possible value, 0 where nothing is said.
        high: Largest possible value, 1 where nothing is said.
        percent: Whether tables may show it in percent.
        decimals: Digits after the point where it is not in percent, 3 where nothing is said.
        headline: Whether a baseline holds it unless told otherwise.
        interval: How its 95 % interval is computed; ``bootstrap``, of means ``student``, where nothing is said.
        evaluators: Those that add it to their own metrics; all that have such a sample where nothing is said.
        stored: The arrays of a cell that hold its values image by image, for paired differences.
    """

    title: str
    higher_is_better: bool | None
    low: float
    high: float
    percent: bool
    decimals: int
    headline: bool
    interval: Interval
    evaluators: tuple[str, ...]
    stored: tuple[str, ...]


class EvaluatorFacts(Facts, total=False):
    """Of an evaluator, whose ``needs`` are the outputs that a model must yield.

    Attributes:
        title: What tables and pages call it.
        order: Its place among evaluators; those that say nothing come last.
        needs_keys: Keys of a suite without which it cannot run.
        reads: Keys of a suite that it reads beside these.
        default_with: Keys with all of which it runs in a suite that names no evaluators; without this never.
        metrics: Names of what it measures.
        tables: Its tables (``gauntlet.results.declarations.TableSpec``) beside those of ``results.presets``.
        plots: Kinds of plots that show its cells.
        crosses: Axes of a suite (``corruptions``, ``attacks``) whose images it looks at where ``cross`` says so.
    """

    title: str
    order: int
    needs_keys: tuple[str, ...]
    reads: tuple[str, ...]
    default_with: tuple[str, ...]
    metrics: tuple[str, ...]
    tables: tuple[Any, ...]
    plots: tuple[str, ...]
    crosses: tuple[str, ...]


@functools.cache
def _types(facts: type) -> dict[str, Any]:
    return typing.get_type_hints(facts)


def check_facts(facts: type, values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The values in the types that ``facts`` (a :class:`Facts`) declares.

    Raises:
        GauntletError: Some are unknown or of another type; all of them are named, after the ``owner``.
    """
    known, checked, problems = _types(facts), {}, []
    for name, value in values.items():
        try:
            if name not in known:
                raise ValueError(f"is unknown; {nearest(name, known)}")
            checked[name] = coerce(value, known[name])
        except ValueError as error:
            problems.append(f"{name!r} {error}")
    if problems:
        raise GauntletError(f"{owner}: the keyword {'; the keyword '.join(problems)}")
    return checked
