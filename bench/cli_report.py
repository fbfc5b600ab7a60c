"""The command `gauntlet report`: the leaderboard page."""

from __future__ import annotations

from pathlib import Path

import click

from .cli_options import chosen, echo, out_option, reported_option, suite_option, where_option


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--title", default="Gauntlet", show_default=True, help="Heading of the page.")
@where_option
@reported_option
@suite_option
@out_option
def report(
    path: Path | None, title: str, wanted: tuple[str, ...], reported: tuple[Path, ...], suite: str | None, out: Path
) -> None:
    """Write the leaderboard page: one HTML file that works offline [default: report.html in the output folder].

    Every evaluator has a table to search, filter and sort; a click on a row opens its provenance and its plots.
    """
    from ..results.frame import write_text
    from ..results.page import build_page
    from ..results.store import Store

    frame = chosen(out, suite, wanted, reported)
    with Store.open(out, create=False) as store:
        text = build_page(frame, store, title=title, references=reference)
        where = write_text(text, path or store.path.parent / "report.html")
    echo(f"{where} ({len(text.encode()) / 1e6:.1f} MB)", err=True)


def reference(kind: str, name: str) -> str:
    """The paper of a registered component, or its summary; empty if it is not registered here."""
    from ..registry import ATTACKS, DETECTORS, MODELS

    registry = {"attack": ATTACKS, "detector": DETECTORS, "model": MODELS}[kind]
    if name not in registry:
        return ""
    entry = registry.get(name)
    return entry.reference or entry.summary
