"""pytest plug-in: `pytest --gauntlet SUITE --gauntlet-baseline FILE` makes every cell of a baseline a test.

The suite runs once, when the first of these tests does; finished cells are reused as in `gauntlet run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pandas as pd

    from .results.drift import Report


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; without ``--gauntlet`` the plug-in does nothing."""
    group = parser.getgroup("gauntlet", "robustness of image classifiers")
    group.addoption("--gauntlet", metavar="SUITE", help="Run this suite and test its cells against a baseline.")
    group.addoption("--gauntlet-baseline", metavar="FILE", help="CSV of `gauntlet baseline`.")
    group.addoption(
        "--gauntlet-plugin", metavar="FILE|MODULE", action="append", default=[], help="Load a plug-in; repeatable."
    )
    group.addoption("--gauntlet-out", metavar="DIR", default="gauntlet-out", help="Output folder.")
    group.addoption("--gauntlet-device", metavar="DEVICE", default="auto", help="auto, cpu, cuda[:i] or mps.")
    group.addoption("--gauntlet-tolerance", metavar="SHARE", type=float, default=0.03, help="Never a drift below this.")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add one test per cell of the baseline."""
    suite, baseline = config.getoption("--gauntlet"), config.getoption("--gauntlet-baseline")
    if suite is None:
        return
    if baseline is None:
        raise pytest.UsageError("--gauntlet needs --gauntlet-baseline FILE; `gauntlet baseline FILE` writes one.")
    items += Cells.from_parent(session, name=f"gauntlet[{suite}]", suite=suite, baseline=Path(baseline)).collect()


class Cells(pytest.Collector):
    """The cells of a baseline; the suite runs when the first is tested."""

    def __init__(self, *, suite: str, baseline: Path, **rest: Any) -> None:
        super().__init__(**rest)
        self._suite, self._baseline = suite, baseline
        self._report: Report | None = None

    def collect(self) -> Iterator[Cell]:
        """One item a cell, named by its identity."""
        from .registry import GauntletError
        from .results.drift import identity_of, read_baseline

        try:
            frozen = read_baseline(self._baseline)
        except GauntletError as error:
            raise pytest.UsageError(str(error)) from None
        for name in dict.fromkeys(identity_of(row) for _, row in frozen.iterrows()):
            yield Cell.from_parent(self, name=name)

    def rows(self, name: str) -> pd.DataFrame:
        """The report's rows of one cell."""
        from .results.drift import identity_of

        if self._report is None:
            self._report = self._compared()
        rows = self._report.rows
        return rows[[identity_of(row) == name for _, row in rows.iterrows()]]

    def _compared(self) -> Report:
        from .bench.cli_check import compare_with
        from .bench.runner import run_suite
        from .bench.suite import load_suite
        from .results.drift import read_baseline
        from .results.frame import load_results
        from .results.tolerance import Rule

        option = self.config.getoption
        out = Path(option("--gauntlet-out"))
        plugins, device = option("--gauntlet-plugin"), option("--gauntlet-device")
        outcome = run_suite(self._suite, out=out, device=device, plugins=plugins)
        frame = load_results(out, run=outcome.run_id)
        first = Rule({}, "statistical", option("--gauntlet-tolerance"))
        before = read_baseline(self._baseline)
        return compare_with(self._baseline, before, frame, out, load_suite(self._suite).name, first)


class Cell(pytest.Item):
    """A cell of the baseline: it fails where one of its metrics drifted or is missing."""

    def runtest(self) -> None:
        """Compare the cell's metrics."""
        from .results.drift import sentence

        assert isinstance(self.parent, Cells)
        rows = self.parent.rows(self.name)
        bad = [sentence(row) for _, row in rows[rows["verdict"].isin(["drifted", "missing"])].iterrows()]
        if bad:
            raise Drifted("\n".join(bad))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Only the sentences, where it drifted or the user can put it right."""
        from .registry import GauntletError

        known = isinstance(excinfo.value, (Drifted, GauntletError))
        return str(excinfo.value) if known else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """The baseline is where a cell is from."""
        assert isinstance(self.parent, Cells)
        return self.parent._baseline, None, self.name


class Drifted(Exception):
    """A metric of a cell drifted or is missing; the message names it."""
