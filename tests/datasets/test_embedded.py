"""Properties that every dataset without files has."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from torchvision.datasets import FakeData

from gauntlet.datasets import DataSource, resolve
from gauntlet.registry import DATASETS, GauntletError

EMBEDDED = [entry.name for entry in DATASETS.match("tag:embedded")]
DRAWN = [name for name in EMBEDDED if name != "digits"]


def spec(name: str, **parameters) -> dict:
    return {name: parameters if name == "digits" else {"count": 20, **parameters}}


def test_these_are_the_embedded_sets():
    patterns = ["blobs", "low-contrast", "plain", "rademacher", "smooth-noise"]
    assert sorted({"digits", "fake", "gaussian-noise", "glyphs", "patches", "uniform-noise", *patterns}) == EMBEDDED


@pytest.mark.parametrize("name", EMBEDDED)
def test_no_file_is_needed(name, tmp_path):
    dataset = resolve(spec(name), DataSource(tmp_path / "none", tmp_path / "none"))
    assert "test" in dataset.splits
    assert dataset.load("test").shape == dataset.shape
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EMBEDDED)
def test_global_seeds_change_nothing_and_are_left_alone(name, source):
    first = resolve(spec(name), source).load("test")
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    second = resolve(spec(name), source).load("test")
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.labels, second.labels)
    drawn = torch.rand(1)
    torch.manual_seed(99)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize("name", DRAWN)
def test_a_larger_set_starts_with_the_smaller_one(name, source):
    small = resolve({name: {"count": 7}}, source).load("test")
    large = resolve({name: {"count": 13}}, source).load("test")
    assert torch.equal(large.pixels[:7], small.pixels)
    assert torch.equal(large.labels[:7], small.labels)


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_gives_other_images(name, source):
    seed = "offset" if name == "fake" else "seed"
    other = resolve({name: {"count": 5, seed: 5}}, source).load("test")
    assert not torch.equal(other.pixels, resolve({name: {"count": 5}}, source).load("test").pixels)


@pytest.mark.parametrize("name", DRAWN)
def test_a_thousand_images_are_the_default(name):
    assert DATASETS.get(name).defaults()["count"] == 1000


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize(("wrong", "problem"), [(0, "count must be at least 1, got 0"), (-3, "got -3")])
def test_an_empty_set_is_an_error(name, wrong, problem, source):
    with pytest.raises(GauntletError, match=problem):
        resolve({name: {"count": wrong}}, source).load("test")


@pytest.mark.parametrize("name", ["patches", "gaussian-noise", "uniform-noise", "fake"])
def test_any_grey_or_colour_shape_is_rendered_and_no_other(name, source):
    for shape in ([1, 28, 28], [3, 32, 32], [3, 5, 17]):
        assert list(resolve({name: {"shape": shape, "count": 2}}, source).load("test").shape) == shape
    with pytest.raises(GauntletError, match=rf"'{name}': shape must be .C, H, W. with C = 1 or 3 .* got .2, 8, 8."):
        resolve({name: {"shape": [2, 8, 8]}}, source).load("test")


class TestDigits:
    def test_every_digit_of_scikit_learn_is_in_one_split_with_its_label(self, source):
        dataset, bunch = resolve("digits", source), load_digits()
        parts = [dataset.load(split) for split in dataset.splits]
        assert sorted(torch.cat([part.indices for part in parts]).tolist()) == list(range(1797))
        for part in parts:
            assert part.labels.tolist() == bunch.target[part.indices.numpy()].tolist()

    def test_each_split_has_the_class_shares_of_the_whole(self, source):
        dataset, counts = resolve("digits", source), np.bincount(load_digits().target)
        for split, size in (("train", 1077), ("val", 180), ("test", 540)):
            found = np.bincount(dataset.load(split).labels)
            assert np.abs(found - counts * size / 1797).max() < 1.5

    def test_the_digit_stands_in_mnists_frame_of_four_dark_pixels(self, source):
        pixels = resolve("digits", source).load("train").pixels.clone()
        assert pixels[:, :, 4:24, 4:24].amax(dim=(1, 2, 3)).min() > 200
        pixels[:, :, 4:24, 4:24] = 0
        assert pixels.max() == 0

    def test_it_is_the_digit_that_pillow_enlarges(self, source):
        """Pillow's bicubic kernel (a = -0.5) is not torch's (a = -0.75), so they agree on average only."""
        images, bunch = resolve("digits", source).load("test"), load_digits()
        for position in range(0, len(images), 60):
            small = Image.fromarray(bunch.images[int(images.indices[position])].astype(np.float32) / 16)
            expected = np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC)).clip(0, 1)
            ours = images.images[position, 0, 4:24, 4:24].numpy()
            assert np.abs(ours - expected).mean() < 0.02
            assert np.corrcoef(ours.ravel(), expected.ravel())[0, 1] > 0.995


class TestGlyphs:
    def test_it_says_that_it_is_a_stand_in(self):
        entry = DATASETS.get("glyphs")
        assert "stand-in for notMNIST" in entry.summary
        assert entry.meta["stand_in"] == "notMNIST"

    def test_letters_are_balanced_light_on_dark_and_antialiased(self, source):
        images = resolve({"glyphs": {"count": 200}}, source).load("test")
        assert torch.bincount(images.labels).tolist() == [20] * 10
        assert (images.pixels == 0).float().mean() > 0.5
        assert images.pixels.amax(dim=(1, 2, 3)).min() > 150
        assert ((images.pixels > 0) & (images.pixels < 255)).float().mean() > 0.05

    def test_no_two_are_alike(self, source):
        assert len(resolve({"glyphs": {"count": 300}}, source).load("test").pixels.flatten(1).unique(dim=0)) == 300

    def test_the_letters_can_be_told_apart(self, source):
        """A nearest-neighbour classifier reads them far above chance (0.1), so the labels belong to the images."""
        from sklearn.neighbors import KNeighborsClassifier

        images = resolve({"glyphs": {"count": 1000}}, source).load("test")
        x, y = images.images.flatten(1).numpy(), images.labels.numpy()
        assert KNeighborsClassifier(1).fit(x[:800], y[:800]).score(x[800:], y[800:]) > 0.4

    def test_letters_are_of_many_sizes_and_places(self, source):
        pixels = resolve({"glyphs": {"count": 200}}, source).load("test").pixels[:, 0]
        heights = (pixels > 64).any(dim=2).sum(dim=1)
        tops = (pixels > 64).any(dim=2).int().argmax(dim=1)
        assert heights.min() >= 9
        assert heights.max() <= 28
        assert heights.unique().numel() > 8
        assert tops.unique().numel() > 8


class TestPatches:
    def test_a_crop_has_the_colours_of_its_photograph(self, source):
        images = resolve({"patches": {"shape": [3, 32, 32], "count": 400}}, source).load("test")
        for label, name in enumerate(("china.jpg", "flower.jpg")):
            photograph = load_sample_image(name).reshape(-1, 3).mean(axis=0) / 255
            crops = images.images[images.labels == label].mean(dim=(0, 2, 3)).numpy()
            assert np.abs(crops - photograph).max() < 0.08

    def test_grey_crops_are_the_colour_crops_in_grey(self, source):
        grey = resolve({"patches": {"shape": [1, 32, 32], "count": 30}}, source).load("test")
        colour = resolve({"patches": {"shape": [3, 32, 32], "count": 30}}, source)
        converted = torch.tensor([0.299, 0.587, 0.114]) @ colour.load("test").images.flatten(2)
        assert (grey.images.flatten(2)[:, 0] - converted).abs().max() < 3 / 255

    def test_a_shape_larger_than_the_photograph_is_rendered_too(self, source):
        assert resolve({"patches": {"shape": [1, 700, 500], "count": 2}}, source).load("test").shape == (1, 700, 500)


class TestNoise:
    def test_gaussian_noise_is_normal_with_the_tails_clipped(self, source):
        values = resolve("gaussian-noise", source).load("test").images.flatten()
        assert values.median() == pytest.approx(0.5, abs=0.005)
        for clipped in (0, 1):  # one standard deviation below and above the mean
            assert (values == clipped).float().mean() == pytest.approx(0.15866, abs=0.003)

    def test_uniform_noise_is_uniform(self, source):
        values = resolve("uniform-noise", source).load("test").images.flatten()
        shares = torch.histc(values, bins=10, min=0, max=1) / values.numel()
        assert (shares - 0.1).abs().max() < 0.002


class TestFake:
    @pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
    def test_it_is_torchvisions_own(self, source, shape):
        images = resolve({"fake": {"count": 12, "shape": list(shape), "offset": 3}}, source).load("test")
        theirs = FakeData(12, shape, num_classes=10, random_offset=3)
        for position in range(12):
            image, label = theirs[position]
            array = np.asarray(image).reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)
            assert np.array_equal(images.pixels[position].numpy(), array)
            assert images.labels[position] == label

    def test_its_bytes_are_wrapped_around_and_so_nearly_uniform(self, source):
        counts = torch.bincount(resolve({"fake": {"count": 50}}, source).load("test").pixels.flatten(), minlength=256)
        assert counts.min() > 0.8 * counts.float().mean()


def test_importing_the_package_imports_no_library_that_only_some_sets_need():
    code = "import sys, gauntlet.datasets; print({'matplotlib', 'sklearn', 'torchvision', 'PIL'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_finding_all_built_in_sets_does_not_import_them_either():
    code = (
        "import sys; from gauntlet.registry import DATASETS; assert len(list(DATASETS)) >= 26; "
        "print({'matplotlib', 'sklearn', 'torchvision', 'PIL'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
