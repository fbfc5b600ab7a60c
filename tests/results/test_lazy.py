"""The package's face: names load on demand, and what is imported stays light."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import gauntlet.results


def test_every_public_name_is_what_its_module_defines() -> None:
    for home, names in gauntlet.results._HOMES.items():
        module = importlib.import_module(f"gauntlet.results.{home}")
        for name in names:
            assert getattr(gauntlet.results, name) is getattr(module, name)


def test_the_public_names_are_complete() -> None:
    assert sorted(sum(gauntlet.results._HOMES.values(), ())) == sorted(gauntlet.results.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tabels'"):
        gauntlet.results.tabels  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import gauntlet.results", ["numpy", "pandas", "scipy", "torch", "sqlite3"]),
        ("from gauntlet.results import Store", ["pandas", "scipy", "torch"]),
        ("import gauntlet.results.tables, gauntlet.results.drift, gauntlet.results.paired_tests", ["torch", "sklearn"]),
    ],
)
def test_heavy_libraries_are_not_imported_before_they_are_needed(statement: str, absent: list[str]) -> None:
    code = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
