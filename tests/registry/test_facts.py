"""Facts: what a decorator is told beside the name is checked when the component's file is imported."""

from __future__ import annotations

import inspect

import pytest

import gauntlet
from gauntlet.attacks import build_attack
from gauntlet.attacks.function import norm_of
from gauntlet.registry import ATTACKS, REGISTRIES, GauntletError, Registry, load_plugin


def line() -> int:
    return inspect.currentframe().f_back.f_lineno


def test_a_misspelt_fact_names_file_line_and_the_right_spelling(widgets: Registry) -> None:
    with pytest.raises(GauntletError) as caught:
        widgets.register("spring", nrom="l2")
    assert str(caught.value) == (
        f"test_facts.py:{line() - 2}: widget 'spring': the keyword 'nrom' is unknown; did you mean 'norm'?"
    )


def test_all_that_is_wrong_is_told_at_once(widgets: Registry) -> None:
    with pytest.raises(GauntletError) as caught:
        widgets.register("spring", norm="l3", kinds="a", tag=("x",))
    assert str(caught.value).partition("'spring': ")[2] == (
        "the keyword 'norm' must be one of l2, linf, got 'l3'; did you mean 'l2'?; "
        "the keyword 'kinds' must be a list, got 'a'; the keyword 'tag' is unknown; did you mean 'tags'?"
    )


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_decorator_refuses_a_fact_that_it_does_not_know(kind: str) -> None:
    with pytest.raises(GauntletError, match=rf"^test_facts\.py:\d+: {kind} 'mine': the keyword 'refrence' is unknown"):
        getattr(gauntlet, kind)("mine", refrence="Me 2024")
    assert "mine" not in REGISTRIES[kind]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_decorator_checks_the_types_of_what_it_takes(kind: str) -> None:
    with pytest.raises(GauntletError, match=r"the keyword 'tags' must be a list, got 'mine'"):
        getattr(gauntlet, kind)("mine", tags="mine")


def test_lists_become_tuples(widgets: Registry) -> None:
    widgets.register("spring", kinds=["a", "b"], tags=["steel"])(lambda: None)
    assert widgets.get("spring").meta == {"kinds": ("a", "b")}
    assert widgets.get("spring").tags == ("steel",)


def test_a_plugin_with_a_misspelt_fact_does_not_load(plugin) -> None:
    path = plugin("""
        from gauntlet import attack

        @attack("sign", acess="gradient", nrom="linf")
        def sign(victim, images, labels, epsilon):
            return images
    """)
    with pytest.raises(GauntletError, match=r"plugin.py:4: attack 'sign': the keyword 'acess' .*'access'.*'norm'"):
        load_plugin(str(path), REGISTRIES.values())
    assert "sign" not in ATTACKS


@pytest.fixture
def attack():
    """Register attacks for one test."""
    before = set(ATTACKS._entries)
    yield gauntlet.attack
    for name in set(ATTACKS._entries) - before:
        del ATTACKS._entries[name]


@pytest.mark.parametrize("name", [entry.name for entry in ATTACKS])
def test_the_norm_that_is_planned_is_the_norm_that_is_built(name: str) -> None:
    entry = ATTACKS.get(name)
    choices = entry.meta.get("norms", ()) if entry.has("norm") else ()
    for parameters in ({}, *({"norm": norm} for norm in choices)):
        try:
            made = build_attack(entry, parameters)
        except GauntletError:
            continue  # it needs a package, or never works
        assert made.norm == norm_of(entry, parameters)


def test_a_function_says_its_norm_once(attack) -> None:
    @attack("by-default")
    def by_default(images, epsilon):
        return images

    @attack("by-parameter")
    def by_parameter(images, epsilon, *, norm: str = "l2"):
        return images

    for name, parameters, norm in (
        ("by-default", {}, "linf"),
        ("by-parameter", {}, "l2"),
        ("by-parameter", {"norm": "l1"}, "l1"),
    ):
        assert norm_of(ATTACKS.get(name), parameters) == build_attack(name, parameters).norm == norm
    assert [entry.name for entry in ATTACKS.match("norm:l2") if entry.name == "by-parameter"]


def test_a_norm_that_is_said_twice_must_be_the_same(attack) -> None:
    with pytest.raises(GauntletError, match=r"declared with norm='linf', but built with 'l2'"):

        @attack("torn", norm="linf")
        def torn(images, epsilon, *, norm: str = "l2"):
            return images
