"""Every component prints as the call that makes it, and every registry has its list and create."""

from __future__ import annotations

import math

import pytest

import gauntlet
from gauntlet.registry import REGISTRIES, BoundFunction, Component, Entry, GauntletError, NotAvailable

#: A value that is not the default, by the name of the first parameter that takes one.
VALUES = {bool: True, int: 3, float: 0.25, str: "l2"}
ENTRIES = [entry for kind, registry in REGISTRIES.items() if kind != "model" for entry in registry]


def changed(entry: Entry) -> dict[str, object]:
    """One parameter of an entry, given a value that it may take."""
    for parameter in entry.parameters:
        if isinstance(parameter.default, bool):
            return {parameter.name: not parameter.default}
        if isinstance(parameter.default, int):
            return {parameter.name: parameter.default + 1}
        if isinstance(parameter.default, float) and math.isfinite(parameter.default):
            return {parameter.name: parameter.default * 0.875}
    return {}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind} {entry.name}")
def test_a_component_prints_as_the_call_that_makes_it_and_that_call_is_its_spec(entry: Entry) -> None:
    required = {parameter.name: [] for parameter in entry.parameters if parameter.required}
    create = getattr(gauntlet, f"create_{entry.kind}")
    for parameters in (required, {**required, **changed(entry)}):
        try:
            made = create(entry.name, **parameters)
        except NotAvailable:
            pytest.skip("not available here")
        except GauntletError:
            continue  # a value out of the range that the component takes
        given = "".join(f", {name}={value!r}" for name, value in entry.check(parameters).items())
        assert repr(made) == f"create_{entry.kind}({entry.name!r}{given})"
        assert repr(eval(repr(made), vars(gauntlet))) == repr(made)


def test_a_component_made_directly_prints_as_its_constructor() -> None:
    class Spring(Component):
        def __init__(self, turns: int, *, load: float = 1.0) -> None:
            pass

    assert repr(Spring(3)) == "Spring(3)"
    assert repr(Spring(3, load=0.5)) == "Spring(3, load=0.5)"


def test_a_function_of_data_comes_back_with_its_parameters_set() -> None:
    @gauntlet.augmentation("halved")
    def halved(images, *, by: float = 2.0):
        """Halve."""
        return images / by

    try:
        made = gauntlet.create_augmentation("halved", by=4)
        assert isinstance(made, BoundFunction)
        assert made(8.0) == 2.0
        with pytest.raises(GauntletError, match="has no parameter 'to'"):
            gauntlet.create_augmentation("halved", to=4)
    finally:
        del REGISTRIES["augmentation"]._entries["halved"]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registry_can_be_listed_by_pattern(kind: str) -> None:
    names = getattr(gauntlet, f"list_{kind}s")
    assert names() == names("*") == [entry.name for entry in REGISTRIES[kind]]
    assert names(f"{names()[0]}*")[0] == names()[0]


def test_the_public_face_shows_the_public_names_and_only_those() -> None:
    assert dir(gauntlet) == sorted(gauntlet.__all__)
    assert all(getattr(gauntlet, name) is not None for name in dir(gauntlet))
    verbs = {f"{verb}{kind}" for kind in REGISTRIES for verb in ("", "create_")} | {
        f"list_{kind}s" for kind in REGISTRIES
    }
    assert set(dir(gauntlet)) == verbs | {"GauntletError", "__version__", "evaluate", "load_results", "run"}
