from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torchvision.datasets import mnist as torchvision_mnist

from gauntlet.datasets.idx import read_idx, read_images, read_labels
from gauntlet.registry import GauntletError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
ARRAYS = st.sampled_from(sorted(CODES)).flatmap(
    lambda kind: npst.arrays(kind, npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)
IN_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def encode(array: np.ndarray) -> bytes:
    """The idx file of an array, after the format's description."""
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    code = CODES[array.dtype.str[1:]]
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


@IN_ONE_FOLDER
@given(array=ARRAYS, compressed=st.booleans())
def test_what_is_written_is_read(tmp_path: Path, array, compressed):
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(encode(array)) if compressed else encode(array))
    read = read_idx(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@IN_ONE_FOLDER
@given(images=npst.arrays(np.uint8, npst.array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_torchvision_reads_the_same_images(tmp_path: Path, images):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(encode(images))
    assert torch.equal(torch.from_numpy(read_images(path)), torchvision_mnist.read_image_file(str(path)))


@IN_ONE_FOLDER
@given(labels=npst.arrays(np.uint8, npst.array_shapes(max_dims=1, max_side=20)))
def test_torchvision_reads_the_same_labels(tmp_path: Path, labels):
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(encode(labels))
    assert torch.equal(torch.from_numpy(read_labels(path)).long(), torchvision_mnist.read_label_file(str(path)))


def test_a_gz_that_a_browser_unpacked_without_renaming_is_read(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(encode(np.arange(5, dtype=np.uint8)))
    assert read_labels(path).tolist() == [0, 1, 2, 3, 4]


CONTENT = encode(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
def test_a_file_cut_off_anywhere_is_an_error_that_names_it(tmp_path, compressed):
    whole = gzip.compress(CONTENT) if compressed else CONTENT
    path = tmp_path / "cut"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(GauntletError, match=r"cut is damaged: .*; delete it and fetch it again\.$"):
            read_images(path)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
def test_bytes_after_the_end_are_an_error(tmp_path, compressed):
    path = tmp_path / "long"
    path.write_bytes(gzip.compress(CONTENT + b"x") if compressed else CONTENT + b"x")
    with pytest.raises(
        GauntletError, match=r"long is damaged: its header announces 2x3x4 values \(24 bytes\), but 25 or more bytes"
    ):
        read_images(path)


def test_a_changed_byte_in_the_compressed_data_is_noticed(tmp_path):
    whole = bytearray(gzip.compress(encode(np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8))))
    path = tmp_path / "flipped.gz"
    for position in range(10, len(whole)):
        whole[position] ^= 0x55
        path.write_bytes(whole)
        whole[position] ^= 0x55
        with pytest.raises(GauntletError, match=r"flipped\.gz is damaged"):
            read_images(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x89PNG\r\n\x1a\n", "starts with 89504e47 rather than the magic number"),
        (b"", "starts with nothing"),
        (b"\0\0\x07\x01\0\0\0\0", "magic number"),
        (b"\0\0\x08\x00", "header of 0 dimensions"),
        (b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "but 0 bytes follow"),
    ],
)
def test_what_is_no_idx_file_is_named(tmp_path, content, problem):
    path = tmp_path / "strange"
    path.write_bytes(content)
    with pytest.raises(GauntletError, match=f"strange is damaged: .*{problem}"):
        read_images(path)


def test_labels_in_place_of_images_are_an_error(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(encode(np.arange(3, dtype=np.uint8)))
    with pytest.raises(GauntletError, match="labels is not a file of images: expected 3-dimensional uint8, got 1-dim"):
        read_images(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(GauntletError, match=r"cannot be read: Is a directory\."):
        read_images(tmp_path)
