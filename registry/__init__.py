"""Registries of what can be plugged in: names, entries, selections and plug-ins. Standard library only."""

from __future__ import annotations

import copyreg

from .entry import Entry
from .errors import GauntletError, NotAvailable, nearest
from .fingerprint import digest, fingerprints_remembered, source_fingerprint
from .parameters import Parameter, coerce
from .plugins import load_entry_points, load_plugin, load_plugins
from .registry import Registry, is_pattern
from .selection import Selected, check_unique, left_out, parse_spec, select, select_one

DATASETS = Registry("dataset", "gauntlet.datasets", leading=True, vocabulary=("split", "source"))
CORRUPTIONS = Registry(
    "corruption", "gauntlet.datasets.corruptions", leading=True, vocabulary=("images", "severity", "draws")
)
MODELS = Registry(
    "model",
    "gauntlet.models",
    supplied=("classes", "channels", "shape", "download"),
    finder="gauntlet.models.external:find",
)
RECIPES = Registry("recipe", "gauntlet.models.training")
AUGMENTATIONS = Registry(
    "augmentation",
    "gauntlet.models.training",
    leading=True,
    vocabulary=("images", "batch", "rng", "classes"),
)
CALIBRATORS = Registry("calibrator", "gauntlet.models")
ATTACKS = Registry(
    "attack", "gauntlet.attacks", leading=True, vocabulary=("victim", "images", "labels", "epsilon", "draws")
)
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
REGISTRIES = {
    registry.kind: registry
    for registry in (DATASETS, CORRUPTIONS, MODELS, RECIPES, AUGMENTATIONS, CALIBRATORS, ATTACKS, DETECTORS)
}


def _entry(kind: str, name: str, plugin: str | None) -> Entry:
    """What is registered under a name, in this process."""
    if plugin is not None:
        load_plugin(plugin, REGISTRIES.values())
    return REGISTRIES[kind].get(name)


# Pickled, an entry is its name: its factory may be a closure, or live in a plug-in that another process must load.
copyreg.pickle(Entry, lambda entry: (_entry, (entry.kind, entry.name, entry.plugin)))

dataset = DATASETS.register
corruption = CORRUPTIONS.register
model = MODELS.register
recipe = RECIPES.register
augmentation = AUGMENTATIONS.register
calibrator = CALIBRATORS.register
attack = ATTACKS.register
detector = DETECTORS.register

__all__ = [
    "ATTACKS",
    "AUGMENTATIONS",
    "CALIBRATORS",
    "CORRUPTIONS",
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
    "augmentation",
    "calibrator",
    "check_unique",
    "coerce",
    "corruption",
    "dataset",
    "detector",
    "digest",
    "fingerprints_remembered",
    "is_pattern",
    "left_out",
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
