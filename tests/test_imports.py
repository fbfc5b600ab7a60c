"""Who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gauntlet

ROOT = Path(__file__).parents[1]

#: What each package may import of the others; `bench` may import all of them.
MAY_IMPORT = {
    "registry": set(),
    "results": {"registry"},
    "datasets": {"registry"},
    "attacks": {"registry", "datasets"},  # random draws belong to an image of a dataset, in attacks as in corruptions
    "detectors": {"registry"},
    "models": {"registry"},
    "models.training": {"registry", "models", "attacks", "datasets"},
    "bench": {"registry", "results", "datasets", "attacks", "detectors", "models"},
}
PACKAGES = [name for name in MAY_IMPORT if "." not in name]


def modules() -> dict[str, Path]:
    """Dotted names below `gauntlet` of all modules in the checkout, with their files."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(file: Path, *, for_checkers: bool = True) -> Iterator[str]:
    """Absolute dotted names of everything that a file imports, also inside functions and for type checkers only."""
    package = ["gauntlet", *file.relative_to(ROOT).parts[:-1]]
    for node in nodes(ast.parse(file.read_text(encoding="utf-8")), for_checkers):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names)


def nodes(tree: ast.AST, for_checkers: bool) -> Iterator[ast.AST]:
    """What stands in a module; what stands there for type checkers alone only where it is wanted."""
    for node in ast.iter_child_nodes(tree):
        if for_checkers or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes(node, for_checkers)


def imported_modules(file: Path, known: Iterable[str]) -> set[str]:
    """Which of the ``known`` modules a file imports when it runs."""
    names = [name.removeprefix("gauntlet.") for name in imports(file, for_checkers=False)]
    return {name if name in known else name.rpartition(".")[0] for name in names} & set(known)


def owner(module: str) -> str:
    """The key of MAY_IMPORT that governs a module."""
    return "models.training" if module.startswith("models.training") else module.partition(".")[0]


@pytest.mark.parametrize("module", modules())
def test_a_package_imports_only_what_lies_below_it(module: str):
    allowed = MAY_IMPORT[owner(module)] | {owner(module).partition(".")[0]}
    ours = [name.split(".") for name in imports(modules()[module]) if name.partition(".")[0] == "gauntlet"]
    wrong = [".".join(name) for name in ours if len(name) < 2 or name[1] not in allowed]
    assert not wrong


def test_models_do_not_reach_into_training():
    """Recipes know networks, not the other way round."""
    for module, file in modules().items():
        if owner(module) == "models":
            assert not [name for name in imports(file) if name.startswith("gauntlet.models.training")], module


@pytest.mark.parametrize("package", ["registry", "results"])
def test_light_packages_import_no_torch(package: str):
    foreign = {"torch", "torchvision", "foolbox"} | ({"pandas", "numpy"} if package == "registry" else set())
    for module, file in modules().items():
        if module.partition(".")[0] == package:
            assert not {name.partition(".")[0] for name in imports(file)} & foreign, module


def test_the_registry_imports_the_standard_library_only():
    for module, file in modules().items():
        if owner(module) == "registry":
            outside = {name.partition(".")[0] for name in imports(file)} - sys.stdlib_module_names - {"gauntlet"}
            assert not outside, module


def test_no_modules_import_one_another_in_a_circle():
    """Also not inside functions, where Python would not mind."""
    known = modules()
    graph = {module: imported_modules(file, known) - {module} for module, file in known.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_the_rules_see_relative_imports_inside_functions():
    """A guard for the guards above: this import is there, two levels deep, and the parser finds it."""
    assert "gauntlet.results.frame.load_results" in set(imports(ROOT / "bench" / "cli.py"))
    assert "gauntlet.datasets.ImageSet" in set(imports(ROOT / "models" / "training" / "recipe.py"))
    assert {"bench.jobs", "registry"} <= imported_modules(ROOT / "bench" / "plan.py", modules())
    jobs = ROOT / "bench" / "jobs.py"
    assert "gauntlet.bench.context.RowContext" in set(imports(jobs)) - set(imports(jobs, for_checkers=False))


@pytest.mark.parametrize("module", modules())
def test_every_module_can_be_imported(module: str):
    assert importlib.import_module(f"gauntlet.{module}").__doc__


# -- the package itself ---------------------------------------------------------------------------------------


def loaded_after(code: str) -> set[str]:
    """Top-level names of the modules that are loaded after ``code`` ran in a fresh interpreter."""
    report = "import sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    answer = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(json.loads(answer.stdout.splitlines()[-1]))


def test_importing_gauntlet_and_its_decorators_loads_nothing_heavy():
    heavy = {"torch", "torchvision", "pandas", "numpy", "scipy", "sklearn", "foolbox", "matplotlib", "pydantic", "rich"}
    assert not loaded_after("from gauntlet import attack, dataset, detector, model, recipe, GauntletError") & heavy
    assert "torch" in loaded_after("from gauntlet import run")
    assert "torch" not in loaded_after("from gauntlet import load_results")


def test_every_public_name_is_there():
    assert all(getattr(gauntlet, name) is not None for name in gauntlet.__all__)
    with pytest.raises(AttributeError, match="module 'gauntlet' has no attribute 'ran'"):
        _ = gauntlet.ran


@pytest.mark.parametrize("package", ["registry", "results", "datasets", "attacks", "detectors", "models", "bench"])
def test_what_a_package_exports_exists(package: str):
    module = importlib.import_module(f"gauntlet.{package}")
    assert module.__all__
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


# -- files ----------------------------------------------------------------------------------------------------

GENERATED = {"__pycache__", "build", "dist", "gauntlet-out", "venv"}
MACHINE_PATH = re.compile(r"(?<![\w.~/:-])/(?:home|Users|root|work|mnt|tmp|var/folders)/\w|\b[A-Z]:\\Users\\")


def text_files() -> Iterator[Path]:
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any((part.startswith(".") and part != ".ci") or part.endswith(".egg-info") for part in parts)
        if path.is_file() and not hidden and not GENERATED & set(parts):
            yield path


def test_no_file_holds_a_path_of_somebodys_machine():
    found = []
    for path in text_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert not found


@pytest.mark.parametrize("text", ["open('/home/" + "me/x')", "see /Users/" + "me", "C:" + "\\Users\\me"])
def test_such_paths_would_be_found(text: str):
    assert MACHINE_PATH.search(text)
