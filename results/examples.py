"""Image examples of a run: one safetensors file per (model, dataset) beside the store, tensors by cell key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..registry import GauntletError
from ..registry.safe_files import checksum, write_whole

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
        kept = {name: array for name, array in _whole(path).items() if not name.startswith(f"{key}/")}
        kept |= {f"{key}/{name}": np.ascontiguousarray(array) for name, array in examples.items()}
        write_whole(path, lambda draft: save_file(kept, draft, _checksums(kept)))
    return path


def read_examples(out: Path, names: Sequence[str], key: str) -> dict[str, np.ndarray]:
    """The examples of a cell, by name; empty where the run kept none.

    Raises:
        GauntletError: The file is damaged.
    """
    path = Path(out) / FOLDER / _file_name(names)
    found, damaged = _load(path)
    if key in damaged:
        raise GauntletError(f"The examples {path} are damaged; run the suite again to remake them.")
    return {name.removeprefix(f"{key}/"): array for name, array in found.items() if name.startswith(f"{key}/")}


def _file_name(names: Sequence[str]) -> str:
    """Readable and safe whatever the labels hold; a hash tells apart what reads the same."""
    readable = "--".join(re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40] for name in names)
    return f"{readable}-{blake2b(repr(tuple(names)).encode(), digest_size=4).hexdigest()}.safetensors"


def damaged_examples(out: Path) -> set[str]:
    """Keys of the cells of which an example is not what was written."""
    return {key for path in (Path(out) / FOLDER).glob("*.safetensors") for key in _damaged(path)}


def _damaged(path: Path) -> set[str]:
    try:
        return _load(path)[1]
    except GauntletError:
        return set()


def _whole(path: Path) -> dict[str, np.ndarray]:
    """The examples that can be kept when others join them."""
    try:
        found, damaged = _load(path)
    except GauntletError:
        return {}
    return {name: array for name, array in found.items() if name.partition("/")[0] not in damaged}


def _load(path: Path) -> tuple[dict[str, np.ndarray], set[str]]:
    """All examples of a file, and the keys of the cells of which some are damaged."""
    if not path.is_file():
        return {}, set()
    try:
        with safe_open(path, framework="np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            wanted = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise GauntletError(f"The examples {path} cannot be read ({error}); run again to remake them.") from None
    seen = _checksums(found)
    return found, {key for key, value in wanted.items() if seen.get(key) != value}


def _checksums(examples: Mapping[str, np.ndarray]) -> dict[str, str]:
    """One for each cell."""
    cells: dict[str, list[tuple[str, str, tuple[int, ...], bytes]]] = {}
    for name, array in examples.items():
        cells.setdefault(name.partition("/")[0], []).append((name, array.dtype.str, array.shape, array.tobytes()))
    return {key: checksum(arrays) for key, arrays in cells.items()}


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
