"""YAML of suites: read with the position of every key, and written from what Python holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..registry import GauntletError

#: A suite is a page or two; what is longer, deeper or has more parts once its aliases are written out is an attack.
MAX_CHARACTERS, MAX_DEPTH, MAX_PARTS = 200_000, 30, 20_000

_MAX_NUMBER = 2**63  # what the store can hold
_NO_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # what no file name, store or page can hold


def read_yaml(text: str, where: str) -> tuple[Any, dict[tuple[Any, ...], str]]:
    """The content of a YAML text, and ``file:line:column`` of every key and list item by its path.

    Raises:
        GauntletError: It is no YAML, a key stands twice, or it is too long, too deep or too large.
    """
    if len(text) > MAX_CHARACTERS:
        raise GauntletError(f"{where}: a suite has at most {MAX_CHARACTERS} characters, this has {len(text)}.")
    marks: dict[tuple[Any, ...], str] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, marks
        _count_parts(node, {})
        content = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        position = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise GauntletError(f"{where}{position}: not valid YAML: {getattr(error, 'problem', None) or error}.") from None
    _collect_marks(node, (), where, marks)
    return content, marks


class _Loader(yaml.SafeLoader):
    """Says where a value cannot be read, and stops at :data:`MAX_DEPTH`."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Every node, from the outside in."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"it is nested deeper than {MAX_DEPTH} levels", problem_mark=self.peek_event().start_mark
            )
        try:
            found: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        return found

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node: an impossible date, an unreadable number or a broken text has its place."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
            problem = f"{str(node.value)[:40]!r} cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None
        if isinstance(value, int) and abs(value) >= _MAX_NUMBER:
            raise yaml.MarkedYAMLError(problem="a number is too large", problem_mark=node.start_mark)
        if isinstance(value, str) and (found := _NO_TEXT.search(value)):
            problem = f"text holds the character {found[0]!r}, which cannot be written to a file"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return value


def _count_parts(node: yaml.Node, known: dict[int, int]) -> int:
    """How many parts a node has with its aliases written out.

    Raises:
        MarkedYAMLError: They are too many, or it is a part of itself.
    """
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.MarkedYAMLError(problem="an alias refers to what it stands in", problem_mark=node.start_mark)
        return known[id(node)]
    known[id(node)] = 0
    inside = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    total = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_count_parts(part, known) for part in inside))
    if total > MAX_PARTS:
        problem = f"it has more than {MAX_PARTS} parts once its aliases are written out"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = total
    return total


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


def plain(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A suite written in Python as YAML can hold it: paths as text, numpy's numbers and tuples as Python's.

    Raises:
        GauntletError: Something in it is neither text, number, list nor mapping, or it is too deep.
    """
    if not depth:
        raise GauntletError(f"A suite is nested at most {MAX_DEPTH} levels deep; is a part of this one inside itself?")
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, int) and abs(value) >= _MAX_NUMBER:
        raise GauntletError("A number in the suite is too large.")
    if isinstance(value, (str, bool, int, float)) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, Path):
        return str(value)
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    if isinstance(value, Sequence):
        return [plain(item, depth - 1) for item in value]
    if value is None:
        return None
    raise GauntletError(f"A suite holds text, numbers, lists and mappings, got {value!r}.")
