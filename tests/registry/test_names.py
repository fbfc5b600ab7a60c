"""Names: looked up, refused, matched; nothing is overwritten silently."""

from __future__ import annotations

import pytest

from gauntlet.registry import REGISTRIES, GauntletError, Registry, is_pattern

BUILTINS = """
    from gauntlet.registry import Registry

    def add_to(widgets):
        @widgets.register("spring/coil", tags=("steel",), norm="l2", aliases=("Coil",), kinds=("a", "b"))
        def coil(*, turns: int = 3):
            return turns

        @widgets.register("spring/leaf", norm="linf", trained=True)
        def leaf():
            return "leaf"

        @widgets.register("wheel", tags=("steel", "round"))
        def wheel(*, spokes: int):
            return spokes
"""


@pytest.fixture
def stocked(make_registry) -> Registry:
    widgets = make_registry(BUILTINS)
    from builtin_widgets.first import add_to

    add_to(widgets)
    return widgets


def test_a_name_leads_to_its_entry_and_builds_the_thing(stocked: Registry):
    assert stocked.create("spring/coil", turns="4") == 4
    assert stocked.create("spring/leaf") == "leaf"
    assert [entry.name for entry in stocked] == ["spring/coil", "spring/leaf", "wheel"]
    assert len(stocked) == 3


def test_lookups_ignore_case_and_know_aliases(stocked: Registry):
    assert stocked.get("Spring/Coil") is stocked.get("coil") is stocked.get("COIL") is stocked.get("spring/coil")
    assert "coil" in stocked
    assert "cog" not in stocked


@pytest.mark.parametrize(
    ("name", "hint"),
    [("wheels", "did you mean 'wheel'?"), ("Coli", "did you mean 'Coil'?"), ("xyz", "known: Coil, spring/coil,")],
)
def test_an_unknown_name_gives_the_nearest_one_or_what_is_known(stocked: Registry, name: str, hint: str):
    with pytest.raises(GauntletError) as caught:
        stocked.get(name)
    assert str(caught.value).startswith(f"Unknown widget {name!r}; {hint}")


def test_an_unknown_parameter_gives_the_nearest_one_and_the_file(stocked: Registry):
    with pytest.raises(
        GauntletError, match=r"widget 'spring/coil' \(first.py:5\) has no parameter 'turn'; did you mean 'turns'\?"
    ):
        stocked.create("spring/coil", turn=4)
    with pytest.raises(GauntletError, match="has no parameter 'turn'; it takes none"):
        stocked.create("spring/leaf", turn=4)


def test_a_parameter_without_default_must_be_given(stocked: Registry):
    assert stocked.create("wheel", spokes=8) == 8
    with pytest.raises(
        GauntletError, match=r"'wheel' \(first.py:\d+\) needs a value for its parameter 'spokes': write {wheel: {spoke"
    ):
        stocked.create("wheel")


@pytest.mark.parametrize("name", ["wheel", "coil", "spring/coil"])
def test_a_name_that_is_taken_names_both_places_and_overwrites_nothing(stocked: Registry, name: str):
    before = stocked.get(name)
    with pytest.raises(GauntletError, match=r"is registered twice: in first.py:\d+ and in test_names.py:\d+; rename"):
        stocked.register(name)(lambda: None)
    assert stocked.get(name) is before
    assert len(stocked) == 3


@pytest.mark.parametrize("alias", ["Wheel", "COIL", "spring/leaf"])
def test_an_alias_that_is_taken_is_refused_whatever_its_case(stocked: Registry, alias: str):
    with pytest.raises(GauntletError, match="registered twice"):
        stocked.register("cog", aliases=(alias,))(lambda: None)
    assert "cog" not in stocked


@pytest.mark.parametrize(
    "name", ["", "Wheel", "my wheel", "-wheel", "wheel/", "/wheel", "a//b", "wheel*", "tag:wheel", "räd", "all", "a\n"]
)
def test_a_malformed_name_is_refused_with_what_is_right(widgets: Registry, name: str):
    with pytest.raises(GauntletError, match=r"malformed: use lower-case letters, digits"):
        widgets.register(name)(lambda: None)
    assert len(widgets) == 0


@pytest.mark.parametrize("name", ["fgsm", "foolbox/l2/deepfool", "m3", "resnet-18", "wide_resnet50_2", "a+b", "v1.5"])
def test_well_formed_names(widgets: Registry, name: str):
    widgets.register(name)(lambda: None)
    assert name in widgets


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("all", ["spring/coil", "spring/leaf", "wheel"]),
        ("*", ["spring/coil", "spring/leaf", "wheel"]),
        ("spring/*", ["spring/coil", "spring/leaf"]),
        ("*/[cd]oi?", ["spring/coil"]),
        ("tag:steel", ["spring/coil", "wheel"]),
        ("tag:stee", []),
        ("norm:linf", ["spring/leaf"]),
        ("kinds:b", ["spring/coil"]),
        ("trained:true", ["spring/leaf"]),
        ("norm:None", []),
        ("colour:red", []),
    ],
)
def test_patterns_pick_by_glob_tag_or_fact(stocked: Registry, pattern: str, found: list[str]):
    assert is_pattern(pattern)
    assert [entry.name for entry in stocked.match(pattern)] == found


def test_builtins_are_found_on_the_first_lookup_not_before(make_registry):
    import sys

    widgets = make_registry("")
    assert "builtin_widgets.first" not in sys.modules
    assert repr(widgets) == "<widget registry of 0 entries>"
    assert len(widgets) == 0
    assert "builtin_widgets.first" in sys.modules


def test_a_users_clash_with_a_builtin_is_reported_where_the_user_made_it():
    for kind, name in {"detector": "msp", "model": "m3", "recipe": "standard", "attack": "pgd"}.items():
        with pytest.raises(GauntletError, match=r"registered twice: in \w+.py:\d+ and in test_names.py:\d+"):
            REGISTRIES[kind].register(name)((lambda images: None) if kind == "attack" else (lambda logits: None))


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_every_builtin_says_what_it_is_and_where_it_comes_from(registry: Registry):
    for entry in registry:
        assert entry.summary.endswith((".", "!")), entry.name
        assert entry.where.endswith(tuple("0123456789")), entry.name
        assert all(parameter.annotation is not None for parameter in entry.parameters)


@pytest.mark.parametrize("kind", ["model", "recipe", "attack"])
def test_every_builtin_of_these_kinds_has_a_reference(kind: str):
    assert all(entry.reference for entry in REGISTRIES[kind])
