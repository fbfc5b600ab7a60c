"""The examples in the docstrings of the attacks are right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import gauntlet.attacks

MODULES = [module.name for module in pkgutil.iter_modules(gauntlet.attacks.__path__) if "foolbox" not in module.name]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_give_what_they_show(name: str) -> None:
    module = importlib.import_module(f"gauntlet.attacks.{name}")
    assert doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL).failed == 0
