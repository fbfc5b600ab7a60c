"""What is run again redefines what it registered; two components that share a name are still refused."""

from __future__ import annotations

import importlib
import sys

import pytest

from gauntlet.registry import DETECTORS, MODELS, REGISTRIES, GauntletError, load_plugin

CELL = """
import gauntlet

@gauntlet.model("cell", aliases=("Cell",))
def cell(classes: int = 10):
    return {made!r}
"""


@pytest.fixture(autouse=True)
def _cells():
    """Forget what the cells registered."""
    yield
    for registry in REGISTRIES.values():
        registry._forget([entry.name for entry in registry if entry.factory.__module__ == "__main__"])


def execute(source: str, file: str, names: dict | None = None) -> None:
    exec(compile(source, file, "exec"), {"__name__": "__main__"} if names is None else names)


def test_the_last_run_of_a_notebook_cell_wins() -> None:
    names = {"__name__": "__main__"}
    for number, made in enumerate(("first", "first", "edited")):
        execute(CELL.format(made=made), f"<cell {number}>", names)
    assert MODELS.create("cell") == MODELS.create("Cell") == "edited"
    execute(CELL.format(made="edited"), "<cell 2>", names)  # the same text has the same name in some notebooks
    assert MODELS.create("cell") == "edited"


def test_a_script_that_is_run_again_in_one_session_wins() -> None:
    execute(CELL.format(made="first"), "script.py")
    execute("\n\n" + CELL.format(made="second"), "script.py")
    assert MODELS.create("cell") == "second"


def test_a_script_that_uses_a_name_twice_is_refused() -> None:
    with pytest.raises(GauntletError, match="'cell' is registered twice"):
        execute(CELL.format(made="first") + CELL.format(made="second"), "script.py")


def test_a_module_that_is_reloaded_redefines(plugin) -> None:
    path = plugin(CELL.format(made="first"), "reloaded_module.py")
    sys.path.insert(0, str(path.parent))
    module = importlib.import_module("reloaded_module")
    path.write_text("\n# longer than before\n" + CELL.format(made="second"))
    importlib.reload(module)
    try:
        assert MODELS.create("cell") == "second"
    finally:
        MODELS._forget(["cell"])


BASE = """
    from gauntlet import detector

    @detector("base-score")
    def base_score(logits):
        return -logits.amax(1)
"""
ON_TOP = """
    from gauntlet import detector
    from base_of_another import base_score

    @detector("on-top")
    def on_top(logits):
        return 2 * base_score(logits)
"""


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_plugin_file_that_another_imports_is_registered_once_and_owns_what_is_its_own(plugin, order) -> None:
    paths = [plugin(BASE, "base_of_another.py"), plugin(ON_TOP, "on_top.py")]
    for position in order:
        load_plugin(str(paths[position]), REGISTRIES.values())
    owners = [DETECTORS.get(name).plugin for name in ("base-score", "on-top")]
    assert owners == [str(path.resolve()) for path in paths]


def test_a_plugin_that_another_imported_loads_anew_when_it_changes(plugin) -> None:
    base, top = plugin(BASE, "base_of_another.py"), plugin(ON_TOP, "on_top.py")
    for path in (top, base):
        load_plugin(str(path), REGISTRIES.values())
    base.write_text(base.read_text().replace("base-score", "renamed"))
    load_plugin(str(base), REGISTRIES.values())
    assert "renamed" in DETECTORS
    assert "base-score" not in DETECTORS
