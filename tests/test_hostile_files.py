"""Files that somebody damaged, by chance or on purpose: a sentence that names the file, or data; never a raw error.

`pytest tests/test_hostile_files.py --fuzz 20000` tries more of each format.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sqlite3
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gauntlet.datasets import DataSource, idx, png_sheets, resolve
from gauntlet.models import load_weights
from gauntlet.models.tensor_files import save_tensors
from gauntlet.registry import GauntletError
from gauntlet.results import CellResult, Identity, Measurement, PlannedCell, Store, load_results, paired_tests
from gauntlet.results.benchmarks import read_benchmarks
from gauntlet.results.frame import read_csv, write_csv

RNG = np.random.default_rng(0)
NASTY = [
    b"\0",
    b"\xff",
    b"\x80",
    b"9" * 30,
    b"-1",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"'",
    b"(",
    b"{",
    b"nan",
    b"PK\x03\x04",
]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """With some bytes flipped, overwritten, cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place, width = draw.randrange(len(data) + 1), draw.choice([1, 1, 2, 4, 30])
        match draw.randrange(6):
            case 0 if data:
                data[place % len(data)] ^= 1 << draw.randrange(8)
            case 1:
                new = draw.choice(NASTY)
                data[place : place + len(new)] = new
            case 2:
                del data[place : place + width]
            case 3:
                data[place:place] = data[place : place + width]
            case 4 if draw.random() < 0.3:
                del data[place:]
            case _:
                data[place : place + width] = draw.randbytes(width)
    return bytes(data)


def small_idx() -> bytes:
    return b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 3)) + bytes(range(18))


def small_png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def small_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", "0.png 7\n")
        archive.writestr("images/0.png", small_png())
    return buffer.getvalue()


def saved(save: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def small_store(folder: Path) -> bytes:
    path = folder / "whole" / "store.sqlite"
    with Store.open(path) as store:
        run_id = store.begin_run("s", "name: s", {"versions": {"python": "3"}})
        store.plan(run_id, [PlannedCell(Identity("accuracy", "cnn", "digits"), "key", params={"a": 1})])
        measured = (Measurement("accuracy", 0.9, 0.8, 0.95, 100),)
        store.put(run_id, "key", CellResult(measurements=measured, arrays={"right": np.ones(9, dtype=bool)}))
        store.put_history("key", "cnn", [{"epoch": 1}])
        store.end_run(run_id, "finished")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return path.read_bytes()


def small_frame(folder: Path) -> bytes:
    small_store(folder)
    return write_csv(load_results(folder / "whole"), folder / "r.csv").read_bytes()


def read_store(path: Path) -> None:
    load_results(path)
    with Store.open(path, create=False) as store:
        for run in store.runs():
            store.planned(run.run_id)
        store.declarations()
        store.result("key")
        store.history("key")
        store.damaged(["key"])


def mnist_m(path: Path) -> None:
    resolve("mnist-m", DataSource(root=path.parent.parent, cache=path.parent)).load("test")


BENCHMARKS = {"benchmarks": [{"name": "x", "fullname": "x", "stats": {"median": 1, "q1": 1, "q3": 2, "rounds": 3}}]}
LAYER = nn.Linear(3, 2)

#: What a reader reads: the name of the file, the content of a whole one, the reader.
FORMATS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], Any]]] = {
    "idx": ("x", lambda _: small_idx(), idx.read_images),
    "idx.gz": ("x.gz", lambda _: gzip.compress(small_idx()), idx.read_images),
    "zip of images": ("MNIST-M/test.zip", lambda _: small_zip(), mnist_m),
    "npy": (
        "l.npy",
        lambda _: saved(lambda file: np.save(file, np.zeros(9, dtype=np.uint8))),
        lambda path: png_sheets._read_labels(path, np.arange(3)),
    ),
    "npz": ("s.npz", lambda _: saved(lambda file: np.savez(file, **{"61/x": np.ones(4)})), paired_tests._read),
    "store": ("store.sqlite", small_store, read_store),
    "csv": ("r.csv", small_frame, read_csv),
    "json": ("b.json", lambda _: json.dumps(BENCHMARKS).encode(), read_benchmarks),
    "safetensors": (
        "w.safetensors",
        lambda folder: (save_tensors(LAYER.state_dict(), folder / "w"), (folder / "w").read_bytes())[1],
        lambda path: load_weights(LAYER, path),
    ),
    "pt": (
        "w.pt",
        lambda _: saved(lambda file: torch.save(LAYER.state_dict(), file)),
        lambda p: load_weights(LAYER, p),
    ),
}


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_damaged_is_read_or_refused_in_a_sentence(form, tmp_path, fuzz):
    name, make, read = FORMATS[form]
    whole, path = make(tmp_path), tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(whole)
    read(path)
    said: list[str] = []
    draw, tries = random.Random(0), fuzz or 60
    for _ in range(tries):
        path.write_bytes(damaged(whole, draw))
        started = time.process_time()
        try:
            read(path)
        except GauntletError as error:
            said.append(str(error))
        assert time.process_time() - started < 5
        for side in ("-wal", "-shm"):
            path.with_name(path.name + side).unlink(missing_ok=True)
    assert all(path.name in sentence for sentence in said)
    assert len(said) > tries / 10, "much of what is damaged is noticed"


def test_a_gzip_that_unpacks_to_more_than_its_header_says_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(small_idx())
        for _ in range(200):
            file.write(bytes(2**20))
    started = time.process_time()
    with pytest.raises(GauntletError, match=r"announces 2x3x3 values \(18 bytes\), but 19 or more bytes follow"):
        idx.read_images(path)
    assert time.process_time() - started < 0.1


def test_a_header_that_announces_more_than_any_data_set_is_refused(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12))
    with pytest.raises(GauntletError, match="announces 4294967295x4294967295x4294967295 values"):
        idx.read_images(path)


def test_a_zip_whose_list_of_labels_unpacks_to_a_gigabyte_is_refused(tmp_path):
    (tmp_path / "MNIST-M").mkdir()
    path = tmp_path / "MNIST-M" / "test.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("labels.txt", bytes(2**25))
    with pytest.raises(GauntletError, match="unpacks to 33554432 bytes"):
        mnist_m(path)


def test_nothing_outside_the_archive_is_read(tmp_path):
    """Names in a list of labels are names in the zip, whatever they look like."""
    (tmp_path / "MNIST-M").mkdir()
    (tmp_path / "secret.png").write_bytes(small_png())
    path = tmp_path / "MNIST-M" / "test.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.txt", "../secret.png 1\n")
    with pytest.raises(GauntletError, match=r"does not hold a whole \.\./secret\.png"):
        mnist_m(path)
