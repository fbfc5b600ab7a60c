"""What a decorator reads from a class or function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from gauntlet.registry import GauntletError, Registry

if TYPE_CHECKING:
    from somewhere_else import Tensor


def names(parameters) -> list[str]:
    return [parameter.name for parameter in parameters]


def test_name_summary_reference_tags_and_facts_are_in_the_entry(widgets: Registry):
    @widgets.register("spring", reference="Hooke 1678", tags=("steel", "coil"), norm="l2")
    def spring():
        """Pulls back.

        The more it is drawn, the harder.
        """

    entry = widgets.get("spring")
    assert (entry.kind, entry.name, entry.summary) == ("widget", "spring", "Pulls back.")
    assert (entry.reference, entry.tags, entry.meta) == ("Hooke 1678", ("steel", "coil"), {"norm": "l2"})
    assert (entry.factory, entry.is_class, entry.plugin) == (spring, False, None)


def test_a_given_summary_replaces_the_docstring_and_none_is_needed(widgets: Registry):
    widgets.register("a", summary="Said.")(lambda: None)
    widgets.register("b")(lambda: None)
    assert (widgets.get("a").summary, widgets.get("b").summary) == ("Said.", "")


def test_the_decorator_returns_what_it_was_given(widgets: Registry):
    def spring():
        return 5

    assert widgets("spring")(spring) is spring


def test_keyword_parameters_have_types_and_defaults_also_with_annotations_as_text(widgets: Registry):
    @widgets.register("spring")
    def spring(*, turns: int = 3, kind: Literal["pull", "push"] = "pull", load: float | None = None, extra):
        pass

    entry = widgets.get("spring")
    assert [(p.name, p.type_name, p.required) for p in entry.parameters] == [
        ("turns", "int", False),
        ("kind", "pull | push", False),
        ("load", "float | none", False),
        ("extra", "any", True),
    ]
    assert entry.defaults() == {"turns": 3, "kind": "pull", "load": None}
    assert entry.has("turns")
    assert not entry.has("turn")


def test_a_class_gives_the_parameters_of_its_constructor(widgets: Registry):
    @widgets.register("spring")
    class Spring:
        """A class."""

        def __init__(self, turns: int, *, load: float = 1.0, **rest: Any) -> None:
            pass

    entry = widgets.get("spring")
    assert entry.is_class
    assert [(p.name, p.annotation) for p in entry.parameters] == [("turns", int), ("load", float)]


def test_a_dataclass_and_an_inherited_constructor_are_read_too(widgets: Registry):
    @widgets.register("spring")
    @dataclass
    class Spring:
        turns: int = 3

    @widgets.register("long-spring")
    class Long(Spring):
        pass

    for name in ("spring", "long-spring"):
        assert [(p.name, p.annotation, p.default) for p in widgets.get(name).parameters] == [("turns", int, 3)]


def test_a_type_that_only_a_type_checker_imports_leaves_its_own_parameter_unchecked_and_no_other(widgets: Registry):
    @widgets.register("spring")
    def spring(*, weights: Tensor = None, turns: int = 3):
        pass

    entry = widgets.get("spring")
    assert [p.annotation for p in entry.parameters] == [Any, int]
    with pytest.raises(GauntletError, match="'turns' must be a whole number"):
        entry.check({"turns": "many"})


def test_leading_arguments_of_functions_are_needs_where_the_kind_says_so(make_registry: Callable[..., Registry]):
    widgets = make_registry(leading=True)

    @widgets.register("spring")
    def spring(logits, labels, /, *, turns: int = 3):
        pass

    @widgets.register("wheel", needs=("logits", "output:h"))
    def wheel(z, h, spokes: int = 8):
        pass

    assert (widgets.get("spring").needs, names(widgets.get("spring").parameters)) == (("logits", "labels"), ["turns"])
    assert (widgets.get("wheel").needs, names(widgets.get("wheel").parameters)) == (("logits", "output:h"), ["spokes"])


def test_a_class_declares_its_needs_and_keeps_all_parameters(make_registry: Callable[..., Registry]):
    widgets = make_registry(leading=True)

    @widgets.register("spring", needs="logits")
    class Spring:
        def __init__(self, turns: int) -> None:
            pass

    assert (widgets.get("spring").needs, names(widgets.get("spring").parameters)) == (("logits",), ["turns"])


def test_an_unknown_need_is_refused_with_the_nearest_one(make_registry: Callable[..., Registry]):
    widgets = make_registry(leading=True, vocabulary=("logits", "labels"))
    with pytest.raises(
        GauntletError,
        match=r"widget 'spring' needs 'logit', which is unknown .*; did you mean 'logits'\?$",
    ):
        widgets.register("spring")(lambda logit: None)
    assert "spring" not in widgets


@pytest.mark.parametrize("needs", ["logits", ("logits", "labels", "head"), ()])
def test_as_many_needs_as_leading_arguments(make_registry: Callable[..., Registry], needs):
    widgets = make_registry(leading=True)
    with pytest.raises(GauntletError, match=r"leading arguments are \(a, b\): give one argument for each need"):
        widgets.register("spring", needs=needs)(lambda a, b: None)


def test_where_is_the_file_and_line_of_the_definition(widgets: Registry):
    def spring():
        pass

    line = inspect.currentframe().f_lineno - 3
    widgets.register("spring")(spring)
    assert widgets.get("spring").where == f"test_entries.py:{line}"


def test_a_decorator_without_a_name_says_how_it_is_written(widgets: Registry):
    with pytest.raises(GauntletError, match=r"@widget needs a name: write @widget\('my-widget'\)"):
        widgets.register(lambda: None)
