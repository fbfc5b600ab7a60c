"""The commands `gauntlet data check` and `gauntlet data audit`: what is wrong with the files of data sets."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_options import echo

if TYPE_CHECKING:
    from ..datasets import ResolvedDataset
    from ..datasets.audit import Finding


@click.group()
def data() -> None:
    """Look at the files of data sets."""


_root = click.option(
    "--data", "root", type=click.Path(path_type=Path), help="Data root [default: $GAUNTLET_DATA or the cache]."
)


_plugin = click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load a plug-in; repeatable.")


@data.command()
@click.argument("name")
@click.option("--save", type=click.Path(path_type=Path), help="Write down sizes and hashes of all files.")
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="Compare with what was written down.")
@_root
@_plugin
def check(name: str, save: Path | None, against: Path | None, root: Path | None, plugins: tuple[str, ...]) -> None:
    """Decode every image of a data set, and say what is missing, damaged, altered or extra.

    NAME is that of a data set, a path, or a spec in YAML. Exits with 1 if anything is wrong.

    \b
    gauntlet data check cifar10
    gauntlet data check photos/ --save photos.json
    gauntlet data check '{image-list: {path: test.txt, root: images}}' --against photos.json
    """
    from ..datasets import audit

    dataset = _resolved(name, root, plugins)
    _report(audit.check(dataset, None if against is None else audit.read_manifest(against)))
    if save is not None:
        save.write_text(audit.as_text(audit.manifest(dataset)), encoding="utf-8")


@data.command(name="audit")
@click.argument("name")
@click.option("--ood", multiple=True, metavar="NAME", help="Look for images of NAME in this set too; repeatable.")
@_root
@_plugin
def audit_(name: str, ood: tuple[str, ...], root: Path | None, plugins: tuple[str, ...]) -> None:
    """Find images that are in more than one split of a data set, or inside OOD sets, by their pixels.

    Exits with 1 if there are any.

    \b
    gauntlet data audit photos/ --ood holiday/ --ood svhn
    """
    from ..datasets.audit import audit

    inside = _resolved(name, root, plugins)
    outside = [_resolved(other, root, (), shape=inside.shape) for other in ood]
    _report(audit(inside, outside), otherwise="No image occurs twice.")


def _resolved(name: str, root: Path | None, plugins: tuple[str, ...], **options: Any) -> ResolvedDataset:
    import yaml

    from ..datasets import DataSource, as_spec, resolve
    from ..registry import REGISTRIES, load_entry_points, load_plugins
    from ..registry.folders import cache_folder, data_root

    for problem in [*load_entry_points(REGISTRIES.values()), *load_plugins(plugins, REGISTRIES.values())]:
        echo(f"Warning: {problem}", err=True)
    source = DataSource(data_root(root), cache_folder())
    spec = yaml.safe_load(name) if name.lstrip().startswith("{") else as_spec(name, source=source)
    return resolve(spec, source, **options)


def _report(findings: Iterable[Finding], otherwise: str = "") -> None:
    wrong, count = False, 0
    for count, finding in enumerate(findings, 1):  # noqa: B007
        echo(f"{'FAIL' if finding.wrong else 'ok  '}  {finding.text}")
        wrong = wrong or finding.wrong
    if not count and otherwise:
        echo(otherwise)
    if wrong:
        sys.exit(1)
