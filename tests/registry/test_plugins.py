"""Plug-ins: files, modules, installed packages; broken ones are told with file and line and leave nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gauntlet.registry import DETECTORS, REGISTRIES, GauntletError, load_entry_points, load_plugin, load_plugins

GOOD = """
    from gauntlet import detector

    @detector("{name}")
    def score(logits):
        "Mine."
        return logits.sum(1)
"""
Write = Callable[..., Path]


def load(path: Path | str) -> str:
    return load_plugin(str(path), REGISTRIES.values())


def load_all(*paths: Path | str) -> list[str]:
    return load_plugins([str(path) for path in paths], REGISTRIES.values())


def importable(plugin: Write, source: str, name: str) -> str:
    sys.path.insert(0, str(plugin(source, name).parent))
    return name.removesuffix(".py")


def test_a_file_registers_and_its_entries_remember_it(plugin: Write):
    path = plugin(GOOD.format(name="mine"))
    assert load(path) == str(path.resolve())
    assert DETECTORS.get("mine").plugin == str(path.resolve())
    assert DETECTORS.get("mine").where == "plugin.py:4"
    assert DETECTORS.get("msp").plugin is None


def test_the_file_is_found_relative_to_the_working_folder_whatever_its_name(plugin: Write, monkeypatch):
    monkeypatch.chdir(plugin(GOOD.format(name="mine"), "my-plugin.py").parent)
    load("my-plugin.py")
    assert "mine" in DETECTORS


def test_a_module_registers_under_its_name(plugin: Write):
    name = importable(plugin, GOOD.format(name="mine"), "my_module.py")
    assert load(name) == "my_module"
    assert DETECTORS.get("mine").plugin == "my_module"


def test_an_installed_package_is_found_by_its_entry_point(plugin: Write):
    importable(plugin, GOOD.format(name="installed"), "their_package.py")
    importable(plugin, "raise RuntimeError('broken')", "their_broken_package.py")
    metadata = "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n"
    plugin(metadata, "theirs-1.0.dist-info/METADATA")
    plugin("[gauntlet.plugins]\na = their_broken_package\nb = their_package\n", "theirs-1.0.dist-info/entry_points.txt")
    (problem,) = load_entry_points(REGISTRIES.values())
    assert "'their_broken_package' did not load" in problem
    assert DETECTORS.get("installed").plugin == "their_package"


def test_what_a_plugin_imports_of_the_built_ins_is_not_its_own(plugin: Write, make_registry, monkeypatch):
    widgets = make_registry("""
        import sys

        @sys.modules["widgets_of_a_test"]("own")
        def own(): pass
    """)
    monkeypatch.setitem(sys.modules, "widgets_of_a_test", widgets)
    path = plugin("""
        import sys
        import builtin_widgets.first

        @sys.modules["widgets_of_a_test"]("theirs")
        def theirs(): pass
    """)
    load_plugin(str(path), [widgets])
    assert widgets.get("own").plugin is None
    assert widgets.get("theirs").plugin == str(path.resolve())


def test_loading_the_same_file_again_does_nothing(plugin: Write):
    path = plugin(GOOD.format(name="mine"))
    load(path)
    first = DETECTORS.get("mine")
    load(path.parent / ".." / path.parent.name / path.name)
    assert DETECTORS.get("mine") is first


def test_a_changed_file_is_loaded_anew_in_place_of_the_old_one(plugin: Write):
    load(plugin(GOOD.format(name="old")))
    load(plugin(GOOD.format(name="new")))
    assert "old" not in DETECTORS
    assert "new" in DETECTORS


def test_a_changed_file_brings_back_what_its_other_modules_register(plugin: Write):
    plugin(GOOD.format(name="helped"), "reg_helper.py")
    load(plugin("import reg_helper"))
    load(plugin("import reg_helper\nCHANGED = True"))
    assert "helped" in DETECTORS


def test_a_file_that_breaks_and_is_put_right_loads_again(plugin: Write):
    good = GOOD.format(name="mine")
    load(plugin(good))
    assert load_all(plugin("1 / 0"))
    assert "mine" not in DETECTORS
    load(plugin(good))
    assert "mine" in DETECTORS


BROKEN = {
    "def broken(:\n    pass": ("plugin.py:1: SyntaxError: ",),
    "import sys\n\nraise ValueError('bad\\nluck')": ("plugin.py:3: ValueError: bad",),
    "import no_such_library": ("plugin.py:1: ModuleNotFoundError: No module named 'no_such_library'",),
    "import sys\nsys.exit(3)": ("plugin.py:2: SystemExit: 3",),
    "from torch import nn\nnn.Linear('a', 3)": ("plugin.py:2: TypeError: ",),
    "from gauntlet import detector\n@detector('Bad Name')\ndef f(logits): pass": (
        "plugin.py:2: detector name 'Bad Name'",
        "malformed",
    ),
    "from gauntlet import detector\n@detector('msp')\ndef f(logits): pass": (
        "plugin.py:2: detector 'msp' is registered twice: in msp.py:",
        " and in plugin.py:2;",
    ),
    "import broken_helper": ("broken_helper.py:2: ZeroDivisionError: division by zero",),
    "x = 1\0": ("null bytes",),
}


@pytest.mark.parametrize("source", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_plugin_is_told_in_one_line_with_file_and_line_and_the_others_load(plugin: Write, source: str):
    plugin("\n1 / 0", "broken_helper.py")
    paths = [plugin(source), plugin(GOOD.format(name="other"), "other.py")]
    (problem,) = load_all(*paths)
    assert problem.startswith(f"Plug-in '{paths[0]}' did not load: ")
    assert all(part in problem for part in BROKEN[source])
    assert "\n" not in problem
    assert "other" in DETECTORS
    assert "msp" in DETECTORS


def test_a_plugin_that_registers_and_then_breaks_leaves_nothing(plugin: Write):
    before = {kind: [entry.name for entry in registry] for kind, registry in REGISTRIES.items()}
    half = "from gauntlet import attack\nattack('half-attack', aliases=('Half',))(lambda: None)\n"
    plugin(GOOD.format(name="helped"), "half_helper.py")
    path = plugin(f"import half_helper\n{half}raise RuntimeError('half-way')")
    assert "plugin.py:4: RuntimeError: half-way" in load_all(path)[0]
    assert {kind: [entry.name for entry in registry] for kind, registry in REGISTRIES.items()} == before
    assert "Half" not in REGISTRIES["attack"]
    load(plugin(f"import half_helper\n{half}"))
    assert "Half" in REGISTRIES["attack"]
    assert "helped" in DETECTORS


def test_the_second_of_two_plugins_with_the_same_name_is_the_one_refused(plugin: Write):
    first, second = (plugin(GOOD.format(name="mine"), name) for name in ("first.py", "second.py"))
    (problem,) = load_all(first, second)
    assert "'mine' is registered twice: in first.py:4 and in second.py:4" in problem
    assert DETECTORS.get("mine").plugin == str(first)


@pytest.mark.parametrize("name", ["absent.py", "absent_module", "absent.module"])
def test_an_absent_plugin_says_what_is_right(name: str):
    assert load_all(name) == [f"Plug-in {name!r} does not exist: give the path of a .py file or the name of a module."]


def test_a_module_that_is_a_file_of_the_working_folder_is_pointed_out(plugin: Write, monkeypatch):
    monkeypatch.chdir(plugin("", "scores.py").parent)
    with pytest.raises(GauntletError, match=r"'scores' does not exist: did you mean 'scores.py'\?"):
        load("scores")


def test_a_file_that_is_no_python_is_refused(plugin: Write):
    path = plugin("name: suite", "suite.yaml")
    assert load_all(path) == [f"Plug-in '{path}' did not load: it is not a Python file."]


def test_ctrl_c_is_not_swallowed(plugin: Write):
    with pytest.raises(KeyboardInterrupt):
        load(plugin("raise KeyboardInterrupt"))
