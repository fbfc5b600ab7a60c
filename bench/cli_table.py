"""The command `gauntlet table`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..registry import GauntletError, nearest
from .cli_options import columns, echo, narrowed, out_option, reported_option, results, suite_option, where_option

if TYPE_CHECKING:
    import pandas as pd

    from ..results.presets import Preset
    from ..results.table import Table

SUFFIXES = {
    ".md": "github",
    ".tex": "latex",
    ".html": "html",
    ".csv": "csv",
    ".rst": "rst",
    ".txt": "plain",
    ".parquet": "parquet",
}
_OF_MEANS = ("safety", "ood", "corruptions")  # presets that average over cells
FORMATS = ("plain", "github", "latex", "latex-siunitx", "html", "rst", "csv", "parquet")


@click.command()
@click.argument("preset", required=False, metavar="[NAME]")
@click.option("--rows", metavar="COLUMN,...", help="Columns of the results whose values become rows.")
@click.option("--columns", "across", metavar="COLUMN,...", help="Columns of the results whose values become columns.")
@click.option("--metric", metavar="NAME,...", help="What stands in the cells, such as auroc or robust_accuracy.")
@click.option("--layout", type=click.Choice(["sets", "groups", "models"]), help="Of the preset ood [default: sets].")
@click.option(
    "--means",
    type=click.Choice(["common", "own"]),
    help="Over the cells that all rows have, or over all that each has [default: common].",
)
@click.option(
    "--format", "style", type=click.Choice(FORMATS), help="[default: what the suffix of --file says, else plain]"
)
@click.option("--percent/--fraction", default=None, help="Show percent or fractions [default: percent of shares].")
@click.option("--decimals", type=click.IntRange(0, 12), help="Digits after the point [default: 1 of percent, else 3].")
@click.option(
    "--interval",
    default="half",
    show_default=True,
    type=click.Choice(["half", "range", "none"]),
    help="VALUE ± HALF, VALUE (LOW, HIGH), or none.",
)
@click.option(
    "--best", type=click.Choice(["row", "column"]), help="Bold: what is not significantly worse than the best."
)
@click.option("--ranks", is_flag=True, help="Between which ranks each value is, and its group (#1 to #3 AB).")
@click.option(
    "--over",
    type=click.Choice(["images", "seeds", "both"]),
    help="What comparisons take as random [default: images, and seeds where there are several].",
)
@click.option("--sort", metavar="[-]HEADER", help="Sort rows by a row name or column header; - puts the largest first.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option(
    "--update",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Put the Markdown between <!-- gauntlet:NAME --> and <!-- /gauntlet:NAME --> of this file.",
)
@click.option("--name", help="The NAME of --update [default: the preset, or 'table'].")
@where_option
@reported_option
@suite_option
@out_option
def table(
    preset: str | None,
    rows: str | None,
    across: str | None,
    metric: str | None,
    layout: str | None,
    means: str | None,
    style: str | None,
    interval: str,
    best: str | None,
    ranks: bool,
    over: str | None,
    sort: str | None,
    file: Path | None,
    update: Path | None,
    name: str | None,
    wanted: tuple[str, ...],
    reported: tuple[Path, ...],
    suite: str | None,
    out: Path,
    **numbers: Any,
) -> None:
    """Make a table from a finished store: a preset (also one of a plug-in's evaluator), or any pivot.

    \b
    gauntlet table ood --layout groups --best column
    gauntlet table --rows detector --columns model,ood_dataset --metric fpr95 --format latex
    gauntlet table attack-grid --update README.md
    """
    import pandas as pd

    from ..results.emphasis import sort_rows
    from ..results.tables import checks_of, render

    makers = known_presets(out, suite)
    if preset is not None and preset not in makers:
        raise GauntletError(f"There is no table {preset!r}; {nearest(preset, makers, limit=30)}")
    style = style or SUFFIXES.get("" if file is None else file.suffix.lower(), "plain")
    intervals = {"half": True, "range": "range", "none": False}[interval]
    options = {**numbers, "intervals": intervals, "best": best or "column" * ranks, "ranks": ranks, "over": over or ""}
    everything = results(out, suite, columns(metric) or (makers[preset].metrics if preset else ()))
    frame = narrowed(everything, wanted, reported)
    if preset != "checks":  # a selection keeps the marks of checks that failed
        checks = checks_of(everything)
        lost = checks[~checks["key"].isin(frame["key"])]
        frame = pd.concat([frame, lost], ignore_index=True) if len(lost) else frame
    if means and preset is None:
        raise GauntletError(f"--means belongs to the presets {', '.join(_OF_MEANS)}.")
    if preset is not None and (rows or across):
        raise GauntletError("Give a preset, or --rows and --columns, not both.")
    with _arrays(out if options["best"] else None) as arrays:
        if preset is not None:
            tables = _preset(frame, preset, makers[preset], metric, layout, means, {**options, **arrays})
        else:
            tables = [_pivot(frame, rows, across, metric, {**options, **arrays}, makers)]
    tables = [sort_rows(item, sort) for item in tables] if sort else tables
    if style == "parquet":
        _parquet(tables, file)
    elif update is not None:
        _update(update, name or preset or "table", "\n\n".join(render(item, "github") for item in tables))
    else:
        _show("\n\n".join(render(item, style) for item in tables), file)


@contextlib.contextmanager
def _arrays(out: Path | None) -> Iterator[dict[str, Any]]:
    """The option ``arrays`` of tables, where rows are compared."""
    from ..results.store import Store

    if out is None:
        yield {}
        return
    with Store.open(out, create=False) as store:
        yield {"arrays": store.arrays}


def known_presets(out: Path, suite: str | None) -> Mapping[str, Preset]:
    """The presets by name: ours, and those that the evaluators of the store's runs declare."""
    from ..results.store import Store
    from ..results.tables import presets

    if not (out / "store.sqlite").is_file():  # reading the results will say so
        return presets()
    with Store.open(out, create=False) as store:
        runs = [run.run_id for run in store.runs() if suite in (None, run.suite)]
        return presets(store.declarations(runs).values())


def _preset(
    frame: pd.DataFrame,
    name: str,
    make: Preset,
    metric: str | None,
    layout: str | None,
    means: str | None,
    options: dict[str, Any],
) -> list[Table]:
    if (metric or layout) and name != "ood":
        raise GauntletError(f"--metric and --layout belong to the preset ood, not to {name}.")
    if means and name not in _OF_MEANS:
        raise GauntletError(f"--means belongs to the presets {', '.join(_OF_MEANS)}, not to {name}.")
    extra = {key: value for key, value in (("metric", metric), ("layout", layout), ("means", means)) if value}
    tables = make(frame, **extra, **options)
    if not tables:
        raise GauntletError(f"These results have nothing for the table {name!r}; `gauntlet run` a suite that has.")
    return tables


def _pivot(
    frame: pd.DataFrame,
    rows: str | None,
    across: str | None,
    metric: str | None,
    options: dict[str, Any],
    presets: Iterable[str],
) -> Table:
    from ..results.tables import pivot

    if not (rows and across and metric):
        raise GauntletError(f"Give a preset ({', '.join(presets)}), or --rows, --columns and --metric.")
    return pivot(frame, columns(rows), columns(across), columns(metric), **options)


def _show(text: str, file: Path | None) -> None:
    from ..results.frame import write_text

    if file is None:
        echo(text)
    else:
        echo(str(write_text(f"{text}\n", file)), err=True)


def _update(path: Path, name: str, text: str) -> None:
    from ..results.splice import splice

    changed = splice(path, name, text)
    echo(f"{path}: {name} {'updated' if changed else 'is up to date'}.", err=True)


def _parquet(tables: list[Table], file: Path | None) -> None:
    from ..results.exchange import write_parquet
    from ..results.tabular import as_frame

    if file is None or len(tables) != 1:
        raise GauntletError("Parquet takes --file and one table; select one dataset with --where dataset=NAME.")
    echo(str(write_parquet(as_frame(tables[0]), file)), err=True)
