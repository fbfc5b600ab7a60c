"""What the commands that read a store share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..registry import GauntletError, harmless

if TYPE_CHECKING:
    import pandas as pd


def echo(text: str, *, err: bool = False) -> None:
    """Print a text that may hold labels of anybody's; all commands print through here."""
    click.echo(harmless(text), err=err)


DEFAULT_OUT = "gauntlet-out"
out_option = click.option(
    "--out", default=DEFAULT_OUT, show_default=True, type=click.Path(path_type=Path), help="Output folder."
)
suite_option = click.option("--suite", metavar="NAME", help="Only this suite's latest run.")
where_option = click.option(
    "--where",
    "wanted",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Keep only these rows; repeatable, * is a wildcard.",
)
reported_option = click.option(
    "--reported",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="CSV of published numbers to show beside ours; repeatable.",
)


def results(out: Path, suite: str | None, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """The tidy results of one suite, the named one or else the one that ran last: all metrics, or only some.

    Suites that share a store may give one label to different models, so that their rows do not belong in one table.
    Where none of the wanted metrics was measured, all are there, so that a message can name the nearest.
    """
    from ..results.frame import load_coded
    from ..results.store import Store

    if suite is None and (out / "store.sqlite").is_file():
        with Store.open(out / "store.sqlite", create=False) as store:
            names = [run.suite for run in store.runs() if run.cells]
        suite = names[-1] if names else None
        if len(set(names)) > 1:
            others = ", ".join(sorted(set(names) - {names[-1]}))
            echo(f"These are the results of {suite}; --suite shows others: {others}.", err=True)
    if metrics:
        frame = load_coded(out, suite=suite, metrics=[*metrics, "check_passed"])
        if not set(metrics).isdisjoint(frame["metric"].unique()):
            return frame
    return load_coded(out, suite=suite)


def chosen(out: Path, suite: str | None, wanted: Sequence[str], reported: Sequence[Path] = ()) -> pd.DataFrame:
    """The tidy results that meet every ``--where``, with the published ones."""
    return narrowed(results(out, suite), wanted, reported)


def narrowed(frame: pd.DataFrame, wanted: Sequence[str], reported: Sequence[Path] = ()) -> pd.DataFrame:
    """The rows of a frame, and of published numbers, that meet every ``--where``."""
    from ..results.layout import select
    from ..results.reported import with_reported

    frame = with_reported(frame, reported)
    for column, values in conditions(tuple(wanted)).items():
        frame = select(frame, {column: values})
    return frame


def conditions(texts: tuple[str, ...]) -> dict[str, list[str]]:
    """``COLUMN=VALUE`` texts by column; a column that is named twice may have either value.

    Raises:
        GauntletError: A condition is not COLUMN=VALUE.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        column, sign, value = text.partition("=")
        if not sign:
            raise GauntletError(f"--where {text!r}: write COLUMN=VALUE, such as --where model=cnn-small.")
        found.setdefault(column, []).append(value)
    return found


def columns(text: str | None) -> list[str]:
    """Names from a comma-separated list."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
