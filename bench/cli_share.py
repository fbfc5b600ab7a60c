"""The commands `gauntlet merge`, `export`, `import` and `log`: results from one place to another."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .cli_options import chosen, echo, out_option, suite_option, where_option


@click.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Output folder that takes them all.")
def merge(stores: tuple[Path, ...], out: Path) -> None:
    """Join stores of several machines into the one at --out; identical cells stand once.

    A cell that two stores hold with different values keeps the one that came first, both are reported, and the exit
    status is 1.
    """
    from ..results.merge import merge_stores

    conflicts = merge_stores(stores, out)
    for conflict in conflicts:
        echo(str(conflict))
    echo(f"{len(stores)} stores are in {out}, with {len(conflicts)} conflicts.", err=True)
    sys.exit(1 if conflicts else 0)


@click.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--scores", is_flag=True, help="Scores, predictions and norms image by image; to .csv, .npz or .parquet.")
@where_option
@suite_option
@out_option
def export(path: Path, scores: bool, wanted: tuple[str, ...], suite: str | None, out: Path) -> None:
    """Write the tidy results to a .csv or .parquet file, without loss."""
    from ..results.exchange import export_frame

    frame = chosen(out, suite, wanted)
    if scores:
        from ..results.scores import per_image, write_scores
        from ..results.store import Store

        with Store.open(out, create=False) as store:
            frame = per_image(frame, store)
    written = write_scores(frame, path) if scores else export_frame(frame, path)
    echo(f"{len(frame)} rows are in {written}.", err=True)


@click.command(name="import")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="Name of the suite they belong to [default: the file's name].")
@out_option
def import_(path: Path, name: str | None, out: Path) -> None:
    """Put exported results into a store, as a run of their own."""
    from ..results.exchange import import_frame
    from ..results.merge import put_frame
    from ..results.store import Store

    frame = import_frame(path)
    with Store.open(out / "store.sqlite") as store:
        put_frame(store, frame, name or path.stem)
    echo(f"{len(frame)} rows of {path} are in {out}.", err=True)


@click.command()
@click.argument("tracker", type=click.Choice(["wandb", "tensorboard"]))
@click.option(
    "--to", type=click.Path(path_type=Path, file_okay=False), help="Folder [default: logs in the output folder]."
)
@click.option("--project", default="gauntlet", show_default=True, help="Project of wandb.")
@click.option("--online", is_flag=True, help="Send to wandb; otherwise it writes to the folder, without an account.")
@where_option
@suite_option
@out_option
def log(
    tracker: str, to: Path | None, project: str, online: bool, wanted: tuple[str, ...], suite: str | None, out: Path
) -> None:
    """Write measurements, training curves and pictures of a finished store to wandb or tensorboard."""
    from ..results.store import Store
    from ..results.trackers import log_tensorboard, log_wandb

    frame = chosen(out, suite, wanted)
    with Store.open(out, create=False) as store:
        folder = to or store.path.parent / "logs"
        if tracker == "wandb":
            log_wandb(frame, store, folder, project=project, online=online)
        else:
            log_tensorboard(frame, store, folder)
    echo(str(folder), err=True)
