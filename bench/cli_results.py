"""Commands that read a finished store: table, baseline, check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..registry import GauntletError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("plain", "github", "latex", "html", "csv")

_out = click.option(
    "--out", default="gauntlet-out", show_default=True, type=click.Path(path_type=Path), help="Output folder."
)
_suite = click.option("--suite", metavar="NAME", help="Only this suite's latest run.")


def register(group: click.Group) -> None:
    """Add the commands to ``group``."""
    for command in (table, baseline, check):
        group.add_command(command)


@click.command()
@click.argument("preset", required=False, type=click.Choice(["attack-grid", "minimal", "checks", "ood", "calibration"]))
@click.option("--rows", metavar="COLUMN,...", help="Columns of the results whose values become rows.")
@click.option("--columns", metavar="COLUMN,...", help="Columns of the results whose values become columns.")
@click.option("--metric", metavar="NAME", help="What stands in the cells, such as auroc or robust_accuracy.")
@click.option("--where", "conditions", multiple=True, metavar="COLUMN=VALUE", help="Keep only these rows; repeatable.")
@click.option("--format", "style", default="plain", show_default=True, type=click.Choice(FORMATS))
@_suite
@_out
def table(
    preset: str | None,
    rows: str | None,
    columns: str | None,
    metric: str | None,
    conditions: tuple[str, ...],
    style: str,
    suite: str | None,
    out: Path,
) -> None:
    """Make a table from a finished store: a preset, or any pivot.

    \b
    gauntlet table ood
    gauntlet table --rows detector --columns model,ood_dataset --metric fpr95 --format latex
    """
    import pandas as pd

    from ..results.frame import load_results
    from ..results.tables import PRESETS, checks_of, pivot, render, select

    everything = load_results(out, suite=suite)
    chosen = select(everything, _conditions(conditions))
    checks = checks_of(everything)  # a selection keeps its marks
    frame = pd.concat([chosen, checks[~checks.index.isin(chosen.index)]]) if preset != "checks" else chosen
    if preset is not None:
        if rows or columns:
            raise GauntletError("Give a preset, or --rows and --columns, not both.")
        extra = {"metric": metric} if metric and preset == "ood" else {}
        make: Any = PRESETS[preset]
        tables = make(frame, **extra)
        if not tables:
            raise GauntletError(
                f"These results have nothing for the table {preset!r}; `gauntlet run` a suite that has."
            )
    else:
        if not (rows and columns and metric):
            raise GauntletError(
                "Give a preset (attack-grid, minimal, checks, ood, calibration), or --rows, --columns and --metric."
            )
        tables = [pivot(frame, rows.split(","), columns.split(","), metric)]
    click.echo("\n\n".join(render(item, style) for item in tables))


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--metrics", metavar="NAME,...", help="Which metrics to keep [default: the headline ones].")
@_suite
@_out
def baseline(path: Path, metrics: str | None, suite: str | None, out: Path) -> None:
    """Freeze the current results as a small CSV to commit."""
    from ..results.drift import make_baseline, write_baseline

    frame = _results(out, suite)
    made = make_baseline(frame, metrics.split(",") if metrics else None)
    write_baseline(made, path)
    click.echo(f"{len(made)} values are in {path}.", err=True)


@click.command()
@click.argument("path", metavar="BASELINE", type=click.Path(path_type=Path))
@click.option("--tolerance", default=0.03, show_default=True, help="Smallest difference that can be a drift.")
@click.option("--all", "show_all", is_flag=True, help="Show values that hold, too.")
@_suite
@_out
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


def _results(out: Path, suite: str | None) -> pd.DataFrame:
    from ..results.frame import load_results

    return load_results(out, suite=suite)


def _conditions(texts: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        column, sign, value = text.partition("=")
        if not sign:
            raise GauntletError(f"--where {text!r}: write COLUMN=VALUE, such as --where model=cnn-small.")
        found.setdefault(column, []).append(value)
    return found
