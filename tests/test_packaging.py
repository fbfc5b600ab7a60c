"""What is shipped: every module and suite, no test; and a command that answers at once."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import gauntlet

ROOT = Path(__file__).parents[1]
SHIPPED = ("registry", "datasets", "models", "attacks", "detectors", "results", "bench")


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def listed(config: configparser.ConfigParser, section: str, key: str) -> list[str]:
    return [
        line.partition("#")[0].strip() for line in config[section][key].splitlines() if line.partition("#")[0].strip()
    ]


def packages_on_disk() -> set[str]:
    """`gauntlet` and every folder below the shipped ones that holds Python files."""
    files = [path for top in SHIPPED for path in (ROOT / top).rglob("*.py")]
    return {"gauntlet", *(".".join(["gauntlet", *path.relative_to(ROOT).parts[:-1]]) for path in files)}


# -- setup.cfg ------------------------------------------------------------------------------------------------


def test_the_package_list_is_what_is_on_disk(config):
    packages = listed(config, "options", "packages")
    assert sorted(packages) == sorted(packages_on_disk())


def test_every_package_has_an_init_file():
    for package in packages_on_disk():
        assert ROOT.joinpath(*package.split(".")[1:], "__init__.py").is_file(), package


def test_no_top_level_folder_with_python_in_it_was_forgotten():
    known = {*SHIPPED, "tests", "examples", "docs", "build", "dist"}
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py") if not path.parent.name.startswith(".")}
    assert folders <= known


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_suites_and_the_typing_marker_are_package_data(config):
    data = {package: listed(config, "options.package_data", package) for package in config["options.package_data"]}
    page = ["*.j2", "*.css", "*.js"]
    bench = ["suites/*.yaml", "templates/*"]
    lists = {"gauntlet.datasets.files": ["openood.sha256"]}
    assert data == {"gauntlet": ["py.typed"], "gauntlet.bench": bench, "gauntlet.results.page": page, **lists}
    assert (ROOT / "py.typed").is_file()
    assert {path.stem for path in (ROOT / "bench" / "suites").iterdir()} >= {"quickstart", "mnist-quick", "everything"}


def test_data_files_in_packages_are_all_declared(config):
    """A new kind of file in a package must not stay at home."""
    declared = {
        path
        for package in config["options.package_data"]
        for pattern in listed(config, "options.package_data", package)
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    found = {
        path
        for top in SHIPPED
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert found <= declared


def test_requirements_are_those_of_the_issue(config):
    needed = listed(config, "options", "install_requires")
    assert "torch>=2.4" in needed
    assert "torchvision" in needed
    assert "scipy<2" in needed
    assert config["options"]["python_requires"] == ">=3.11"
    upper = [line for line in needed if "<" in line or "==" in line]
    assert upper == ["scipy<2"]
    assert set(config["options.extras_require"]) >= {"test", "wandb", "tensorboard", "dev"}


def test_everything_that_is_imported_is_required(config):
    """Also what another requirement would bring along today."""
    names = {"yaml": "pyyaml", "sklearn": "scikit-learn", "eagerpy": "foolbox", "PIL": "torchvision"}
    names["markupsafe"] = "jinja2"
    lines = listed(config, "options", "install_requires")
    required = {re.split(r"[<>=]", line)[0].lower() for line in lines}
    optional = {"wandb", "tensorboard", "pytest"}  # who uses the pytest plug-in has pytest
    for file in [*ROOT.glob("*.py"), *(path for top in SHIPPED for path in (ROOT / top).rglob("*.py"))]:
        for name in re.findall(r"^\s*(?:from|import) ([a-zA-Z_]\w*)", code_of(file), re.MULTILINE):
            if name not in sys.stdlib_module_names and name != "gauntlet":
                assert names.get(name, name).lower() in required | optional, f"{file.name} imports {name}"


def code_of(file: Path) -> str:
    """The text of a file without strings in triple quotes, which hold examples."""
    return re.sub(r'""".*?"""', "", file.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_version_is_the_same_everywhere(config):
    assert gauntlet.__version__ == config["metadata"]["version"]


# -- the wheel ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of a copy of the checkout, with an old `build/` lying about: nothing of it may be shipped."""
    pytest.importorskip("setuptools", minversion="70.1")
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "venv", "gauntlet-out")
    shutil.copytree(ROOT, folder / "checkout", ignore=ignored)
    stale = folder / "checkout" / "build" / "stale" / "__init__.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*command, "--quiet", "--wheel-dir", str(folder), str(folder / "checkout")], check=True, capture_output=True
    )
    (path,) = folder.glob("gauntlet_bench-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_module_and_suite_and_nothing_else(wheel: zipfile.ZipFile):
    modules = [*ROOT.glob("*.py"), *(path for top in SHIPPED for path in (ROOT / top).rglob("*.py"))]
    page = [path for path in (ROOT / "results" / "page").iterdir() if path.suffix in (".j2", ".css", ".js")]
    bench = [*(ROOT / "bench" / "suites").glob("*.yaml"), *(ROOT / "bench" / "templates").iterdir()]
    data = [ROOT / "py.typed", ROOT / "datasets" / "files" / "openood.sha256", *bench, *page]
    expected = {f"gauntlet/{path.relative_to(ROOT).as_posix()}" for path in [*modules, *data]}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected


def test_the_wheel_declares_the_command_the_licence_and_the_extras(wheel: zipfile.ZipFile):
    info = next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
    assert info == f"gauntlet_bench-{gauntlet.__version__}.dist-info"
    assert "gauntlet = gauntlet.bench.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert any(name.startswith(f"{info}/") and name.endswith("LICENSE") for name in wheel.namelist())
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "Name: gauntlet-bench" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "Provides-Extra: wandb" in metadata


# -- the command ----------------------------------------------------------------------------------------------


def answer(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def script() -> str:
    path = Path(sys.executable).with_name("gauntlet")
    if not path.is_file():
        pytest.skip("gauntlet is not installed in this environment")
    return str(path)


def test_the_module_and_the_console_script_answer_with_the_version(tmp_path: Path):
    for command in ([sys.executable, "-m", "gauntlet"], [script()]):
        result = answer(*command, "--version", folder=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.rstrip().endswith(importlib.metadata.version("gauntlet-bench"))


def test_help_imports_nothing_heavy(tmp_path: Path):
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        result = answer(sys.executable, "-X", "importtime", "-m", "gauntlet", *arguments, folder=tmp_path)
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
        heavy = {"torch", "pandas", "numpy", "scipy", "sklearn", "foolbox", "matplotlib", "pydantic", "yaml", "rich"}
        assert result.returncode == 0
        assert "click" in loaded  # the list of imports was read
        assert not loaded & heavy


def test_help_names_every_command(tmp_path: Path):
    shown = answer(sys.executable, "-m", "gauntlet", "--help", folder=tmp_path).stdout
    for command in ("run", "plan", "list", "train", "table", "baseline", "check"):
        assert re.search(rf"^  {command} ", shown, re.MULTILINE), command


@pytest.mark.benchmark_suite
def test_help_takes_less_than_half_a_second(tmp_path: Path):
    """The best of five; without byte code the first start would be slower."""
    command = script()
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, check=True)
        taken.append(time.perf_counter() - started)
    assert min(taken) < 0.5
