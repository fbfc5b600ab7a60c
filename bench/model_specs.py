"""Models as a suite describes them: an architecture, how it gets its weights, and the models it is built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..datasets import ResolvedDataset
from ..models.build import classes_of
from ..registry import (
    CALIBRATORS,
    MODELS,
    Entry,
    GauntletError,
    Obstacle,
    Selected,
    check_unique,
    is_pattern,
    nearest,
    parse_spec,
    select_one,
)
from .recipes import DefaultRecipe, default_recipe, describe_recipe, parts, resolve_recipe

_OPTIONS = ("recipe", "weights", "init_from", "replica", "calibrator")


@dataclass(frozen=True)
class ModelSpec:
    """One model of a suite.

    Attributes:
        entry: The architecture.
        label: Its name in tables.
        parameters: Of the architecture, without those that hold models.
        recipe: How it is trained; None for models that arrive trained.
        weights: A file of the user's own weights; then nothing is trained.
        init_from: A model of the same architecture whose weights it starts its training from.
        replica: Tells apart members that are otherwise equal; each is trained from its own random start.
        members: The models it is built from.
        calibrator: FittedDetector on the validation split, on top of everything else.
    """

    entry: Entry
    label: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    recipe: Selected | None = None
    weights: Path | None = None
    init_from: ModelSpec | None = None
    replica: int = 0
    members: tuple[ModelSpec, ...] = ()
    calibrator: Selected | None = None

    @property
    def recipe_label(self) -> str:
        """What the column ``recipe`` says."""
        if self.weights is not None:
            return "weights"
        if self.recipe is None and self.members:
            return "+".join(dict.fromkeys(member.recipe_label for member in self.members))
        return self.recipe.label if self.recipe is not None else "none"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model declares to yield; a model that declares nothing is a classifier."""
        return tuple(self.entry.meta.get("outputs", ("logits",)))

    @property
    def inside(self) -> tuple[ModelSpec, ...]:
        """The models that must be there before this one can be built and trained."""
        return self.members if self.init_from is None else (*self.members, self.init_from)

    @property
    def trains(self) -> bool:
        """Whether the model or one of its members is trained by Gauntlet."""
        if self.weights is not None:
            return False
        return self.recipe is not None or any(part.trains for part in self.inside)

    @property
    def calibrates(self) -> bool:
        """Whether the model or one of its members is calibrated on validation data."""
        return self.calibrator is not None or any(member.calibrates for member in self.members)

    @property
    def recipes(self) -> list[Selected]:
        """The recipes by which Gauntlet trains the model and its members."""
        own = [self.recipe] if self.recipe is not None and self.weights is None else []
        return own + [recipe for part in self.inside for recipe in part.recipes]

    def obstacle(self, dataset: ResolvedDataset) -> Obstacle:
        """Why it can never be evaluated on a dataset."""
        if dataset.broken:
            return ""  # its cells fail, with the reason
        for part in (self, *self.members):
            wanted = part.entry.meta.get("shape")
            if wanted is not None and tuple(wanted) != tuple(dataset.shape):
                return f"{part.entry.name} takes {_size(wanted)} images, {dataset.label} has {_size(dataset.shape)}"
        if self.trains and "train" not in dataset.declared_splits:
            return f"{dataset.label} has no training split"
        return "" if len(dataset.classes) >= 2 else f"{dataset.label} has fewer than two classes"

    def describe(self, classes: int | None = None) -> dict[str, Any]:
        """Everything that was chosen, JSON-able, for the ``params`` column; ``classes`` are those of the dataset."""
        facts: dict[str, Any] = {**self.entry.defaults(), **self.parameters}
        if classes is not None:
            facts |= {name: self.parameters.get(name, classes) for name in classes_of(self.entry)}
        if self.members:
            facts[self.entry.meta["children"]] = [
                {"name": member.entry.name, **member.describe(classes)} for member in self.members
            ]
        if self.recipe is not None:
            facts["recipe"] = describe_recipe(self.recipe)
        if self.weights is not None:
            facts["weights"] = self.weights.name
        if self.init_from is not None:
            facts["init_from"] = {"name": self.init_from.entry.name, **self.init_from.describe(classes)}
        if self.calibrator is not None:
            entry = self.calibrator.entry
            facts["calibrator"] = {"name": entry.name, **entry.defaults(), **self.calibrator.parameters}
        return facts


def resolve_models(
    specs: tuple[Any, ...],
    recipe: Any,
    locating: Callable[..., AbstractContextManager[None]] = lambda *_: nullcontext(),
) -> list[ModelSpec]:
    """All models of a suite, in order, with patterns expanded.

    ``locating`` is told in whose item a mistake would be (see ``Suite.locating``).

    Raises:
        GauntletError: A name, parameter or option is wrong, or two labels are equal.
    """
    default = DefaultRecipe(None)
    with locating("recipe"):
        default = default_recipe(recipe)
    named = {spec for spec in specs if isinstance(spec, str) and not _picks_many(spec)}
    models: list[ModelSpec] = []
    for position, spec in enumerate(specs):
        with locating("models", position):
            names = _fresh(spec, named | {model.entry.name for model in models})
            models += [resolve_model(name, default) for name in names]
            check_unique((model.label for model in models), "model")
    return models


def _fresh(spec: Any, taken: set[str]) -> list[Any]:
    """The spec itself, or the names that a pattern picks beside those that are taken."""
    if not (isinstance(spec, str) and _picks_many(spec)):
        return [spec]
    found = [entry.name for entry in MODELS.match(spec)]
    if not found:
        raise GauntletError(f"No model matches {spec!r}; `gauntlet list models` shows them all.")
    fresh = [name for name in found if name not in taken]
    return [name for name in fresh if _complete(name)] or fresh


