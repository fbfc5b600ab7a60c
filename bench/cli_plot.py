"""The command `gauntlet plot`: pictures from a finished store."""

from __future__ import annotations

from pathlib import Path

import click

from .cli_options import chosen, echo, out_option, suite_option, where_option


@click.command()
@click.argument("kind", required=False)
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to, .svg, .png or .pdf; repeatable [default: plots/KIND.svg and .png in the output folder].",
)
@where_option
@suite_option
@out_option
def plot(kind: str | None, files: tuple[Path, ...], wanted: tuple[str, ...], suite: str | None, out: Path) -> None:
    """Draw a plot from a finished store; without KIND, list the kinds.

    \b
    gauntlet plot roc --where model=CNN --where ood_dataset=glyphs
    gauntlet plot adversarial-examples --where attack=LinPGDA --where epsilon=0.3 --file pgd.png
    """
    from ..results.plots import Material, draw, kinds, save
    from ..results.store import Store

    if kind is None:
        width = max(map(len, kinds()))
        echo("\n".join(f"{known.name:{width}}  {known.summary}" for known in kinds().values()))
        return
    with Store.open(out, create=False) as store:
        made = draw(kind, Material(chosen(out, suite, wanted), store))
        for path in files or [store.path.parent / "plots" / f"{kind}{suffix}" for suffix in (".svg", ".png")]:
            echo(str(save(made, path)), err=True)
