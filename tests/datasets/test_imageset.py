from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gauntlet.datasets import ImageSet
from gauntlet.datasets.returned import as_image_set
from gauntlet.registry import GauntletError


def make(**changes) -> ImageSet:
    parts = {
        "pixels": torch.arange(5 * 3 * 2 * 2, dtype=torch.uint8).reshape(5, 3, 2, 2),
        "labels": torch.tensor([0, 1, 0, -1, 1]),
        "classes": ("cat", "dog"),
        "indices": torch.tensor([10, 11, 12, 13, 14]),
        "name": "pets",
        "split": "test",
    }
    return ImageSet(**{**parts, **changes})


def test_it_knows_its_length_and_the_shape_of_an_image():
    assert (len(make()), make().shape) == (5, (3, 2, 2))


def test_bytes_become_floats_between_0_and_1():
    images = make(pixels=torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1),
                  labels=torch.zeros(3, dtype=torch.int64), indices=torch.arange(3)).images  # fmt: skip
    assert images.dtype == torch.float32
    assert images.flatten().tolist() == [0, pytest.approx(0.2), 1]


def test_batches_cover_the_set_in_order_and_are_as_large_as_asked():
    batches = list(make().batches(2))
    assert [len(labels) for _, labels, _ in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([images for images, _, _ in batches]), make().images)
    assert torch.equal(torch.cat([indices for _, _, indices in batches]), make().indices)


def test_a_batch_size_of_zero_is_an_error():
    with pytest.raises(GauntletError, match="at least 1, got 0"):
        next(make().batches(0))


@pytest.mark.parametrize("positions", [[3, 1], torch.tensor([3, 1]), np.array([3, 1])])
def test_a_subset_keeps_the_order_asked_for_and_the_source_indices(positions):
    part = make().subset(positions)
    assert part.indices.tolist() == [13, 11]
    assert part.labels.tolist() == [-1, 1]
    assert torch.equal(part.pixels[0], make().pixels[3])


def test_a_subset_by_mask():
    assert make().subset(make().labels == 1).indices.tolist() == [11, 14]


def test_an_empty_subset_is_an_empty_set():
    assert len(make().subset([])) == 0


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_moving_it_moves_every_tensor(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    moved = make().to(device)
    assert {tensor.device.type for tensor in (moved.pixels, moved.labels, moved.indices)} == {device}
    assert moved.subset([1]).indices.tolist() == [11]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pixels": torch.zeros(5, 2, 2)}, r"images must be \(N, C, H, W\), got \(5, 2, 2\)"),
        ({"pixels": torch.zeros(5, 3, 2, 2, dtype=torch.float64)}, "uint8 or float32, got float64"),
        ({"pixels": torch.full((5, 3, 2, 2), 1.5)}, "in .0, 1., got values from 1.5 to 1.5"),
        ({"pixels": torch.full((5, 3, 2, 2), -0.1)}, "got values from -0.1"),
        ({"pixels": torch.full((5, 3, 2, 2), math.nan)}, "finite"),
        ({"pixels": torch.full((5, 3, 2, 2), math.inf)}, "finite"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"labels must be \(5,\) int64, got \(4,\)"),
        ({"labels": torch.zeros(5)}, "int64, got .* float32"),
        ({"labels": torch.tensor([0, 1, 2, 0, 0])}, "below 2, the number of classes, got 0 to 2"),
        ({"labels": torch.tensor([0, 1, -2, 0, 0])}, "got -2 to 1"),
        ({"indices": torch.arange(6)}, r"indices must be \(5,\)"),
    ],
)
def test_what_does_not_fit_is_one_sentence_that_names_the_dataset(changes, problem):
    with pytest.raises(GauntletError, match=problem) as error:
        make(**changes)
    assert str(error.value).startswith("Dataset 'pets' (test): ")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_last_are_recognised_and_the_cure_is_named(channels):
    with pytest.raises(
        GauntletError, match=rf"\(5, 28, 30, {channels}\) looks like \(N, H, W, C\): .*transpose\(0, 3, 1, 2\)"
    ):
        make(pixels=torch.zeros(5, 28, 30, channels))


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 28, 3), (4, 8, 8), (13, 28, 28), (3, 2, 1), (1, 1, 1)])
def test_channels_first_are_taken_as_they_are(shape):
    assert make(pixels=torch.zeros(5, *shape)).shape == shape


