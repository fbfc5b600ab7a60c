"""`gauntlet init`: a suite and a plug-in to begin with."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from ..registry import GauntletError
from .cli_options import echo

#: File that is written, and the template that it is a copy of.
_FILES = {"suite.yaml": "suite.yaml", "plugin.py": "plugin.txt"}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
def init(folder: Path) -> None:
    """Write a commented suite and a plug-in into FOLDER, which run as they are.

    Example: gauntlet init mine && cd mine && gauntlet run suite.yaml --plugin plugin.py
    """
    if taken := [name for name in _FILES if (folder / name).exists()]:
        raise GauntletError(f"{folder / taken[0]} is there already; name another folder: `gauntlet init NAME`.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, template in _FILES.items():
            text = (resources.files("gauntlet.bench") / "templates" / template).read_text(encoding="utf-8")
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise GauntletError(f"{folder} cannot be written: {error.strerror}.") from None
    where = "" if folder == Path() else f"cd {folder} && "
    echo(f"Wrote {' and '.join(str(folder / name) for name in _FILES)}. Next:")
    echo(f"  {where}gauntlet run suite.yaml --plugin plugin.py")
