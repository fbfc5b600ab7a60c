"""Reader of the idx format of MNIST and its kin, plain or gzip-compressed (LeCun and Cortes, 1998).

A file is two zero bytes, a type code, the number of dimensions, one big-endian 32-bit size for each dimension, and
the values in C order, big-endian. A file is read whole or not at all, and no further than its header announces.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from ..registry import GauntletError

#: Bytes that a file may unpack to; the largest known ones (EMNIST by class) have half of that.
MAX_BYTES = 2**30

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_images(path: Path) -> np.ndarray:
    """(N, H, W) uint8 from a file of images; errors as in :func:`read_idx`."""
    return _expect(path, read_idx(path), 3, "images")


def read_labels(path: Path) -> np.ndarray:
    """(N,) uint8 from a file of labels; errors as in :func:`read_idx`."""
    return _expect(path, read_idx(path), 1, "labels")


def read_idx(path: Path) -> np.ndarray:
    """The array in an idx file, in the machine's byte order.

    Raises:
        GauntletError: The file cannot be read, or its compression, magic number, header or length is wrong; the
            message names it.
    """
    try:
        with path.open("rb") as packed:
            # A browser may have unpacked a .gz without renaming it: the content tells, not the name.
            compressed = packed.read(2) == b"\x1f\x8b"
            size = MAX_BYTES if compressed else os.fstat(packed.fileno()).st_size
            packed.seek(0)
            with gzip.open(packed) if compressed else packed as file:
                return _read(path, file, size)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, f"its gzip compression is broken ({error})") from None
    except OSError as error:
        raise GauntletError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read(path: Path, file: IO[bytes] | gzip.GzipFile, size: int) -> np.ndarray:
    """The array of an open file of at most ``size`` bytes: no more of it is read than its header announces."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES:
        raise _damaged(path, f"it starts with {head.hex() or 'nothing'} rather than the magic number of an idx file")
    rank = head[3]
    sizes = file.read(4 * rank)
    if rank == 0 or len(sizes) < 4 * rank:
        raise _damaged(path, f"its header of {rank} dimensions is incomplete")
    shape = struct.unpack(f">{rank}I", sizes)
    kind = np.dtype(_TYPES[head[2]])
    expected = math.prod(shape) * kind.itemsize
    data = file.read(min(expected, size) + 1)
    if len(data) != expected:
        more = "or more " if len(data) > expected or len(data) > size else ""
        raise _damaged(
            path,
            f"its header announces {'x'.join(map(str, shape))} values ({expected} bytes), but {len(data)} {more}bytes "
            "follow",
        )
    return np.frombuffer(data, kind).reshape(shape).astype(kind.newbyteorder("="))


def _expect(path: Path, array: np.ndarray, rank: int, what: str) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != rank:
        raise GauntletError(
            f"{path} is not a file of {what}: expected {rank}-dimensional uint8, got {array.ndim}-dimensional "
            f"{array.dtype}."
        )
    return array


def _damaged(path: Path, problem: str) -> GauntletError:
    return GauntletError(f"{path} is damaged: {problem}; delete it and fetch it again.")
