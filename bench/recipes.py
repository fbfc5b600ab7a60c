"""Recipes as a suite describes them: with a profile, with other recipes beside them, and with outlier sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..datasets import ResolvedDataset, resolve
from ..models.training import Recipe, Trainer
from ..registry import (
    ATTACKS,
    AUGMENTATIONS,
    RECIPES,
    GauntletError,
    Obstacle,
    Selected,
    nearest,
    parse_spec,
    select_one,
    source_fingerprint,
)

#: Parameters that name components of another registry, whose source then decides the weights too.
_COMPONENTS = {"attack": ATTACKS, "augment": AUGMENTATIONS, "copy_augment": AUGMENTATIONS}


class DefaultRecipe(NamedTuple):
    """How models are trained that name no recipe of their own.

    Attributes:
        recipe: The recipe; None for no training.
        named: Whether somebody said so; where nobody did, only Gauntlet's own networks are trained.
    """

    recipe: Selected | None
    named: bool = True


def default_recipe(spec: Any) -> DefaultRecipe:
    """What a suite says under ``recipe``; where it says nothing (None), ``standard``, which nobody named.

    Raises:
        GauntletError: A name, parameter or profile is unknown.
    """
    return DefaultRecipe(resolve_recipe("standard" if spec is None else spec), named=spec is not None)


def resolve_recipe(spec: Any) -> Selected | None:
    """``standard``, ``{adversarial: {profile: r2}}``, or a list: the first recipe with the ideas of the others.

    Raises:
        GauntletError: A name, parameter or profile is unknown.
    """
    if spec is None or spec == "none":
        return None
    if not isinstance(spec, (list, tuple)):
        return _tried(_one(spec))
    if not spec:
        raise GauntletError("A list of recipes must name at least one; write `recipe: none` for no training.")
    first, *others = (_one(item) for item in spec)
    label = "+".join(recipe.label for recipe in (first, *others))
    return _tried(Selected(first.entry, label, first.parameters, {**first.options, "also": tuple(others)}))


def _tried(recipe: Selected) -> Selected:
    """The same, after building it once without outlier images: settings that cannot work are found before a run.

    Nothing of the user's is built before it runs.
    """
    if not all(part.entry.is_ours for part in parts(recipe)):
        return recipe
    made = [part.entry.build(part.parameters) for part in parts(recipe)]
    _join(recipe, made)
    return recipe


def _one(spec: Any) -> Selected:
    chosen = select_one(RECIPES, spec, options=("profile",))
    profile = chosen.options.get("profile")
    if profile is None or profile == "default":
        return Selected(chosen.entry, chosen.label, chosen.parameters)
    profiles = chosen.entry.meta.get("profiles", {})
    if profile not in profiles:
        raise GauntletError(
            f"Recipe {chosen.entry.name!r} has no profile {profile!r}; {nearest(str(profile), profiles)}"
        )
    parameters = {**chosen.entry.check(profiles[profile]), **chosen.parameters}
    labelled = "label" in parse_spec(spec, "recipe")[1]
    label = chosen.label if labelled else chosen.label.replace(chosen.entry.name, f"{chosen.entry.name} {profile}", 1)
    return Selected(chosen.entry, label, parameters, {"profile": profile})


def parts(recipe: Selected) -> tuple[Selected, ...]:
    """A recipe and those beside it."""
    return (recipe, *recipe.options.get("also", ()))


def describe_recipe(recipe: Selected) -> dict[str, Any]:
    """Everything that was chosen, JSON-able."""
    facts = {"name": recipe.entry.name, **_values(recipe)}
    if "profile" in recipe.options:
        facts["profile"] = recipe.options["profile"]
    if also := recipe.options.get("also"):
        facts["also"] = [describe_recipe(other) for other in also]
    return facts


def warnings(recipe: Selected) -> Iterator[str]:
    """What is known against the profiles that were chosen."""
    for part in parts(recipe):
        profile = part.options.get("profile", "")
        if reason := part.entry.meta.get("warnings", {}).get(profile):
            yield f"Recipe {part.entry.name!r}, profile {profile!r}, is known to have a weakness: {reason}."


def recipe_identity(recipe: Selected, dataset: ResolvedDataset) -> list[Any]:
    """Everything of a recipe that decides trained weights: parameters, sources, outlier images."""
    return [
        [
            part.entry.name,
            _values(part),
            source_fingerprint(part.entry),
            [outside.fingerprint(split) for outside, split in outlier_sets(part, dataset)],
            [source_fingerprint(registry.get(name)) for registry, name in _components(part)],
        ]
        for part in parts(recipe)
    ]


def outlier_sets(recipe: Selected, dataset: ResolvedDataset) -> list[tuple[ResolvedDataset, str]]:
    """The outlier sets of one recipe in the shape of ``dataset``, each with the split that is taken."""
    parameter = recipe.entry.meta.get("datasets")
    if parameter is None:
        return []
    sets = [resolve(spec, dataset.source, shape=dataset.shape, of=dataset.name) for spec in _values(recipe)[parameter]]
    return [(one, "train" if "train" in one.splits else "test") for one in sets]


def recipe_obstacle(recipe: Selected, dataset: ResolvedDataset) -> Obstacle:
    """Why the recipe cannot run here: an outlier set is absent."""
    needed = (pair for part in parts(recipe) for pair in outlier_sets(part, dataset))
    return next(filter(None, (outside.obstacle(split) for outside, split in needed)), "")


def build_recipe(recipe: Selected, dataset: ResolvedDataset) -> Recipe:
    """The recipe, with its outlier images loaded and the others joined to it."""
    return _join(recipe, [_build(part, dataset) for part in parts(recipe)])


def _join(recipe: Selected, made: list[Recipe]) -> Recipe:
    first, *others = made
    if others:
        if not isinstance(first, Trainer):
            raise GauntletError(f"Recipe {recipe.entry.name!r} has its own loop: no other recipe can join it.")
        first.join(others)
    return first


def _build(recipe: Selected, dataset: ResolvedDataset) -> Recipe:
    parameters = dict(recipe.parameters)
    if (parameter := recipe.entry.meta.get("datasets")) is not None:
        parameters[parameter] = [one.load(split) for one, split in outlier_sets(recipe, dataset)]
    return recipe.entry.signed(recipe.entry.factory(**parameters), recipe.parameters)


def _values(recipe: Selected) -> dict[str, Any]:
    return {**recipe.entry.defaults(), **recipe.parameters}


def _components(recipe: Selected) -> Iterator[tuple[Any, str]]:
    for parameter, registry in _COMPONENTS.items():
        given = _values(recipe).get(parameter, ())
        for spec in given if isinstance(given, (list, tuple)) else [given]:
            yield registry, parse_spec(spec, registry.kind)[0]
