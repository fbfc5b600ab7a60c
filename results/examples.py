"""Image examples of a run: one safetensors file per (model, dataset) beside the store, tensors by cell key."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..registry import GauntletError

FOLDER = "examples"


def write_examples(out: Path, names: Sequence[str], key: str, examples: Mapping[str, np.ndarray]) -> Path:
    """Add the examples of one cell to the file of its (model, dataset), whole or not at all.

    Args:
        out: Output folder, the one that holds the store.
        names: Labels of model and dataset; any text.
        key: Key of the cell; its earlier examples are replaced.
        examples: Arrays by name.
    """
    path = Path(out) / FOLDER / _file_name(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        kept = {name: array for name, array in _load(path).items() if not name.startswith(f"{key}/")}
        kept |= {f"{key}/{name}": np.ascontiguousarray(array) for name, array in examples.items()}
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        os.close(handle)
        save_file(kept, temporary)
        Path(temporary).replace(path)
    return path


def read_examples(out: Path, names: Sequence[str], key: str) -> dict[str, np.ndarray]:
    """The examples of a cell, by name; empty where the run kept none."""
    found = _load(Path(out) / FOLDER / _file_name(names))
    return {name.removeprefix(f"{key}/"): array for name, array in found.items() if name.startswith(f"{key}/")}


def _file_name(names: Sequence[str]) -> str:
    """Readable and safe whatever the labels hold; a hash tells apart what reads the same."""
    readable = "--".join(re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40] for name in names)
    return f"{readable}-{blake2b(repr(tuple(names)).encode(), digest_size=4).hexdigest()}.safetensors"


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise GauntletError(f"The examples {path} cannot be read ({error}); delete the file and run again.") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, where the system can lock files (several runs may share a folder)."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
