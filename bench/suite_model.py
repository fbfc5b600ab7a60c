"""What a suite says, checked: the keys of its file, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ..registry import ATTACKS, CORRUPTIONS, DETECTORS, EVALUATORS, Entry, GauntletError, Selected, parse_spec
from .suite_axes import ATTACK_OPTIONS, LEAVE_OUT, Epsilon, Reading, Spec

if TYPE_CHECKING:
    from .model_specs import ModelSpec

Norm = Literal["linf", "l2", "l1", "l0"]
Cost = Literal["fast", "standard", "full"]
Count = Annotated[int, Field(ge=1)]

#: Keys that whoever is crossed with an axis reads.
_OF_AXIS = {"attacks": ("attacks", "epsilons", "attack_images"), "corruptions": ("corruptions", "severities")}

#: Budgets of attacks in suites that name none. Linf 0.3, L2 1.5 and L0 12 are those of Schott et al. 2018.
DEFAULT_EPSILONS: Mapping[str, tuple[Epsilon, ...]] = {
    "linf": (0.03, 0.1, 0.3),
    "l2": (0.5, 1.5, 3.0),
    "l1": (5.0, 15.0, 40.0),
    "l0": (4.0, 12.0, 30.0),
}


def _listed(value: Any) -> Any:
    """One name is a list of one."""
    return [value] if isinstance(value, str) else value


def _numbers(value: Any) -> Any:
    """One number is a list of one."""
    return [value] if isinstance(value, (int, float, str)) and not isinstance(value, bool) else value


def _once(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _reading(info: ValidationInfo) -> Reading:
    reading: Any = info.context
    return reading


def _grouped(ood: Sequence[Spec] | Mapping[str, Sequence[Spec]] | None) -> tuple[tuple[str, Spec], ...]:
    groups = ood if isinstance(ood, Mapping) else {"": ood or ()}
    return tuple((group, spec) for group, specs in groups.items() for spec in specs)


if TYPE_CHECKING:  # what readers get
    Specs = tuple[Spec, ...]
    Axis = tuple[Selected, ...]
    Groups = tuple[tuple[str, Spec], ...]
    Names = tuple[str, ...]
    Seeds = tuple[int, ...]
    Rates = tuple[float, ...]
    Miscoverages = tuple[float, ...]
    Severities = tuple[int, ...]
    Budgets = tuple[Epsilon, ...] | Mapping[str, tuple[Epsilon, ...]]
    Rules = tuple[Mapping[str, Any], ...]
    Crosses = tuple[tuple[str, str], ...]
else:  # what a file may hold, and what becomes of it; the validators of Suite do the rest
    Specs = Annotated[list[Spec], BeforeValidator(_listed), AfterValidator(tuple)]
    Some = Annotated[list[Spec], Field(min_length=1)]
    Axis = Annotated[Some | None, BeforeValidator(_listed)]
    Groups = Annotated[list[Spec] | dict[str, list[Spec]] | None, BeforeValidator(_listed), AfterValidator(_grouped)]
    Names = Annotated[Annotated[list[str], Field(min_length=1)] | None, BeforeValidator(_listed)]
    Seeds = Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_numbers), AfterValidator(_once)]
    Rates = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], BeforeValidator(_numbers), AfterValidator(_once)]
    Miscoverages = Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], BeforeValidator(_numbers), AfterValidator(_once)
    ]
    Severities = Annotated[
        Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=1)] | None,
        BeforeValidator(_numbers),
        AfterValidator(lambda values: tuple(sorted(set(values or ())))),
    ]
    Budgets = Annotated[
        Annotated[list[float | str], Field(min_length=1)]
        | Annotated[dict[Norm, list[float | str]], Field(min_length=1)]
        | None,
        BeforeValidator(_numbers),
    ]
    Rules = list[dict[str, Any]]
    Crosses = list[Annotated[list[str], Field(min_length=2, max_length=2)]]


class Tune(BaseModel):
    """How detectors are tuned: on which OOD set, and whether that may be a test set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outliers: Spec = "validation-outliers"
    oracle: bool = False


