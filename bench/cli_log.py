"""The command `gauntlet log`: results to an experiment tracker, after the fact."""

from __future__ import annotations

from pathlib import Path

import click

from .cli_options import chosen, out_option, suite_option, where_option


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
    click.echo(str(folder), err=True)
