"""What a suite says, resolved to entries with labels and checked parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gauntlet.registry import ATTACKS, GauntletError, Registry, left_out, parse_spec, select, select_one


@pytest.fixture
def stocked(widgets: Registry) -> Registry:
    @widgets.register("spring", tags=("steel",), aliases=("Coil",))
    def spring(*, turns: int = 3, load: float = 1.0, sizes: Sequence[int] = (), frame: dict | None = None):
        pass

    @widgets.register("wheel", tags=("steel",))
    def wheel():
        pass

    return widgets


def labels(selected) -> list[str]:
    return [one.label for one in selected]


def test_the_three_spellings_say_the_same():
    chosen = [select_one(ATTACKS, spec) for spec in ({"pgd": {"steps": "1e2"}}, {"name": "pgd", "steps": 100.0}, "pgd")]
    assert [one.entry.name for one in chosen] == ["pgd"] * 3
    assert [dict(one.parameters) for one in chosen] == [{"steps": 100}, {"steps": 100}, {}]


@pytest.mark.parametrize(
    ("spec", "meaning"),
    [
        ("pgd", ("pgd", {})),
        ({"pgd": None}, ("pgd", {})),
        ({"pgd": {"steps": 3}}, ("pgd", {"steps": 3})),
        ({"name": "pgd", "steps": 3}, ("pgd", {"steps": 3})),
        ({"name": "pgd"}, ("pgd", {})),
    ],
)
def test_spellings(spec: Any, meaning: tuple):
    assert parse_spec(spec, "attack") == meaning


@pytest.mark.parametrize("spec", [5, None, ["pgd"], {}, {"pgd": 5}, {"pgd": {}, "fgsm": {}}, {1: {}}, {"pgd": [1]}])
def test_any_other_spelling_is_refused_with_the_right_ones(spec: Any):
    with pytest.raises(GauntletError, match=r"^Cannot read the attack .*: write NAME, {NAME: {parameter: value}} or"):
        parse_spec(spec, "attack")


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(GauntletError, match=r"^The name of the attack must be text, got 5"):
        parse_spec({"name": 5}, "attack")


def test_the_label_is_the_name_as_written_with_what_was_given(stocked: Registry):
    specs = [
        "spring",
        "Coil",
        {"spring": {"turns": 4, "load": 0.25}},
        {"spring": {"sizes": [1, 2]}},
        {"spring": {"frame": {"name": "oak", "depth": 3}}},
        {"name": "spring", "load": 2, "label": "Heavy spring"},
    ]
    assert labels(select(stocked, specs)) == [
        "spring",
        "Coil",
        "spring turns=4 load=0.25",
        "spring sizes=1+2",
        "spring frame=oak",
        "Heavy spring",
    ]


@pytest.mark.parametrize("label", ["", "  ", 5, None])
def test_a_label_is_text_or_absent(stocked: Registry, label: Any):
    if label is None:
        assert select_one(stocked, {"name": "spring", "label": None}).label == "spring"
    else:
        with pytest.raises(GauntletError, match="label of widget 'spring' must be non-empty text"):
            select_one(stocked, {"name": "spring", "label": label})


@pytest.mark.parametrize(
    "specs", [["spring", "spring"], [{"spring": {"turns": 4}}, {"name": "wheel", "label": "spring turns=4"}]]
)
def test_two_equal_labels_are_refused(stocked: Registry, specs: list):
    with pytest.raises(GauntletError, match=r"Two widgets have the label 'spring.*'; give one of them another"):
        select(stocked, specs)


def test_options_are_kept_apart_from_parameters(stocked: Registry):
    chosen = select_one(stocked, {"spring": {"turns": 4, "recipe": "r", "load": 2}}, options=("recipe", "load"))
    assert (dict(chosen.parameters), dict(chosen.options)) == ({"turns": 4, "load": 2.0}, {"recipe": "r"})
    with pytest.raises(GauntletError, match="has no parameter 'recipe'"):
        select_one(stocked, {"spring": {"recipe": "r"}})


def test_the_spec_itself_is_not_changed(stocked: Registry):
    spec = {"name": "spring", "turns": "4", "label": "x", "recipe": "r"}
    select_one(stocked, spec, options=("recipe",))
    assert spec == {"name": "spring", "turns": "4", "label": "x", "recipe": "r"}


def test_patterns_add_what_is_not_there_yet_in_the_order_of_the_list(stocked: Registry):
    assert labels(select(stocked, ["all"])) == ["spring", "wheel"]
    assert labels(select(stocked, ["wheel", "tag:steel", "all"])) == ["wheel", "spring"]
    assert labels(select(stocked, ["all", {"spring": {"turns": 5}}])) == ["wheel", "spring turns=5"]


def test_a_pattern_that_picks_nothing_is_refused(stocked: Registry):
    with pytest.raises(GauntletError, match=r"No widget matches 'tag:wood'; `gauntlet list widgets` shows them all"):
        select(stocked, ["spring", "tag:wood"])


def test_a_parameter_without_default_must_be_said_unless_gauntlet_supplies_it(make_registry):
    widgets = make_registry(supplied=("classes",))

    @widgets.register("net")
    def net(classes: int, *, depth: int):
        pass

    assert select_one(widgets, {"net": {"depth": 3}}).parameters == {"depth": 3}
    for specs in (["net"], ["all"]):
        with pytest.raises(GauntletError, match=r"'net' \(test_selection.py:\d+\) needs a value for .* 'depth': write"):
            select(widgets, specs)


# -- what cannot do without a parameter -----------------------------------------------------------------------


@pytest.fixture
def with_hook(stocked: Registry) -> Registry:
    @stocked.register("hook", tags=("steel",))
    def hook(*, length: float):
        pass

    return stocked


@pytest.mark.parametrize("pattern", ["all", "tag:steel"])
def test_a_pattern_leaves_out_what_needs_a_value_and_the_reason_is_known(with_hook: Registry, pattern: str):
    assert labels(select(with_hook, [pattern])) == ["spring", "wheel"]
    reasons = left_out(with_hook, [pattern])
    assert list(reasons) == ["hook"]
    assert "'hook' (test_selection.py" in reasons["hook"]
    assert "needs a value for its parameter 'length': write {hook: {length: ...}}." in reasons["hook"]


def test_named_beside_the_pattern_with_its_value_it_is_there(with_hook: Registry):
    specs = ["all", {"hook": {"length": 2}}]
    assert labels(select(with_hook, specs)) == ["spring", "wheel", "hook length=2"]
    assert left_out(with_hook, specs) == {}


def test_alone_it_is_one_sentence(with_hook: Registry):
    for spec in ("hook", "hoo*"):
        with pytest.raises(GauntletError, match="needs a value for its parameter 'length'"):
            select(with_hook, [spec])
