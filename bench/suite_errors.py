"""What pydantic finds wrong in a suite, as one sentence with file, line and column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ..registry import nearest


def describe(error: ValidationError, marks: Mapping[tuple[Any, ...], str], where: str) -> list[str]:
    """The first problem of each key or list item in one sentence, with its place."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for problem in error.errors():
        key, *rest = problem["loc"]
        item = rest[0] if rest and isinstance(rest[0], int) else None
        groups.setdefault((key, item), []).append(problem)
    return [_sentence(_fitting(problems), marks, where) for problems in groups.values()]


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What is wrong with a key that suites do not have, and what would be right."""
    from ..datasets import OPTIONS

    if key in OPTIONS:
        return f"unknown key {key!r}; it is an option of a dataset: write {{NAME: {{{key}: ...}}}} under `datasets:`."
    return f"unknown key {key!r}; {nearest(key, known)}"


def _sentence(problem: Any, marks: Mapping[tuple[Any, ...], str], where: str) -> str:
    path: tuple[Any, ...] = ()
    for part in problem["loc"]:  # without what pydantic puts in: the alternatives of a type
        path = (*path, part) if (*path, part) in marks else path
    place, key = marks.get(path, where), str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return f"{place}: {key!r} has no key {problem['loc'][-1]!r}."
    if problem["type"] == "missing":
        return f"{where}: the key {key!r} is missing."
    if problem["type"] == "too_short":
        return f"{place}: {key!r} is empty; name at least one, or leave the key out."
    if problem["loc"][-1] == "[key]":
        wrong, allowed = str(problem["loc"][-2]), re.findall("'([^']+)'", problem.get("ctx", {}).get("expected", ""))
        if not allowed:
            return f"{place}: {key!r}: the key {wrong} must be text."
        return f"{place}: {key!r} has no key {wrong!r}; {nearest(wrong, allowed)}"
    if problem["type"] == "list_type" and len(path) > 1:
        return f"{place}: {key!r}: {path[-1]!r} must be a list, such as [{problem['input']}]."
    got = f", got {problem['input']!r}" if not isinstance(problem["input"], (dict, list)) else ""
    return f"{place}: {key!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}{got}."


def _fitting(problems: Sequence[Any]) -> Any:
    """The first problem; of a key that takes a list or a mapping, the first about the one of them that was given."""
    first = problems[0]
    if not isinstance(first["input"], dict) or len(first["loc"]) != 2:
        return first
    inside = [other for other in problems if other["loc"][0] == first["loc"][0] and len(other["loc"]) > 2]
    return next((other for other in inside if str(other["loc"][1]).startswith("dict[")), first)
