"""Values from YAML: taken in the declared type or refused with what would be right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gauntlet.registry import GauntletError, Parameter, coerce, nearest
from gauntlet.registry.parameters import type_name

Mode = Literal["fast", "exact"]


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("1e-3", float, 0.001),  # YAML 1.1 reads it as text
        ("1.0e-3", float, 0.001),
        ("3", float, 3.0),
        (".inf", float, math.inf),
        ("3.0", int, 3),
        ("1e3", int, 1000),
        ("'7'", int, 7),
        ("12345678901234567891", int, 12345678901234567891),
        ("'12345678901234567891'", int, 12345678901234567891),
        ("true", bool, True),
        ("off", bool, False),
        ("hello", str, "hello"),
        ("exact", Mode, "exact"),
        ("null", Optional[int], None),  # noqa: UP045
        ("1e-3", float | None, 0.001),
        ("3.0", int | None, 3),
        ("3", int | str, 3),
        ("'3'", int | str, "3"),
        ("3", float | str, 3.0),
        ("exact", int | Mode, "exact"),
        ("[1, 1e-3]", list[float], [1.0, 0.001]),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("[a, 2]", tuple[str, int], ("a", 2)),
        ("[[1, 2], [3]]", list[list[int]], [[1, 2], [3]]),
        ("[1, a]", list, [1, "a"]),
        ("[1, a]", tuple, (1, "a")),
        ("[1, 2]", Sequence[int], [1, 2]),
        ("1e-3", float | list[float], 0.001),
        ("[1e-3]", float | list[float], [0.001]),
        ("{a: 1}", dict[str, int], {"a": 1}),
        ("{a: 1}", Mapping[str, Any], {"a": 1}),
        ("weights.pt", Path, Path("weights.pt")),
        ("2e-1", Annotated[float, "seconds"], 0.2),
        ("[whatever, {is: there}]", Any, ["whatever", {"is": "there"}]),
    ],
)
def test_yaml_is_taken_in_the_declared_type(text: str, annotation: Any, value: Any):
    result = coerce(yaml.safe_load(text), annotation)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "problem"),
    [
        ("true", int, "must be a whole number, got True"),
        ("true", float, "must be a number, got True"),
        ("1", bool, "must be true or false, got 1"),
        ("'yes'", bool, "must be true or false, got 'yes'"),
        ("3.5", int, "must be a whole number, got 3.5"),
        (".nan", int, "must be a whole number, got nan"),
        (".inf", int, "must be a whole number, got inf"),
        ("null", int, "must be a whole number, got None"),
        ("many", int, "must be a whole number, got 'many'"),
        ("many", float, "must be a number, got 'many'"),
        ("[1]", float, r"must be a number, got \[1\]"),
        ("3", str, "must be text, got 3"),
        ("3", Path, "must be a path, got 3"),
        ("exakt", Mode, "must be one of fast, exact, got 'exakt'; did you mean 'exact'?"),
        ("zzz", Mode, "must be one of fast, exact, got 'zzz'; known: exact, fast."),
        ("true", Literal[1, 2], "must be one of 1, 2, got True"),
        ("many", Optional[int], "must be a whole number, got 'many'"),  # noqa: UP045
        ("many", None | float, "must be a number, got 'many'"),
        ("many", int | list[int], r"must be int or list\[int\], got 'many'"),
        ("abc", list[str], "must be a list, got 'abc'"),
        ("abc", tuple[str, ...], "must be a list, got 'abc'"),
        ("[1, b]", list[int], "must be a whole number, got 'b'"),
        ("[1, 2, 3]", tuple[int, int], r"must be a list of 2 values, got \[1, 2, 3\]"),
        ("[1]", dict[str, int], r"must be a mapping, got \[1\]"),
        ("0", None, "must be null, got 0"),
    ],
)
def test_other_yaml_is_refused_with_what_is_right(text: str, annotation: Any, problem: str):
    with pytest.raises(ValueError, match=problem.replace("?", r"\?")):
        coerce(yaml.safe_load(text), annotation if annotation is not None else type(None))


def test_the_message_names_owner_and_parameter():
    parameter = Parameter("steps", int, 40)
    assert parameter.check("1e2", "attack 'pgd'") == 100
    with pytest.raises(GauntletError, match=r"^attack 'pgd': parameter 'steps' must be a whole number, got 'x'$"):
        parameter.check("x", "attack 'pgd'")


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (float | None, "float | none"),
        (Mode, "fast | exact"),
        (list[float], "list[float]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Any, "any"),
    ],
)
def test_types_are_shown_as_a_reader_would_write_them(annotation: Any, text: str):
    assert type_name(annotation) == text


@given(st.floats(allow_nan=False))
def test_a_number_survives_being_written_as_text(value: float):
    assert coerce(repr(value), float) == value


@given(st.integers())
def test_a_whole_number_survives_being_written_as_text(value: int):
    assert coerce(str(value), int) == value


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_whatever_is_given_the_outcome_is_a_value_or_a_sentence(value: Any):
    for annotation in (int, float | None, Mode, list[int], tuple[int, str], int | str | None, dict[str, int]):
        assert problem_of(value, annotation).startswith(("none", "must be "))


def problem_of(value: Any, annotation: Any) -> str:
    try:
        coerce(value, annotation)
    except ValueError as error:
        return str(error)
    return "none"


def test_the_nearest_spelling_ignores_case_and_long_lists_are_cut():
    assert nearest("MSP", ["knn", "msp"]) == "did you mean 'msp'?"
    assert nearest("q", []) == "none are known."
    assert nearest("qqq", "abcdefghijk") == "known: a, b, c, d, e, f, g, h and 3 more."
