"""Suites: YAML files that select from every registry, checked with line and column."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..registry import EVALUATORS, GauntletError, check_unique, nearest
from ..registry.nameable import nameable, naming
from .protocols import with_protocol
from .suite_axes import Epsilon, Reading, Spec, in_order, texts, unnamed
from .suite_errors import describe, unknown_key
from .suite_model import DEFAULT_EPSILONS, LEAVE_OUT, Suite, Tune
from .suite_yaml import plain, read_yaml
from .tuning import tuned_labels

__all__ = [
    "DEFAULT_EPSILONS",
    "LEAVE_OUT",
    "Epsilon",
    "Spec",
    "Suite",
    "Tune",
    "builtin_suites",
    "load_suite",
    "named_suites",
    "parse_epsilons",
    "parse_suite",
]

#: What a suite knows of its file; the other fields are the keys of the file.
_OF_THE_FILE = {"text", "where", "marks", "left_out", "notes", "modules"}
KEYS = [name for name in Suite.model_fields if name not in _OF_THE_FILE]


def builtin_suites() -> dict[str, str]:
    """Names of the suites that come with Gauntlet, with their text."""
    folder = resources.files(__package__) / "suites"
    found = {
        entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    }
    return {name.removesuffix(".yaml"): found[name] for name in sorted(found)}


def named_suites(names: Sequence[str]) -> list[str]:
    """Files and names of suites, each pattern replaced by the built-in suites that it picks; each only once.

    Raises:
        GauntletError: A pattern picks none, or two files have one name.
    """
    found: list[str] = []
    for name in names:
        if Path(name).is_file() or not any(sign in name for sign in "*?["):
            found.append(name)
            continue
        picked = [known for known in builtin_suites() if fnmatchcase(known, name)]
        if not picked:
            raise GauntletError(f"No built-in suite matches {name!r}; {nearest(name, builtin_suites())}")
        found += picked
    found = list(dict.fromkeys(found))
    check_unique((Path(name).stem for name in found), "suite")
    return found


def load_suite(
    source: str | Path | Mapping[str, Any], *, profile: str | None = None, plugins: Sequence[str] = ()
) -> Suite:
    """Read a suite from a file, by the name of a built-in one, or from a mapping.

    Models may be named as ``module:function``: in a file, of modules that lie beside it or in one of the plug-ins.

    Args:
        source: The suite.
        profile: One of its ``profiles``.
        plugins: Identities of plug-ins whose detectors, attacks and corruptions join a suite that names none of them.

    Raises:
        GauntletError: It does not exist or is wrong somewhere; the message says where.
    """
    if isinstance(source, Mapping):
        text = yaml.safe_dump(plain(source), sort_keys=False)
        return parse_suite(text, where="suite", profile=profile, plugins=plugins)
    if (path := Path(source)).is_file():
        if (folder := path.resolve().parent) not in map(Path, sys.path):
            sys.path.append(str(folder))
        text, own = _read(path), path.stem
        return parse_suite(text, where=str(path), profile=profile, fallback=own, plugins=plugins, folder=folder)
    text, own = _builtin(str(source)), str(source)
    suite = parse_suite(text, where=f"{own}.yaml", profile=profile, fallback=own, plugins=plugins)
    return suite.model_copy(update={"notes": ()})  # what a built-in suite says is meant


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise GauntletError(f"Suite {path} is not UTF-8 text.") from None
    except OSError as error:
        raise GauntletError(f"Suite {path} cannot be read: {error.strerror}.") from None


def _builtin(name: str) -> str:
    known = builtin_suites()
    if name in known:
        return known[name]
    if name.endswith((".yaml", ".yml")):
        raise GauntletError(f"There is no suite file {name}.")
    raise GauntletError(f"Unknown suite {name!r}; {nearest(name, known)}")


def parse_suite(
    text: str,
    *,
    where: str,
    profile: str | None = None,
    fallback: str = "suite",
    plugins: Sequence[str] = (),
    folder: Path | None = None,
) -> Suite:
    """Check the YAML text of a suite; ``where`` names it in messages, ``fallback`` is its name if it has none.

    One that was read from a ``folder`` names functions only of modules in it and of the ``plugins``.

    Raises:
        GauntletError: Something is wrong; all that is wrong is told, a line each.
    """
    content, marks = read_yaml(text, where)
    if not isinstance(content, dict):
        raise GauntletError(f"{where}: a suite is a mapping of keys (datasets, models, ...), got {_kind(content)}.")
    content = _apply_profile(content, profile, where)
    reading = Reading(where, marks, unnamed(content, plugins))
    with reading.collecting("protocol"):
        content = with_protocol(content)
    for key in [key for key in content if key not in KEYS]:
        del content[key]
        reading.problems.append(GauntletError(f"{reading.at(key)}: {unknown_key(str(key), KEYS)}"))
    modules = None if folder is None else nameable(texts(content), folder, plugins)
    text = text if profile is None else f"# profile: {profile}\n{text}"
    of_the_file = {"text": text, "where": where, "marks": marks, "modules": modules}
    given = {**content, **of_the_file, "name": content.get("name") or fallback}
    try:
        with naming(modules):
            suite = Suite.model_validate(given, context=reading)
    except ValidationError as error:
        reading.problems += [GauntletError(one) for one in describe(error, marks, where)]
        reading.check()
        raise
    return _completed(suite, reading, tuple(_notes(suite, content.get("seeds"))))


def _completed(suite: Suite, reading: Reading, notes: tuple[str, ...]) -> Suite:
    """The suite with the evaluators that follow from what it gives, and with its models, if nothing is wrong."""
    detectors = suite.detectors if suite.tune is None else tuned_labels(suite.detectors, suite.tune.oracle)
    update = {"detectors": detectors, "left_out": reading.left_out, "notes": notes}
    suite = suite.model_copy(update=update)
    if not suite.evaluators:
        by_default = {entry.name: entry.meta.get("default_with") for entry in EVALUATORS}
        given = [name for name, keys in by_default.items() if keys is not None and all(map(suite.gives, keys))]
        suite = suite.model_copy(update={"evaluators": tuple(name for name in in_order() if name in given)})
    crossing = {name for name, _ in suite.cross} | {*suite.evaluators}
    suite = suite.model_copy(update={"evaluators": tuple(name for name in in_order() if name in crossing)})
    suite.__dict__["model_specs"] = reading.models
    if not reading.problems:
        reading.problems += [GauntletError(one) for one in _lacking(suite)]
    reading.check()
    return suite


def _lacking(suite: Suite) -> Iterator[str]:
    """Keys that belong together, of which one is absent."""
    for name in suite.evaluators:
        for key in EVALUATORS.get(name).meta.get("needs_keys", ()):
            if not suite.gives(key):
                yield f"{suite.where}: the evaluator {name!r} needs the key {key!r}."
    for name, axis in suite.cross:
        if not suite.gives(axis):
            yield f"{suite.at('cross')}: [{name}, {axis}] needs the key {axis!r}."
    if suite.detectors and not suite.gives("ood") and "detectors" not in suite.keys_read:
        yield f"{suite.at('detectors')}: detectors need OOD sets: name some under `ood:`."
    if suite.ood and not suite.detectors and "ood" not in suite.keys_read:
        yield f"{suite.at('ood')}: OOD sets need detectors: name some under `detectors:`."


def _notes(suite: Suite, seeds: Any) -> Iterator[str]:
    """What may not be meant as it is written."""
    if isinstance(seeds, int) and seeds > 0:
        several = list(range(min(seeds, 10)))
        yield f"{suite.at('seeds')}: `seeds: {seeds}` is one seed, the number {seeds}; {len(several)} are {several}."
    from ..attacks.function import norm_of

    if not any(norm_of(attack.entry, attack.parameters) == "linf" for attack in suite.attacks):
        return
    for value in suite.budgets("linf"):
        if value is not None and value > 1:
            yield (
                f"{suite.at('epsilons')}: the Linf epsilon {value:g} spans all images: pixels lie in [0, 1]; "
                f"did you mean {value:g}/255?"
            )


def parse_epsilons(values: Sequence[float | str], where: str) -> tuple[Epsilon, ...]:
    """Numbers or fractions such as ``8/255``, each finite and >= 0, or the word ``minimal``.

    Raises:
        GauntletError: One is none of these; ``where`` begins the message.
    """
    reading = Reading(where, {})
    found = reading.budgets(values)
    reading.check()
    return found


def _apply_profile(content: dict[Any, Any], profile: str | None, where: str) -> dict[Any, Any]:
    if profile is None:
        return {**content}
    profiles = content.get("profiles") or {}
    if not isinstance(profiles, dict) or profile not in profiles:
        raise GauntletError(f"{where} has no profile {profile!r}; {nearest(profile, map(str, profiles))}")
    return {**content, **(profiles[profile] or {})}


def _kind(content: Any) -> str:
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(content), type(content).__name__)
