"""YAML of suites: read with the position of every key, and written from what Python holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..registry import GauntletError


def read_yaml(text: str, where: str) -> tuple[Any, dict[tuple[Any, ...], str]]:
    """The content of a YAML text, and ``file:line:column`` of every key and list item by its path.

    Raises:
        GauntletError: It is no YAML, or a key stands twice.
    """
    try:
        content = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        position = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise GauntletError(f"{where}{position}: not valid YAML: {getattr(error, 'problem', None) or error}.") from None
    marks: dict[tuple[Any, ...], str] = {}
    if node is not None:
        _collect_marks(node, (), where, marks)
    return content, marks


def _collect_marks(node: yaml.Node, path: tuple[Any, ...], where: str, marks: dict[tuple[Any, ...], str]) -> None:
    marks.setdefault(path, f"{where}:{node.start_mark.line + 1}:{node.start_mark.column + 1}")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if (*path, key.value) in marks:
                place = f"{where}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
                raise GauntletError(f"{place}: the key {key.value!r} stands here twice; keep one of them.")
            marks[(*path, key.value)] = f"{where}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
            _collect_marks(value, (*path, key.value), where, marks)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _collect_marks(item, (*path, position), where, marks)


def plain(value: Any) -> Any:
    """A suite written in Python as YAML can hold it: paths as text, numpy's numbers and tuples as Python's.

    Raises:
        GauntletError: Something in it is neither text, number, list nor mapping.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (str, bool, int, float)) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, Path):
        return str(value)
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if value is None:
        return None
    raise GauntletError(f"A suite holds text, numbers, lists and mappings, got {value!r}.")