class Suite(BaseModel):
    """A checked suite: the keys of its file, and what is known of the file itself.

    Attributes:
        name: Of the suite, in the store and on the page; the file's name if it has none.
        summary: What it measures, in a sentence.
        protocol: One of the field's, which gives data sets, OOD sets, shifted sets or attacks (``bench.protocols``).
        datasets: In-distribution data sets, for training and evaluation: names, or ``{name: parameters}``.
        models: Networks, each a row of the tables for every data set and seed.
        recipe: How models that name no recipe themselves are trained; without it Gauntlet's own are, by ``standard``.
        seeds: Of trainings and draws; each is a run of its own: ``[0, 1, 2]``.
        evaluators: What is measured; by default whatever the other keys allow.
        attacks: Names, globs (``foolbox/l2/*``), ``tag:white-box``, ``norm:linf``, or ``{name: parameters}``.
        epsilons: Budgets in units in which pixels span [0, 1], of all norms or by norm; ``8/255`` is a number.
        attack_images: How many test images are attacked, a fixed random subset; also by the cost of attacks.
        worst_case: Whether images count that survive every attack of a norm; or, by norm, which attacks.
        checks: Of robustness that may be an illusion: ``none``, ``standard``, ``full``.
        detectors: Scores of unusual images: names, globs, tags, or ``{name: parameters}``.
        ood: Out-of-distribution data sets, as a list or by group (``near``, ``far``); pairs (group, spec).
        shifted: Versions of the data sets on which accuracy and calibration are measured, too.
        corruptions: Corruptions of the test images.
        severities: Of corruptions, from 1 to 5.
        false_alarm_rates: Shares of in-distribution images that open-set decisions may turn away.
        cross: Pairs of axes that are measured together, such as ``[[detectors, attacks]]``.
        costs: What answering an error and an OOD image costs, where errors and OOD images are told together (SCOD).
        miscoverages: How often a conformal set may miss the true class.
        mce_min_count: Images that a bin must have to count in ``mce_min_count``.
        tune: Tunes what detectors leave open, on outliers that are no test set unless ``oracle: true``.
        oracle: Whether test images may have trained a model, or fitted or tuned its detectors; tables then say so.
        feature_dim: Features with more dimensions are projected to as many where a detector's cost grows with them.
        fit_limit: Most training images that detectors are fitted to.
        batch_size: Most images in one pass.
        timeout: Seconds that a job may take.
        examples: Images kept of each cell, for the page and plots.
        drift: Rules of the drift check: a metric or evaluator and its tolerance.
        profiles: Named changes of these keys, for ``--profile``.
        text: The YAML as read, kept with every run.
        where: The file, for messages.
        marks: ``file:line:column`` of every key and list item.
        left_out: Components that its patterns cannot pick, with the reason.
        notes: What may not be meant as it is written.
        modules: Those whose functions it may name as models; None for any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    summary: str = ""
    protocol: str | dict[str, Any] = ""
    datasets: Specs = Field(min_length=1)
    models: Specs = Field(min_length=1)
    recipe: Spec | None = Field(default=None, validate_default=True)
    seeds: Seeds = Field(default=(0,), min_length=1)
    evaluators: Names = ()
    attacks: Axis = ()
    epsilons: Budgets = ()
    attack_images: Count | dict[Cost, Count] = 1000
    worst_case: bool | dict[Norm, list[str]] = True
    checks: Literal["none", "standard", "full"] = "standard"
    detectors: Axis = ()
    ood: Groups = ()
    shifted: Specs = ()
    corruptions: Axis = ()
    severities: Severities = ()
    false_alarm_rates: Rates = Field(default=(0.05,), min_length=1)
    cross: Crosses = ()
    costs: dict[Literal["error", "ood"], Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    miscoverages: Miscoverages = Field(default=(0.1,), min_length=1)
    mce_min_count: int = Field(default=10, ge=1)
    tune: Tune | None = None
    oracle: bool = False
    feature_dim: int = Field(default=2048, ge=1)
    fit_limit: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=512, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    examples: int = Field(default=0, ge=0, le=100)
    drift: Rules = ()
    profiles: dict[str, dict[str, Any]] = Field(default_factory=dict)
    text: str
    where: str
    marks: dict[tuple[Any, ...], str]
    left_out: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    modules: frozenset[str] | None = None

    @field_validator("tune", mode="before")
    @classmethod
    def _yes_is_the_default(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @field_validator("attacks", "detectors", "corruptions", mode="after")
    @classmethod
    def _selected(cls, specs: Any, info: ValidationInfo) -> Any:
        reading = _reading(info)
        if info.field_name == "attacks":
            return reading.axis(ATTACKS, "attacks", specs, ATTACK_OPTIONS)
        registry = DETECTORS if info.field_name == "detectors" else CORRUPTIONS
        return reading.axis(registry, str(info.field_name), specs)

    @field_validator("datasets", "shifted", "ood", mode="after")
    @classmethod
    def _there(cls, specs: Any, info: ValidationInfo) -> Any:
        reading = _reading(info)
        reading.datasets(str(info.field_name), specs)
        return specs

    @field_validator("recipe", mode="after")
    @classmethod
    def _with_models(cls, recipe: Any, info: ValidationInfo) -> Any:
        reading = _reading(info)
        reading.resolve(info.data.get("models", ()), recipe)
        return recipe

    @field_validator("epsilons", mode="after")
    @classmethod
    def _parsed(cls, given: Any, info: ValidationInfo) -> Any:
        reading = _reading(info)
        if isinstance(given, Mapping):
            return {norm: reading.budgets(values, "epsilons", norm) for norm, values in given.items()}
        return reading.budgets(given or (), "epsilons")

    @field_validator("evaluators", mode="after")
    @classmethod
    def _known(cls, names: Any, info: ValidationInfo) -> Any:
        reading = _reading(info)
        return reading.evaluators(names or ())

    @field_validator("cross", mode="after")
    @classmethod
    def _crossed(cls, pairs: Any, info: ValidationInfo) -> Any:
        reading = _reading(info)
        return reading.crosses(pairs)

    @field_validator("drift", mode="after")
    @classmethod
    def _rules(cls, rules: Any, info: ValidationInfo) -> Any:
        reading = _reading(info)
        return reading.rules(rules)

    @property
    def norm_epsilons(self) -> Mapping[str, tuple[Epsilon, ...]]:
        """Epsilons by norm, where the suite gives them so."""
        return self.epsilons if isinstance(self.epsilons, Mapping) else {}

    def budgets(self, norm: str) -> tuple[Epsilon, ...]:
        """Epsilons of attacks in a norm: the suite's, or else the defaults of the norm."""
        given = self.epsilons.get(norm) if isinstance(self.epsilons, Mapping) else self.epsilons
        return given or DEFAULT_EPSILONS.get(norm, (None,))

    def images_for(self, cost: str) -> int:
        """How many images an attack of a cost class (``fast``, ``standard``, ``full``) gets."""
        if isinstance(self.attack_images, int):
            return self.attack_images
        by_cost: Any = self.attack_images
        return by_cost.get(cost) or min(by_cost.values())

    def gives(self, key: str) -> bool:
        """Whether it says something under a key; a dataset that leaves classes out in turn gives OOD sets."""
        if key == "ood":
            return bool(self.ood) or self._leaves_out
        return self.checks != "none" if key == "checks" else bool(getattr(self, key, None))

    @property
    def _leaves_out(self) -> bool:
        """Whether a dataset holds out classes in turn, which are then its OOD sets."""
        return any(LEAVE_OUT in parse_spec(spec, "dataset")[1] for spec in self.datasets if not isinstance(spec, str))

    @property
    def keys_read(self) -> set[str]:
        """The keys that its evaluators read."""
        read = {key for name in self.evaluators for key in keys_of(EVALUATORS.get(name))}
        return read.union(*(_OF_AXIS.get(axis, ()) for _, axis in self.cross))

    @property
    def unread(self) -> Iterator[str]:
        """Keys that it gives and that none of its evaluators reads, one sentence each."""
        for key in sorted({key for entry in EVALUATORS for key in keys_of(entry)} - self.keys_read):
            if (key,) in self.marks and self.gives(key):
                readers = ", ".join(entry.name for entry in EVALUATORS if key in keys_of(entry))
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


def keys_of(entry: Entry) -> tuple[str, ...]:
    """The keys of a suite that an evaluator reads."""
    return (*entry.meta.get("needs_keys", ()), *entry.meta.get("reads", ()))