def _complete(name: str) -> bool:
    """Whether a model can do without parameters."""
    return not MODELS.get(name).lacks(MODELS.supplied)


def _picks_many(spec: str) -> bool:
    """Whether it is a pattern, and not ``module:function``."""
    key, colon, _ = spec.partition(":")
    known = key == "tag" or any(key in entry.meta for entry in MODELS)
    return is_pattern(spec) and (not colon or known)


def resolve_model(spec: Any, default: DefaultRecipe) -> ModelSpec:
    """One model spec, with the models inside it.

    Raises:
        GauntletError: The spec is wrong, or nothing says how the model comes to its weights; the message names it.
    """
    chosen = select_one(MODELS, spec, options=_OPTIONS)
    entry, parameters, options = chosen.entry, dict(chosen.parameters), chosen.options
    recipe, named = _recipe_of(chosen, default)
    trained = _arrives_trained(chosen)
    if not (trained or named or "weights" in options or entry.is_ours):
        raise GauntletError(
            f"model {chosen.label!r} ({entry.where}): nothing says whether it arrives trained: declare "
            f"@model({entry.name!r}, trained=True), or name the recipe that trains it, such as `recipe: standard`."
        )
    replica = options.get("replica", 0)
    if not isinstance(replica, int) or isinstance(replica, bool):
        raise GauntletError(f"model {entry.name!r}: replica must be a whole number, got {replica!r}.")
    members: tuple[ModelSpec, ...] = ()
    if child := entry.meta.get("children"):
        inner = parameters.pop(child, entry.defaults().get(child, ()))
        inherited = DefaultRecipe(recipe, named) if entry.meta.get("trained") else default
        members = _members(inner, DefaultRecipe(None) if "weights" in options else inherited)
        if not members:
            raise GauntletError(f"model {chosen.label!r}: {child} is empty; name at least one model.")
    calibrator = select_one(CALIBRATORS, options["calibrator"]) if options.get("calibrator") else None
    start = options.get("init_from")
    return _fitting(
        ModelSpec(
            entry=entry,
            label=_label(spec, chosen, calibrator),
            parameters=parameters,
            recipe=None if trained or "weights" in options else recipe,
            weights=_weights(options.get("weights"), chosen.label),
            init_from=None if start is None else resolve_model(start, default),
            replica=replica,
            members=members,
            calibrator=calibrator,
        )
    )


def _recipe_of(chosen: Selected, default: DefaultRecipe) -> DefaultRecipe:
    """The recipe that a model's item in a suite names, or its decorator (as no classifier's can train it), or else."""
    own = chosen.options.get("recipe", chosen.entry.meta.get("recipe"))
    return default if own is None and "recipe" not in chosen.options else DefaultRecipe(resolve_recipe(own))


def _arrives_trained(chosen: Selected) -> bool:
    """Whether a model is measured as it is made: its item names no recipe, and its decorator or ``pretrained`` says so.

    One that is built from members passes a recipe on to them.
    """
    if "recipe" in chosen.options and "children" not in chosen.entry.meta:
        return False
    return bool(chosen.entry.meta.get("trained")) or chosen.parameters.get("pretrained") is True


def _fitting(spec: ModelSpec) -> ModelSpec:
    """The same spec; an error where recipe, calibrator or start cannot serve a model of this kind."""
    yields = f"model {spec.label!r} yields {', '.join(spec.outputs)}"
    for part in [] if spec.recipe is None else parts(spec.recipe):
        needs = part.entry.needs or ("logits",)
        if lacking := [need for need in needs if need not in spec.outputs]:
            hint = f"; its own recipe is {own!r}" if (own := spec.entry.meta.get("recipe")) else ""
            raise GauntletError(
                f"Recipe {part.entry.name!r} trains models that yield {lacking[0]}, but {yields}{hint}."
            )
    if spec.calibrator is not None and "logits" not in spec.outputs:
        raise GauntletError(f"Calibrator {spec.calibrator.label!r} needs logits, but {yields}.")
    if spec.init_from is not None and (spec.recipe is None or spec.init_from.entry.name != spec.entry.name):
        raise GauntletError(
            f"model {spec.label!r}: init_from is the start of a training: it must name a {spec.entry.name!r}, and the "
            "model must have a recipe."
        )
    return spec


def _members(specs: Any, default: DefaultRecipe) -> tuple[ModelSpec, ...]:
    """The models inside a model; equal ones become replicas of one another, each from a random start of its own."""
    found: list[ModelSpec] = []
    for spec in [specs] if isinstance(specs, (str, Mapping)) else specs:
        member = resolve_model(spec, default)
        while member in found:
            member = replace(member, replica=member.replica + 1)
        found.append(member)
    return tuple(found)


def _label(spec: Any, chosen: Selected, calibrator: Selected | None) -> str:
    """The label that was given, else the default one, with ``+ T`` where a temperature joins."""
    if calibrator is None or (isinstance(spec, Mapping) and "label" in parse_spec(spec, "model")[1]):
        return chosen.label
    return f"{chosen.label} + {calibrator.entry.meta.get('short', calibrator.label)}"


def _weights(value: Any, label: str) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise GauntletError(f"model {label!r}: weights must be the path of a file, got {value!r}.")
    path = Path(value).expanduser()
    if not path.is_file():
        raise GauntletError(f"model {label!r}: there is no file of weights {value!r}{_similar(path)}")
    return path.resolve()


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _similar(path: Path) -> str:
    """End of a sentence about an absent file: the one beside it that has nearly its name, or that of its kind."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [file.name for file in beside if file.is_file() and file.suffix == path.suffix]
    return f"; {nearest(path.name, names)}" if names else "."
