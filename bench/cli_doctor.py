"""`gauntlet doctor`: whether what Gauntlet needs is here, and what would help where it is not."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

import click

from ..registry.folders import cache_folder, data_root
from .cli_options import echo, out_option

_EXTRAS = ("numba", "safetensors", "tensorboard", "wandb", "timm", "transformers", "torchattacks", "pytorch_ood")


class Finding(NamedTuple):
    """One line of the answer: ``ok``, ``note`` (nothing is wrong) or ``bad``, with what would help."""

    state: str
    what: str
    text: str


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Data root [default: $GAUNTLET_DATA or the cache].")
@out_option
def doctor(data: Path | None, out: Path) -> None:
    """Check Python, torch, the accelerator, data, cache and store, and say what would help.

    Exits with 1 if something is wrong. Example: gauntlet doctor --data ~/data
    """
    findings = list(examine(data, out))
    width = max(len(finding.what) for finding in findings)
    for state, what, text in findings:
        echo(f"{state:<5} {what:<{width}}  {text}")
    if any(finding.state == "bad" for finding in findings):
        sys.exit(1)


def examine(data: Path | None, out: Path) -> Iterator[Finding]:
    """All findings, one after the other."""
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()}, {os.cpu_count()} cores")
    yield _torch()
    yield _accelerator()
    yield _data(data_root(data))
    yield _cache(cache_folder())
    yield _store(out / "store.sqlite")
    present = [name for name in _EXTRAS if util.find_spec(name)]
    yield Finding(
        "note",
        "optional",
        f"installed: {', '.join(present) or 'none'}; "
        f"absent: {', '.join(name for name in _EXTRAS if name not in present) or 'none'}",
    )


def _torch() -> Finding:
    versions = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    try:
        import torchvision.ops  # noqa: F401  it fails where the two do not fit together
    except (ImportError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        cure = "install both in one go: pip install --force-reinstall torch torchvision"
        return Finding("bad", "torch", f"{versions} do not fit together ({first}); {cure}")
    return Finding("ok", "torch", versions)


def _accelerator() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("bad", "device", "torch cannot be imported")
    if torch.cuda.is_available():
        return Finding("ok", "device", f"cuda: {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return Finding("ok", "device", "mps")
    built = torch.version.cuda
    why = f"torch is built for CUDA {built}, and no GPU answers" if built else "torch is built for the CPU alone"
    return Finding("note", "device", f"cpu, {torch.get_num_threads()} threads ({why})")


def _data(root: Path) -> Finding:
    from ..datasets import DataSource
    from ..datasets.resolve import resolve
    from ..registry import DATASETS, GauntletError

    found = []
    for entry in DATASETS:
        try:
            here = not resolve(entry.name, DataSource(root, cache_folder())).obstacle("test")
        except GauntletError:  # it needs parameters
            continue
        found += [entry.name] if here else []
    state = "ok" if root.is_dir() else "note"
    where = f"{root}" if root.is_dir() else f"{root} does not exist (set GAUNTLET_DATA or --data)"
    return Finding(state, "data", f"{where}; {len(found)} data sets are here: {', '.join(found)}")


def _cache(folder: Path) -> Finding:
    if not folder.exists():
        return Finding("ok", "cache", f"{folder} (not made yet)")
    if not os.access(folder, os.W_OK):
        return Finding("bad", "cache", f"{folder} cannot be written: set GAUNTLET_CACHE to a folder of your own")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    state = "ok" if free > 2**30 else "bad"
    return Finding(state, "cache", f"{folder}, {size / 2**20:,.0f} MiB; {free / 2**30:,.0f} GiB are free")


def _store(path: Path) -> Finding:
    if not path.exists():
        return Finding("ok", "store", f"{path} (not made yet)")
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
            (answer,) = store.execute("PRAGMA quick_check").fetchone()
            (cells,) = store.execute("SELECT count(*) FROM cells").fetchone()
    except sqlite3.Error as error:
        return Finding("bad", "store", f"{path} is damaged ({error}): move it away; models stay in the cache")
    return Finding("ok" if answer == "ok" else "bad", "store", f"{path}, {cells:,} cells, check: {answer}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is not installed"
