"""Registries of what can be plugged in: names, entries, selections and plug-ins. Standard library only."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any, TypeVar, Unpack

from .component import BoundFunction, Component
from .entry import Entry
from .errors import GauntletError, NotAvailable, Obstacle, harmless, nearest
from .facts import (
    AttackFacts,
    CalibratorFacts,
    CorruptionFacts,
    DatasetFacts,
    DetectorFacts,
    EvaluatorFacts,
    Facts,
    MetricFacts,
    ModelFacts,
    RecipeFacts,
)
from .fingerprint import digest, fingerprints_remembered, source_fingerprint
from .parameters import Parameter, coerce
from .plugins import load_entry_points, load_plugin, load_plugins
from .registry import Registry, is_pattern
from .selection import Selected, check_unique, left_out, parse_spec, select, select_one

T = TypeVar("T", bound=Callable[..., Any])

DATASETS = Registry(
    "dataset",
    "gauntlet.datasets",
    facts=DatasetFacts,
    leading=True,
    vocabulary=("split", "source"),
    finder="gauntlet.datasets.in_python:find",
    builder="gauntlet.datasets.resolve:build_dataset",
)
CORRUPTIONS = Registry(
    "corruption",
    "gauntlet.datasets.corruptions",
    facts=CorruptionFacts,
    leading=True,
    vocabulary=("images", "severity", "draws"),
)
MODELS = Registry(
    "model",
    "gauntlet.models",
    facts=ModelFacts,
    supplied=("classes", "num_classes", "channels", "shape", "download"),
    finder="gauntlet.models.external:find",
)
RECIPES = Registry("recipe", "gauntlet.models.training", facts=RecipeFacts)
AUGMENTATIONS = Registry(
    "augmentation",
    "gauntlet.models.training",
    leading=True,
    vocabulary=("images", "batch", "rng", "classes"),
)
CALIBRATORS = Registry("calibrator", "gauntlet.models", facts=CalibratorFacts)
ATTACKS = Registry(
    "attack",
    "gauntlet.attacks",
    facts=AttackFacts,
    stated={"norm": "linf", "kind": "fixed"},
    leading=True,
    vocabulary=("victim", "images", "labels", "epsilon", "draws"),
    builder="gauntlet.attacks.function:build_attack",
)
DETECTORS = Registry(
    "detector",
    "gauntlet.detectors",
    facts=DetectorFacts,
    leading=True,
    vocabulary=(
        "logits",
        "features",
        "labels",
        "head",
        "images",
        "model",
        "tap",
        "members",
        "feature-maps",
        "passes",
        "gram-statistics",
        "deflated-logits",
    ),
    wrappers={"modifier": "modified", "layer": "at-layer"},
    builder="gauntlet.detectors.base:build_detector",
)
METRICS = Registry(
    "metric",
    "gauntlet.results.metrics",
    facts=MetricFacts,
    leading=True,
    vocabulary=("ranking", "right", "reliability", "selection", "values"),
)
EVALUATORS = Registry(
    "evaluator",
    "gauntlet.bench.evaluators",
    facts=EvaluatorFacts,
    stated={"order": 1000},
    builder="gauntlet.bench.evaluators.base:with_entry",
)
REGISTRIES = {
    registry.kind: registry
    for registry in (
        *(DATASETS, CORRUPTIONS, MODELS, RECIPES, AUGMENTATIONS, CALIBRATORS),
        *(ATTACKS, DETECTORS, METRICS, EVALUATORS),
    )
}


def _entry(kind: str, name: str, plugin: str | None) -> Entry:
    """What is registered under a name, in this process."""
    if plugin is not None:
        load_plugin(plugin, REGISTRIES.values())
    return REGISTRIES[kind].get(name)


# Pickled, an entry is its name: its factory may be a closure, or live in a plug-in that another process must load.
copyreg.pickle(Entry, lambda entry: (_entry, (entry.kind, entry.name, entry.plugin)))


def dataset(name: str, **facts: Unpack[DatasetFacts]) -> Callable[[T], T]:
    """Register a dataset: a function of the split that returns images and labels."""
    return DATASETS.register(name, **facts)


def corruption(name: str, **facts: Unpack[CorruptionFacts]) -> Callable[[T], T]:
    """Register a corruption: a function of images (N, C, H, W) and severity that returns images."""
    return CORRUPTIONS.register(name, **facts)


def model(name: str, **facts: Unpack[ModelFacts]) -> Callable[[T], T]:
    """Register a model: a function or class that makes a ``torch.nn.Module``."""
    return MODELS.register(name, **facts)


def recipe(name: str, **facts: Unpack[RecipeFacts]) -> Callable[[T], T]:
    """Register a recipe: a class that trains a model."""
    return RECIPES.register(name, **facts)


def augmentation(name: str, **facts: Unpack[Facts]) -> Callable[[T], T]:
    """Register an augmentation: a function of a batch of training images and ``rng`` that returns one."""
    return AUGMENTATIONS.register(name, **facts)


def calibrator(name: str, **facts: Unpack[CalibratorFacts]) -> Callable[[T], T]:
    """Register a calibrator: a class that maps logits to calibrated logits."""
    return CALIBRATORS.register(name, **facts)


def attack(name: str, **facts: Unpack[AttackFacts]) -> Callable[[T], T]:
    """Register an attack: a class, or a function of victim, images, labels and epsilon that returns images."""
    return ATTACKS.register(name, **facts)


def detector(name: str, **facts: Unpack[DetectorFacts]) -> Callable[[T], T]:
    """Register a detector: a class, or a function of what it needs that returns one score per image (N,)."""
    return DETECTORS.register(name, **facts)


def metric(name: str, **facts: Unpack[MetricFacts]) -> Callable[[T], T]:
    """Register a metric: its kernel, from ``ranking``, ``reliability``, ``selection`` or ``values`` to numbers."""
    return METRICS.register(name, **facts)


def evaluator(name: str, **facts: Unpack[EvaluatorFacts]) -> Callable[[T], T]:
    """Register an evaluator: a class derived from ``gauntlet.bench.evaluators.base.Evaluator``."""
    return EVALUATORS.register(name, **facts)


list_datasets, create_dataset = DATASETS.names, DATASETS.create
list_corruptions, create_corruption = CORRUPTIONS.names, CORRUPTIONS.create
list_models, create_model = MODELS.names, MODELS.create
list_recipes, create_recipe = RECIPES.names, RECIPES.create
list_augmentations, create_augmentation = AUGMENTATIONS.names, AUGMENTATIONS.create
list_calibrators, create_calibrator = CALIBRATORS.names, CALIBRATORS.create
list_attacks, create_attack = ATTACKS.names, ATTACKS.create
list_detectors, create_detector = DETECTORS.names, DETECTORS.create
list_metrics, create_metric = METRICS.names, METRICS.create
list_evaluators, create_evaluator = EVALUATORS.names, EVALUATORS.create

__all__ = [
    "ATTACKS",
    "AUGMENTATIONS",
    "CALIBRATORS",
    "CORRUPTIONS",
    "DATASETS",
    "DETECTORS",
    "EVALUATORS",
    "METRICS",
    "MODELS",
    "RECIPES",
    "REGISTRIES",
    "BoundFunction",
    "Component",
    "Entry",
    "GauntletError",
    "NotAvailable",
    "Obstacle",
    "Parameter",
    "Registry",
    "Selected",
    "attack",
    "augmentation",
    "calibrator",
    "check_unique",
    "coerce",
    "corruption",
    "create_attack",
    "create_augmentation",
    "create_calibrator",
    "create_corruption",
    "create_dataset",
    "create_detector",
    "create_evaluator",
    "create_metric",
    "create_model",
    "create_recipe",
    "dataset",
    "detector",
    "digest",
    "evaluator",
    "fingerprints_remembered",
    "harmless",
    "is_pattern",
    "left_out",
    "list_attacks",
    "list_augmentations",
    "list_calibrators",
    "list_corruptions",
    "list_datasets",
    "list_detectors",
    "list_evaluators",
    "list_metrics",
    "list_models",
    "list_recipes",
    "load_entry_points",
    "load_plugin",
    "load_plugins",
    "metric",
    "model",
    "nearest",
    "parse_spec",
    "recipe",
    "select",
    "select_one",
    "source_fingerprint",
]
