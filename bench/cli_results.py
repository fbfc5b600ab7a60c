"""The commands that read a finished store: baseline and check here, the others in modules of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .cli_options import columns, out_option, suite_option
from .cli_options import results as _results


def register(group: click.Group) -> None:
    """Add the commands to ``group``."""
    from .cli_plot import plot
    from .cli_report import report
    from .cli_table import table

    for command in (table, plot, report, baseline, check):
        group.add_command(command)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--metrics", metavar="NAME,...", help="Which metrics to keep [default: the headline ones].")
@suite_option
@out_option
def baseline(path: Path, metrics: str | None, suite: str | None, out: Path) -> None:
    """Freeze the current results as a small CSV to commit."""
    from ..results.drift import make_baseline, write_baseline

    frame = _results(out, suite)
    made = make_baseline(frame, columns(metrics) or None)
    write_baseline(made, path)
    click.echo(f"{len(made)} values are in {path}.", err=True)


@click.command()
@click.argument("path", metavar="BASELINE", type=click.Path(path_type=Path))
@click.option("--tolerance", default=0.03, show_default=True, help="Smallest difference that can be a drift.")
@click.option("--all", "show_all", is_flag=True, help="Show values that hold, too.")
@suite_option
@out_option
def check(path: Path, tolerance: float, show_all: bool, suite: str | None, out: Path) -> None:
    """Compare the current results with a baseline; exit with 1 on drift, 2 on missing cells.

    A value drifts when it differs by more than the larger of the tolerance and half of both intervals.
    """
    from ..results.drift import compare, read_baseline
    from ..results.tables import render

    report = compare(read_baseline(path), _results(out, suite), tolerance=tolerance)
    shown = show_all or report.exit_status
    click.echo(render(report.table(only_bad=not show_all), "plain") if shown else report.summary)
    sys.exit(report.exit_status)
