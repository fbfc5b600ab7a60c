"""From what a suite says (names, parameters, globs, tags) to entries with checked parameters and labels."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .entry import Entry
from .errors import GauntletError, nearest
from .registry import Registry, is_pattern


@dataclass(frozen=True)
class Selected:
    """An entry chosen by a suite, under a label, with parameters (checked, without defaults) and other options."""

    entry: Entry
    label: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads of the data: its entry's needs, unless its class tells them from the parameters."""
        told = getattr(self.entry.factory, "needs_of", None)
        return self.entry.needs if told is None else told({**self.entry.defaults(), **self.parameters})

    @property
    def parts(self) -> list[Selected]:
        """The components that its class makes of its parameters, where it is made of others."""
        told = getattr(self.entry.factory, "parts", None) if self.entry.kind == "detector" else None
        return [] if told is None else told({**self.entry.defaults(), **self.parameters})


def parse_spec(spec: Any, kind: str) -> tuple[str, dict[str, Any]]:
    """Read one of the three spellings ``pgd``, ``{pgd: {steps: 100}}``, ``{name: pgd, steps: 100, label: PGD-100}``.

    Returns:
        The name and everything else that was said (parameters, label and options, still mixed).

    Raises:
        GauntletError: It is neither a name nor a mapping of one name.
    """
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and "name" in spec:
        if not isinstance(spec["name"], str):
            raise GauntletError(f"The name of the {kind} must be text, got {spec['name']!r}.")
        return spec["name"], {str(key): value for key, value in spec.items() if key != "name"}
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, values),) = spec.items()
        if values is None:
            values = {}
        if isinstance(name, str) and isinstance(values, Mapping):
            return name, {str(key): value for key, value in values.items()}
    raise GauntletError(
        f"Cannot read the {kind} {spec!r}: write NAME, {{NAME: {{parameter: value}}}} or "
        "{name: NAME, parameter: value}."
    )


def select_one(
    registry: Registry, spec: Any, *, options: Iterable[str] = (), hints: Mapping[str, str] | None = None
) -> Selected:
    """Resolve one spec to an entry.

    Args:
        registry: Where to look.
        spec: See :func:`parse_spec`.
        options: Keys that are not parameters of the entry.
        hints: Ends of the message about keys that are neither, in place of the nearest one.

    Raises:
        GauntletError: A name or key is unknown, a value is of another type, or a parameter has no value.
    """
    name, values = parse_spec(spec, registry.kind)
    entry = registry.get(name)
    if (key := next((key for key in registry.wrappers if key in values and not entry.has(key)), None)) is not None:
        return select_one(registry, _wrapped(registry, name, values, key), options=options, hints=hints)
    label = values.pop("label", None)
    if label is not None and (not isinstance(label, str) or not label.strip()):
        raise GauntletError(f"The label of {registry.kind} {name!r} must be non-empty text, got {label!r}.")
    allowed = set(options)
    extra = {key: values.pop(key) for key in list(values) if key in allowed and not entry.has(key)}
    for key in values:
        if allowed and not entry.has(key) and not entry.open:
            known = [*(parameter.name for parameter in entry.parameters), *sorted(allowed), "label"]
            hint = (hints or {}).get(key) or nearest(key, known)
            raise GauntletError(f"{registry.kind} {name!r} has no parameter {key!r}; {hint}")
    checked = entry.check(values)
    entry.require({*checked, *registry.supplied})
    return Selected(entry, label or default_label(name, checked), checked, extra)


def _wrapped(registry: Registry, name: str, values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """``{name: {key: x, ...}}`` as the spec of the component around it that ``key`` asks for."""
    inner = {"name": name, **{other: value for other, value in values.items() if other not in (key, "label")}}
    label = values.get("label", default_label(name, values))
    return {"name": registry.wrappers[key], registry.kind: inner, key: values[key], "label": label}


def select(
    registry: Registry,
    specs: Iterable[Any],
    *,
    options: Iterable[str] = (),
    hints: Mapping[str, str] | None = None,
) -> list[Selected]:
    """Resolve names, specs and patterns, in order.

    A pattern never picks what is already there, nor, beside others, what cannot do without a value for a parameter
    (see :func:`left_out`).

    Raises:
        GauntletError: A name or parameter is unknown, a parameter has no value, a pattern picks nothing, or two
            labels are the same.
    """
    specs = list(specs)
    named = [spec for spec in specs if not (isinstance(spec, str) and is_pattern(spec))]
    chosen = {id(spec): select_one(registry, spec, options=options, hints=hints) for spec in named}
    taken = {selected.entry.name for selected in chosen.values()}
    result: list[Selected] = []
    for spec in specs:
        if not (isinstance(spec, str) and is_pattern(spec)):
            result.append(chosen[id(spec)])
            continue
        entries = registry.match(spec)
        if not entries:
            raise GauntletError(
                f"No {registry.kind} matches {spec!r}; `gauntlet list {registry.kind}s` shows them all."
            )
        fresh = [entry for entry in entries if entry.name not in taken]
        complete = [entry for entry in fresh if not entry.lacks(registry.supplied)] or fresh
        taken.update(entry.name for entry in complete)
        result.extend(select_one(registry, entry.name) for entry in complete)
    check_unique((selected.label for selected in result), registry.kind)
    return result


def left_out(registry: Registry, specs: Iterable[Any], joining: Container[str] = ()) -> dict[str, str]:
    """Entries skipped because a required parameter has no value, with the reason.

    Args:
        registry: Where to look.
        specs: Those of a suite; its patterns skip such entries.
        joining: Plug-ins whose entries join without being named.
    """
    specs = list(specs)
    patterns = [spec for spec in specs if isinstance(spec, str) and is_pattern(spec)]
    named = {registry.get(parse_spec(spec, registry.kind)[0]).name for spec in specs if spec not in patterns}
    picked = [entry for spec in patterns for entry in registry.match(spec)]
    picked += [entry for entry in registry if entry.plugin in joining]
    reasons = {entry.name: entry.lacks(registry.supplied) for entry in picked if entry.name not in named}
    return {name: reason for name, reason in reasons.items() if reason}


def check_unique(labels: Iterable[str], kind: str) -> None:
    """Raise if a label occurs twice: rows are told apart by their labels.

    Raises:
        GauntletError: Two have the same label.
    """
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise GauntletError(f"Two {kind}s have the label {label!r}; give one of them another `label:`.")
        seen.add(label)


def default_label(name: str, parameters: Mapping[str, Any]) -> str:
    """The name, followed by the parameters that were given."""
    given = [f"{key}={_short(value)}" for key, value in parameters.items()]
    return " ".join([name, *given])


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "+".join(_short(item) for item in value)
    if isinstance(value, Mapping):
        return str(value.get("label") or value.get("name") or next(iter(value), ""))
    return f"{value:g}" if isinstance(value, float) else str(value)
