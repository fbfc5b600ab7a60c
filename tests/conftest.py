"""Several workers (``pytest -n auto``) share the cores: each computes on one."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything imports torch, which reads it once
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=0, metavar="N", help="Try so many hostile inputs, not only a few.")


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> int:
    """How many hostile inputs are asked for; 0 for the few of the default suite."""
    return int(request.config.getoption("--fuzz"))
