"""Models as a suite describes them: an architecture, how it gets its weights, and the models it is built from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..registry import (
    MODELS,
    RECIPES,
    Entry,
    GauntletError,
    Selected,
    check_unique,
    digest,
    is_pattern,
    nearest,
    select_one,
    source_fingerprint,
)

_OPTIONS = ("recipe", "weights", "replica")


@dataclass(frozen=True)
class ModelSpec:
    """One model of a suite.

    Attributes:
        entry: The architecture.
        label: Its name in tables.
        parameters: Of the architecture, without those that hold models.
        recipe: How it is trained; None for models that arrive trained.
        weights: A file of the user's own weights; then nothing is trained.
        replica: Tells apart members that are otherwise equal; each is trained from its own random start.
        members: The models it is built from.
    """

    entry: Entry
    label: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    recipe: Selected | None = None
    weights: Path | None = None
    replica: int = 0
    members: tuple[ModelSpec, ...] = ()

    @property
    def recipe_label(self) -> str:
        """What the column ``recipe`` says."""
        if self.weights is not None:
            return "weights"
        if self.members:
            return "+".join(dict.fromkeys(member.recipe_label for member in self.members))
        return self.recipe.label if self.recipe is not None else "none"

    @property
    def trains(self) -> bool:
        """Whether the model or one of its members is trained by Gauntlet."""
        if self.weights is not None:
            return False
        return self.recipe is not None or any(member.trains for member in self.members)

    def describe(self) -> dict[str, Any]:
        """Everything that was chosen, JSON-able, for the ``params`` column."""
        facts: dict[str, Any] = {**self.entry.defaults(), **self.parameters}
        if self.members:
            facts[self.entry.meta["children"]] = [
                {"name": member.entry.name, **member.describe()} for member in self.members
            ]
        if self.recipe is not None:
            facts["recipe"] = {
                "name": self.recipe.entry.name,
                **self.recipe.entry.defaults(),
                **self.recipe.parameters,
            }
        if self.weights is not None:
            facts["weights"] = self.weights.name
        return facts


def resolve_models(specs: tuple[Any, ...], recipe: Any) -> list[ModelSpec]:
    """All models of a suite, in order, with patterns expanded and plug-ins' models added.

    Raises:
        GauntletError: A name, parameter or option is wrong, or two labels are equal.
    """
    default = _recipe(recipe)
    named = {spec for spec in specs if isinstance(spec, str) and not is_pattern(spec)}
    models: list[ModelSpec] = []
    for spec in specs:
        if isinstance(spec, str) and is_pattern(spec):
            found = [entry.name for entry in MODELS.match(spec)]
            if not found:
                raise GauntletError(f"No model matches {spec!r}; `gauntlet list models` shows them all.")
            taken = named | {model.entry.name for model in models}
            models += [resolve_model(name, default) for name in found if name not in taken]
        else:
            models.append(resolve_model(spec, default))
    present = {model.entry.name for model in models}
    models += [resolve_model(entry.name, default) for entry in MODELS if entry.plugin and entry.name not in present]
    check_unique((model.label for model in models), "model")
    return models


def resolve_model(spec: Any, default_recipe: Selected | None) -> ModelSpec:
    """One model spec, with the models inside it."""
    chosen = select_one(MODELS, spec, options=_OPTIONS)
    entry, parameters, options = chosen.entry, dict(chosen.parameters), chosen.options
    recipe = _recipe(options["recipe"]) if "recipe" in options else default_recipe
    replica = options.get("replica", 0)
    if not isinstance(replica, int) or isinstance(replica, bool):
        raise GauntletError(f"model {entry.name!r}: replica must be a whole number, got {replica!r}.")
    members: tuple[ModelSpec, ...] = ()
    if child := entry.meta.get("children"):
        inner = parameters.pop(child, entry.defaults().get(child, ()))
        members = tuple(resolve_model(member, recipe) for member in inner)
        if not members:
            raise GauntletError(f"model {chosen.label!r}: {child} is empty; name at least one model.")
    trained = bool(entry.meta.get("trained"))
    return ModelSpec(
        entry=entry,
        label=chosen.label,
        parameters=parameters,
        recipe=None if trained or "weights" in options else recipe,
        weights=_weights(options.get("weights"), chosen.label),
        replica=replica,
        members=members,
    )


def training_key(spec: ModelSpec, data: str, classes: int, shape: tuple[int, int, int], seed: int) -> str:
    """Digest of everything that determines trained weights: architecture, recipe, data, seed and their sources."""
    assert spec.recipe is not None
    recipe = spec.recipe.entry
    return digest(
        "training/1",
        [spec.entry.name, {**spec.entry.defaults(), **spec.parameters}, source_fingerprint(spec.entry)],
        [recipe.name, {**recipe.defaults(), **spec.recipe.parameters}, source_fingerprint(recipe)],
        [data, classes, shape, seed, spec.replica],
    )


def model_key(spec: ModelSpec, data: str, classes: int, shape: tuple[int, int, int], seed: int) -> str:
    """Digest that tells whether two models are the same function: how it was trained, or the weights it came with."""
    identity = [
        "model/1",
        spec.entry.name,
        {**spec.entry.defaults(), **spec.parameters},
        source_fingerprint(spec.entry),
    ]
    if spec.weights is not None:
        return digest(*identity, "weights", hashlib.sha256(spec.weights.read_bytes()).hexdigest())
    if spec.members:
        return digest(*identity, [model_key(member, data, classes, shape, seed) for member in spec.members])
    if spec.recipe is not None:
        return training_key(spec, data, classes, shape, seed)
    return digest(*identity, "as built", classes, shape, seed if spec.entry.meta.get("random") else 0)


def _recipe(spec: Any) -> Selected | None:
    return None if spec is None or spec == "none" else select_one(RECIPES, spec)


def _weights(value: Any, label: str) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise GauntletError(f"model {label!r}: weights must be the path of a file, got {value!r}.")
    path = Path(value).expanduser()
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path()
        hint = nearest(path.name, [file.name for file in folder.iterdir() if file.is_file()])
        raise GauntletError(f"model {label!r}: there is no file of weights {value!r}; {hint}")
    return path.resolve()
