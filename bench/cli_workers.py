"""Commands of workers: `gauntlet worker` is one of them, `gauntlet collect` brings in what they left."""

from __future__ import annotations

from pathlib import Path

import click

from .cli_options import out_option


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--parent", type=int, hidden=True)
def worker(plan: Path, parent: int | None) -> None:
    """Compute what no other worker does of a run.

    PLAN is the file `workers/RUN/plan.json` of an output folder, while `gauntlet run SUITE --workers N` is at work:
    start as many as you like, wherever the files are seen.
    """
    from .runner import plan_of
    from .worker import work

    work(plan, plan_of, parent)


@click.command()
@out_option
def collect(out: Path) -> None:
    """Bring what killed runs left in journals into the store; `gauntlet run` does so by itself."""
    from ..results.store import Store
    from .workers import collect_leftovers

    with Store.open(out / "store.sqlite", create=False) as store:
        click.echo(f"{collect_leftovers(out, store)} cells were in journals.")