def test_one_nan_among_good_pixels_is_found():
    pixels = torch.rand(5, 3, 2, 2)
    pixels[4, 2, 1, 1] = math.nan
    with pytest.raises(GauntletError, match="finite"):
        make(pixels=pixels)


class TestWhatADatasetFunctionMayReturn:
    def convert(self, value, classes=None) -> ImageSet:
        return as_image_set(value, name="mine", split="test", classes=classes)

    def test_images_alone_have_unknown_labels_and_no_classes(self):
        images = self.convert(np.zeros((4, 3, 8, 8)))
        assert images.labels.tolist() == [-1] * 4
        assert images.classes == ()

    def test_grey_images_without_a_channel_axis_get_one(self):
        assert self.convert(np.zeros((4, 6, 8), dtype=np.uint8)).shape == (1, 6, 8)

    def test_float64_becomes_float32(self):
        assert self.convert(np.ones((2, 3, 4, 4))).pixels.dtype == torch.float32

    def test_without_names_the_classes_are_numbers(self):
        assert self.convert((np.zeros((3, 4, 4)), np.array([0, 2, 1], dtype=np.uint8))).classes == ("0", "1", "2")

    def test_declared_names_are_taken(self):
        assert self.convert((np.zeros((2, 4, 4)), [0, 1]), ("a", "b", "c")).classes == ("a", "b", "c")

    def test_returned_names_win_over_declared_ones(self):
        assert self.convert((np.zeros((2, 4, 4)), [0, 1], ["x", "y"]), ("a", "b")).classes == ("x", "y")

    def test_an_image_set_gets_the_registered_name(self):
        assert self.convert(make()).name == "mine"

    def test_indices_are_positions(self):
        assert self.convert(np.zeros((3, 4, 4))).indices.tolist() == [0, 1, 2]

    @pytest.mark.parametrize("kind", [np.array, list, lambda names: np.array(names, dtype=object)])
    def test_labels_that_are_texts_are_names_of_classes(self, kind):
        found = self.convert((np.zeros((3, 4, 4)), kind(["cat", "dog", "cat"])))
        assert (found.labels.tolist(), found.classes) == ([0, 1, 0], ("cat", "dog"))
        found = self.convert((np.zeros((3, 4, 4)), kind(["cat", "dog", "cat"])), ("dog", "cow", "cat"))
        assert (found.labels.tolist(), found.classes) == ([2, 0, 2], ("dog", "cow", "cat"))

    def test_a_text_that_is_no_class_is_named(self):
        with pytest.raises(
            GauntletError, match="'mine' has a label 'cats', which is none of its classes; did you mean 'cat'"
        ):
            self.convert((np.zeros((2, 4, 4)), ["cat", "cats"], ["cat", "dog"]))

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ((1, 2, 3, 4), "got 4 values"),
            ("pictures", "images must be an array or a tensor, got str"),
            ((np.zeros((2, 4, 4)), np.zeros(2)), "labels must be integers, got float64"),
            ((np.zeros((2, 4, 4)), [0]), r"labels must be \(2,\)"),
            (np.zeros((2, 4, 4), dtype=np.int32), "uint8 or float32, got int32"),
        ],
    )
    def test_anything_else_is_an_error_that_names_it(self, value, problem):
        with pytest.raises(GauntletError, match=problem) as error:
            self.convert(value)
        assert "'mine'" in str(error.value)
