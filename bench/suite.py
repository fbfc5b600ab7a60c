"""Suites: YAML files that select from every registry, checked with line and column."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..registry import (
    ATTACKS,
    CORRUPTIONS,
    DETECTORS,
    EVALUATORS,
    Entry,
    GauntletError,
    NotAvailable,
    Registry,
    Selected,
    check_unique,
    left_out,
    nearest,
    parse_spec,
    select,
    select_one,
)
from .suite_errors import describe
from .suite_yaml import plain, read_yaml
from .tuning import tuned_labels

if TYPE_CHECKING:
    from .model_specs import ModelSpec

Spec = str | dict[str, Any]

#: A budget; ``None`` stands for ``minimal``, the smallest that succeeds.
Epsilon = float | None

Norm = Literal["linf", "l2", "l1", "l0"]
Cost = Literal["fast", "standard", "full"]
Count = Annotated[int, Field(ge=1)]

#: Budgets of attacks in suites that name none. Linf 0.3, L2 1.5 and L0 12 are those of Schott et al. 2018.
DEFAULT_EPSILONS: Mapping[str, tuple[Epsilon, ...]] = {
    "linf": (0.03, 0.1, 0.3),
    "l2": (0.5, 1.5, 3.0),
    "l1": (5.0, 15.0, 40.0),
    "l0": (4.0, 12.0, 30.0),
}

#: Option of a dataset: each of its classes, or each of a list, is held out in turn (leave one class out).
LEAVE_OUT = "leave_out"


class TuneFile(BaseModel):
    """The key ``tune`` of a suite file."""

    model_config = ConfigDict(extra="forbid")

    outliers: Spec = "validation-outliers"
    oracle: bool = False


class SuiteFile(BaseModel):
    """The keys of a suite file."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    summary: str = ""
    datasets: list[Spec] = Field(min_length=1)
    models: list[Spec] = Field(min_length=1)
    recipe: Spec = "standard"
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    evaluators: list[str] | None = Field(default=None, min_length=1)
    attacks: list[Spec] | None = Field(default=None, min_length=1)
    epsilons: list[float | str] | dict[Norm, list[float | str]] | None = Field(default=None, min_length=1)
    attack_images: Count | dict[Cost, Count] = 1000
    worst_case: bool | dict[Norm, list[str]] = True
    checks: Literal["none", "standard", "full"] = "standard"
    detectors: list[Spec] | None = Field(default=None, min_length=1)
    ood: list[Spec] | dict[str, list[Spec]] | None = None
    shifted: list[Spec] = Field(default_factory=list)
    corruptions: list[Spec] | None = Field(default=None, min_length=1)
    severities: list[Annotated[int, Field(ge=1, le=5)]] | None = Field(default=None, min_length=1)
    false_alarm_rates: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default=[0.05], min_length=1)
    tune: TuneFile | None = None
    feature_dim: int = Field(default=2048, ge=1)
    fit_limit: int = Field(default=20_000, ge=1)
    batch_size: int = Field(default=512, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    examples: int = Field(default=0, ge=0, le=100)
    drift: list[dict[str, Any]] = Field(default_factory=list)
    profiles: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("tune", mode="before")
    @classmethod
    def _yes_is_the_default(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @field_validator(
        "datasets", "models", "attacks", "detectors", "ood", "shifted", "corruptions", "evaluators", mode="before"
    )
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("seeds", "epsilons", "severities", "false_alarm_rates", mode="before")
    @classmethod
    def _one_number_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, (int, float, str)) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Tune:
    """How detectors are tuned: on which OOD set, and whether that may be a test set."""

    outliers: Spec
    oracle: bool = False


@dataclass(frozen=True)
class Suite:
    """A checked suite.

    ``ood`` holds (group, spec) pairs; ``text`` is the YAML as read, kept with every run; ``left_out`` are components
    that its patterns cannot pick, with the reason.
    """

    name: str
    summary: str
    text: str
    where: str
    datasets: tuple[Spec, ...]
    models: tuple[Spec, ...]
    recipe: Spec
    seeds: tuple[int, ...]
    evaluators: tuple[str, ...]
    attacks: tuple[Selected, ...] = ()
    epsilons: tuple[Epsilon, ...] = ()
    norm_epsilons: Mapping[str, tuple[Epsilon, ...]] = field(default_factory=dict)
    attack_images: int | Mapping[str, int] = 1000
    worst_case: bool | Mapping[str, Sequence[str]] = True
    checks: str = "standard"
    detectors: tuple[Selected, ...] = ()
    ood: tuple[tuple[str, Spec], ...] = ()
    shifted: tuple[Spec, ...] = ()
    corruptions: tuple[Selected, ...] = ()
    severities: tuple[int, ...] = ()
    false_alarm_rates: tuple[float, ...] = (0.05,)
    tune: Tune | None = None
    feature_dim: int = 2048
    fit_limit: int = 20_000
    batch_size: int = 512
    timeout: float | None = None
    examples: int = 0
    drift: tuple[Mapping[str, Any], ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[tuple[Any, ...], str] = field(default_factory=dict)

    def budgets(self, norm: str) -> tuple[Epsilon, ...]:
        """Epsilons of attacks in a norm: the suite's, or else the defaults of the norm."""
        return self.norm_epsilons.get(norm) or self.epsilons or DEFAULT_EPSILONS.get(norm, (None,))

    def images_for(self, cost: str) -> int:
        """How many images an attack of a cost class (``fast``, ``standard``, ``full``) gets."""
        if isinstance(self.attack_images, int):
            return self.attack_images
        return self.attack_images.get(cost) or min(self.attack_images.values())

    def gives(self, key: str) -> bool:
        """Whether it says something under a key; a dataset that leaves classes out in turn gives OOD sets."""
        if key == "ood":
            return bool(self.ood) or _leaves_out(self)
        if key == "epsilons":
            return bool(self.epsilons or self.norm_epsilons)
        return self.checks != "none" if key == "checks" else bool(getattr(self, key, None))

    @property
    def keys_read(self) -> set[str]:
        """The keys that its evaluators read."""
        return {key for name in self.evaluators for key in _keys(EVALUATORS.get(name))}

    @property
    def unread(self) -> Iterator[str]:
        """Keys that it gives and that none of its evaluators reads, one sentence each."""
        for key in sorted({key for entry in EVALUATORS for key in _keys(entry)} - self.keys_read):
            if (key,) in self.marks and self.gives(key):
                readers = ", ".join(entry.name for entry in EVALUATORS if key in _keys(entry))
                yield f"{self.at(key)}: nothing in this suite uses {key!r}; evaluators that do: {readers}."

    @cached_property
    def model_specs(self) -> list[ModelSpec]:
        """The models, resolved once for all that ask (the plan, surrogates, checks).

        Raises:
            GauntletError: A name, parameter or option is wrong, or two labels are equal.
        """
        from .model_specs import resolve_models

        return resolve_models(self.models, self.recipe, self.locating)

    def at(self, *path: Any) -> str:
        """``file:line:column`` of a key or list item, for messages."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, self.where)

    @contextmanager
    def locating(self, *path: Any) -> Iterator[None]:
        """Put ``file:line:column`` of a key or list item before the message of an error in the block."""
        try:
            yield
        except GauntletError as error:
            raise type(error)(f"{self.at(*path)}: {error}") from None


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


def load_suite(source: str | Path | Mapping[str, Any], *, profile: str | None = None) -> Suite:
    """Read a suite from a file, by the name of a built-in one, or from a mapping.

    Raises:
        GauntletError: It does not exist or is wrong somewhere; the message says where.
    """
    if isinstance(source, Mapping):
        return parse_suite(yaml.safe_dump(plain(source), sort_keys=False), where="suite", profile=profile)
    path = Path(source)
    if path.is_file():
        try:
            return parse_suite(path.read_text(encoding="utf-8"), where=str(path), profile=profile, fallback=path.stem)
        except UnicodeDecodeError:
            raise GauntletError(f"Suite {path} is not UTF-8 text.") from None
        except OSError as error:
            raise GauntletError(f"Suite {path} cannot be read: {error.strerror}.") from None
    known = builtin_suites()
    if str(source) not in known:
        if path.suffix in (".yaml", ".yml"):
            raise GauntletError(f"There is no suite file {source}.")
        raise GauntletError(f"Unknown suite {str(source)!r}; {nearest(str(source), known)}")
    return parse_suite(known[str(source)], where=f"{source}.yaml", profile=profile, fallback=str(source))


def parse_suite(text: str, *, where: str, profile: str | None = None, fallback: str = "suite") -> Suite:
    """Check the YAML text of a suite; ``where`` names it in messages."""
    content, marks = read_yaml(text, where)
    if not isinstance(content, dict):
        raise GauntletError(f"{where}: a suite is a mapping of keys (datasets, models, ...), got {_kind(content)}.")
    content = _apply_profile(content, profile, where)
    try:
        checked = SuiteFile.model_validate(content)
    except ValidationError as error:
        raise GauntletError(describe(error, list(SuiteFile.model_fields), marks, where)) from None
    draft = Suite(
        name=checked.name or fallback,
        summary=checked.summary,
        text=text if profile is None else f"# profile: {profile}\n{text}",
        where=where,
        datasets=tuple(checked.datasets),
        models=tuple(checked.models),
        recipe=checked.recipe,
        seeds=tuple(dict.fromkeys(checked.seeds)),
        evaluators=(),
        attack_images=_per_cost(checked.attack_images),
        worst_case=_per_norm(checked.worst_case),
        checks=checked.checks,
        shifted=tuple(checked.shifted),
        severities=tuple(sorted(set(checked.severities or ()))),
        false_alarm_rates=tuple(dict.fromkeys(checked.false_alarm_rates)),
        tune=None if checked.tune is None else Tune(checked.tune.outliers, checked.tune.oracle),
        feature_dim=checked.feature_dim,
        fit_limit=checked.fit_limit,
        batch_size=checked.batch_size,
        timeout=checked.timeout,
        examples=checked.examples,
        drift=_drift(checked.drift, marks, where),
        marks=marks,
    )
    detectors = _axis(draft, DETECTORS, "detectors", checked.detectors)
    changes = {
        "attacks": _axis(draft, ATTACKS, "attacks", checked.attacks, options=("epsilons", "detach_target")),
        **_budgets(checked.epsilons, draft),
        "detectors": detectors,
        "corruptions": _axis(draft, CORRUPTIONS, "corruptions", checked.corruptions),
        "ood": _groups(checked.ood),
        "left_out": {
            **(left_out(ATTACKS, checked.attacks) if checked.attacks else {}),
            **(left_out(DETECTORS, checked.detectors) if checked.detectors else {}),
            **(left_out(CORRUPTIONS, checked.corruptions) if checked.corruptions else {}),
        },
    }
    if draft.tune is not None:
        changes["detectors"] = tuned_labels(detectors, draft.tune.oracle)
    return _complete(_with_evaluators(Suite(**{**draft.__dict__, **changes}), checked.evaluators))


def parse_epsilons(values: Sequence[float | str], where: str) -> tuple[Epsilon, ...]:
    """Numbers or fractions such as ``8/255``, each finite and >= 0, or the word ``minimal``."""
    return tuple(dict.fromkeys(_epsilon(value, where) for value in values))


def _budgets(given: Sequence[float | str] | Mapping[Any, Sequence[float | str]] | None, suite: Suite) -> dict[str, Any]:
    def parsed(values: Sequence[float | str], *path: str) -> tuple[Epsilon, ...]:
        each = (_epsilon(value, suite.at(*path, position)) for position, value in enumerate(values))
        return tuple(dict.fromkeys(each))

    if isinstance(given, Mapping):
        return {"norm_epsilons": {norm: parsed(values, "epsilons", norm) for norm, values in given.items()}}
    return {"epsilons": parsed(given or (), "epsilons")}


def _per_norm(given: bool | Mapping[Any, Sequence[str]]) -> bool | Mapping[str, Sequence[str]]:
    return given if isinstance(given, bool) else {str(norm): tuple(labels) for norm, labels in given.items()}


def _per_cost(given: int | Mapping[Any, int]) -> int | Mapping[str, int]:
    return given if isinstance(given, int) else {str(cost): count for cost, count in given.items()}


def _epsilon(value: float | str, where: str) -> Epsilon:
    if value == "minimal":
        return None
    try:
        number = float(Fraction(value.strip())) if isinstance(value, str) and "/" in value else float(value)
    except (ValueError, ZeroDivisionError):
        raise GauntletError(
            f"{where}: epsilon {value!r} is not a number, a fraction such as 8/255, or minimal."
        ) from None
    if not math.isfinite(number) or number < 0:
        raise GauntletError(f"{where}: epsilon must be a finite number >= 0, got {value}.")
    return number


def _drift(rules: Sequence[Mapping[str, Any]], marks: Mapping[Any, str], where: str) -> tuple[Mapping[str, Any], ...]:
    from ..results.tolerance import parse_rules

    for position, rule in enumerate(rules):
        parse_rules([rule], marks.get(("drift", position), where))
    return tuple(rules)


def _axis(
    suite: Suite, registry: Registry, key: str, specs: Sequence[Spec] | None, options: tuple[str, ...] = ()
) -> tuple[Selected, ...]:
    if specs is None:
        return ()
    for position, spec in enumerate(specs):  # one by one first, so that a message has the line of its item
        with suite.locating(key, position):
            _constructed(select(registry, [spec], options=options))
    try:
        chosen = select(registry, specs, options=options)
    except GauntletError:  # two labels are equal: the line is that of the second
        for position in range(len(specs)):
            with suite.locating(key, position):
                select(registry, specs[: position + 1], options=options)
        raise
    return (*chosen, *_from_plugins(registry, chosen))


def _constructed(chosen: Sequence[Selected]) -> None:
    """Build attacks and detectors that were given parameters: what these refuse is wrong before anything is trained."""
    from ..attacks import build_attack
    from ..detectors import build_detector

    for selected in chosen:
        if not selected.parameters or selected.entry.kind not in ("attack", "detector"):
            continue
        try:
            if selected.entry.kind == "detector":
                build_detector(selected)
            else:
                build_attack(selected.entry, selected.parameters)
        except NotAvailable:
            continue  # its cells are skipped
        except GauntletError:
            raise
        except Exception:  # of any kind: a plug-in fails with its own cells, and its traceback
            continue


def _from_plugins(registry: Registry, chosen: Sequence[Selected]) -> list[Selected]:
    """What the user's plug-ins registered joins the axis, so that one option adds a detector to a leaderboard."""
    named = {selected.entry.name for selected in chosen}
    return [
        select_one(registry, entry.name)
        for entry in registry
        if entry.plugin and entry.name not in named and not entry.lacks(registry.supplied)
    ]


def _groups(ood: Sequence[Spec] | Mapping[str, Sequence[Spec]] | None) -> tuple[tuple[str, Spec], ...]:
    if ood is None:
        return ()
    groups = ood if isinstance(ood, Mapping) else {"": ood}
    return tuple((group, spec) for group, specs in groups.items() for spec in specs)


def _with_evaluators(suite: Suite, named: Sequence[str] | None) -> Suite:
    """The suite with the evaluators that it names, or else those for what it gives, in the order in which they run."""
    known = sorted(EVALUATORS, key=lambda entry: entry.meta["order"])
    for position, name in enumerate(named or ()):
        if name not in EVALUATORS:
            where, names = suite.at("evaluators", position), [entry.name for entry in known]
            raise GauntletError(f"{where}: unknown evaluator {name!r}; {nearest(name, names)}")
    wanted = [entry.name for entry in known if _given(suite, entry)] if named is None else named
    return replace(suite, evaluators=tuple(entry.name for entry in known if entry.name in wanted))


def _given(suite: Suite, entry: Entry) -> bool:
    """Whether a suite that names no evaluators has this one."""
    keys = entry.meta.get("default_with")
    return keys is not None and all(map(suite.gives, keys))


def _keys(entry: Entry) -> tuple[str, ...]:
    """The keys of a suite that an evaluator reads."""
    return (*entry.meta.get("needs_keys", ()), *entry.meta.get("reads", ()))


def _leaves_out(suite: Suite) -> bool:
    """Whether a dataset holds out classes in turn, which are then its OOD sets."""
    return any(LEAVE_OUT in parse_spec(spec, "dataset")[1] for spec in suite.datasets if not isinstance(spec, str))


def _complete(suite: Suite) -> Suite:
    for name in suite.evaluators:
        for key in EVALUATORS.get(name).meta.get("needs_keys", ()):
            if not suite.gives(key):
                raise GauntletError(f"{suite.where}: the evaluator {name!r} needs the key {key!r}.")
    if suite.detectors and not suite.gives("ood") and "detectors" not in suite.keys_read:
        raise GauntletError(f"{suite.at('detectors')}: detectors need OOD sets: name some under `ood:`.")
    if suite.ood and not suite.detectors and "ood" not in suite.keys_read:
        raise GauntletError(f"{suite.at('ood')}: OOD sets need detectors: name some under `detectors:`.")
    return suite


def _apply_profile(content: dict[Any, Any], profile: str | None, where: str) -> dict[Any, Any]:
    if profile is None:
        return content
    profiles = content.get("profiles") or {}
    if not isinstance(profiles, dict) or profile not in profiles:
        raise GauntletError(f"{where} has no profile {profile!r}; {nearest(profile, map(str, profiles))}")
    return {**content, **(profiles[profile] or {})}


def _kind(content: Any) -> str:
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(content), type(content).__name__)
