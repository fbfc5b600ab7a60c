"""Registries of what can be plugged in: names, entries, selections and plug-ins. Standard library only."""

from __future__ import annotations

from .entry import Entry
from .errors import GauntletError, NotAvailable, nearest
from .parameters import Parameter, coerce
from .plugins import load_entry_points, load_plugin, load_plugins
from .registry import Registry, is_pattern
from .selection import Selected, check_unique, parse_spec, select, select_one
from .source import digest, source_fingerprint

DATASETS = Registry("dataset", "gauntlet.datasets", leading=True, vocabulary=("split", "source"))
MODELS = Registry("model", "gauntlet.models", supplied=("classes", "channels", "shape"))
RECIPES = Registry("recipe", "gauntlet.models.training")
ATTACKS = Registry("attack", "gauntlet.attacks")
DETECTORS = Registry(
    "detector",
    "gauntlet.detectors",
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
)
REGISTRIES = {registry.kind: registry for registry in (DATASETS, MODELS, RECIPES, ATTACKS, DETECTORS)}

dataset = DATASETS.register
model = MODELS.register
recipe = RECIPES.register
attack = ATTACKS.register
detector = DETECTORS.register

__all__ = [
    "ATTACKS",
    "DATASETS",
    "DETECTORS",
    "MODELS",
    "RECIPES",
    "REGISTRIES",
    "Entry",
    "GauntletError",
    "NotAvailable",
    "Parameter",
    "Registry",
    "Selected",
    "attack",
    "check_unique",
    "coerce",
    "dataset",
    "detector",
    "digest",
    "is_pattern",
    "load_entry_points",
    "load_plugin",
    "load_plugins",
    "model",
    "nearest",
    "parse_spec",
    "recipe",
    "select",
    "select_one",
    "source_fingerprint",
]
