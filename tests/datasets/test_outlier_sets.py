"""Drawn patterns and sets derived from other sets: what they keep of their images and what they change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gauntlet.datasets import DataSource, ImageSet, resolve
from gauntlet.datasets.image_transforms import TABLE
from gauntlet.registry import CORRUPTIONS, GauntletError

PATTERNS = ["smooth-noise", "blobs", "rademacher", "plain", "low-contrast"]


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    return DataSource(tmp_path / "data", tmp_path / "cache")


def load(spec: object, source: DataSource, split: str = "test", shape: tuple[int, int, int] = (1, 28, 28)) -> ImageSet:
    return resolve(spec, source, shape=shape, of="digits").load(split)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_patterns_have_the_shape_of_the_set_they_are_compared_with(name: str, shape: tuple, source: DataSource):
    images = load({name: {"count": 5}}, source, shape=shape)
    assert (len(images), images.shape) == (5, shape)
    assert bool((images.labels == -1).all())


@pytest.mark.parametrize("name", ["rademacher", "plain", "smooth-noise", "low-contrast"])
def test_a_larger_set_starts_with_the_smaller_and_another_seed_is_another_set(name: str, source: DataSource):
    few, many, other = (
        load({name: options}, source).pixels for options in ({"count": 3}, {"count": 9}, {"count": 3, "seed": 1})
    )
    torch.testing.assert_close(many[:3], few)
    assert not torch.equal(other, few)


def test_rademacher_has_two_values_and_plain_one_a_channel(source: DataSource):
    assert load("rademacher", source).pixels.unique().tolist() == [0.0, 1.0]
    colours = load({"plain": {"count": 20}}, source, shape=(3, 8, 8)).pixels
    assert bool((colours == colours[:, :, :1, :1]).all())
    assert len(colours[:, :, 0, 0].unique()) == 60
    assert load("grey", source).name == "plain"


def test_low_contrast_is_noise_in_a_narrow_band_above_plain_or_a_level(source: DataSource):
    faint, grey = load("low-contrast", source).pixels, load("plain", source).pixels
    above = (faint - 0.9 * grey) / 0.1
    assert above.min() >= -1e-5
    assert above.max() <= 1 + 1e-5
    assert float(above.std()) == pytest.approx(12**-0.5, rel=0.01)
    dark = load({"low-contrast": {"level": 0.0, "contrast": 0.02}}, source).pixels
    assert 0.019 < float(dark.max()) <= 0.02


@pytest.mark.parametrize(("options", "words"), [({"contrast": 1.5}, "contrast must"), ({"level": -0.1}, "level must")])
def test_low_contrast_takes_shares_only(options: dict, words: str, source: DataSource):
    with pytest.raises(GauntletError, match=f"{words} lie in \\[0, 1\\], got"):
        load({"low-contrast": options}, source)


def test_smooth_noise_is_smoother_than_noise_and_fills_the_range(source: DataSource):
    smooth, rough = load("smooth-noise", source).pixels, load("uniform-noise", source).pixels

    def step(images: torch.Tensor) -> float:
        return float((images[..., 1:] - images[..., :-1]).abs().mean())

    assert step(smooth) < 0.3 * step(rough)
    assert smooth.amin((1, 2, 3)).max() == 0
    assert smooth.amax((1, 2, 3)).min() == pytest.approx(1.0)


def test_a_blur_of_nothing_is_refused(source: DataSource):
    with pytest.raises(GauntletError, match="sigma must be above 0"):
        load({"blobs": {"sigma": 0.0}}, source)


# -- derived --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_derived_images_have_no_class_and_repeat(name: str, source: DataSource):
    first, again = load(name, source), load(name, source)
    assert len(first) == 540
    assert bool((first.labels == -1).all())
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, load("digits", source).images)


@pytest.mark.parametrize("name", ["permuted", "jigsaw", "mirrored"])
def test_what_only_moves_pixels_keeps_their_values(name: str, source: DataSource):
    made, base = load(name, source).pixels, load("digits", source).images
    torch.testing.assert_close(made.flatten(1).sort(1).values, base.flatten(1).sort(1).values)


def test_permuted_colours_stay_together():
    images = np.random.RandomState(0).rand(2, 3, 4, 4)
    made = TABLE["permuted"](images, np.random.RandomState(1))
    assert {tuple(pixel) for pixel in made[0].reshape(3, -1).T} == {
        tuple(pixel) for pixel in images[0].reshape(3, -1).T
    }


def test_means_of_pairs_are_between_their_images():
    images = np.random.RandomState(0).rand(7, 1, 4, 4)
    for name, mean in {
        "pair-mean": lambda a, b: (a + b) / 2,
        "pair-geometric-mean": lambda a, b: np.sqrt(a * b),
    }.items():
        made = TABLE[name](images, np.random.RandomState(1))
        for index in range(7):
            matches = [other for other in range(7) if np.allclose(made[index], mean(images[index], images[other]))]
            assert len(matches) == 1
            assert matches != [index]


def test_pixelated_blocks_are_the_means_of_theirs():
    images = np.random.RandomState(0).rand(2, 1, 10, 10)
    made = TABLE["pixelated"](images, np.random.RandomState(1))
    assert made[0, 0, 1, 2] == pytest.approx(images[0, 0, :4, :4].mean())
    assert made[1, 0, 9, 5] == pytest.approx(images[1, 0, 8:, 4:8].mean())


def test_inverted_is_the_negative(source: DataSource):
    torch.testing.assert_close(load("inverted", source).pixels, 1 - load("digits", source).images)


def test_a_derived_set_of_absent_files_says_which(source: DataSource):
    assert "train-images-idx3-ubyte.gz" in (resolve({"permuted": {"of": "mnist"}}, source).obstacle("train") or "")


def test_derived_from_derived_is_refused(source: DataSource):
    with pytest.raises(GauntletError, match=r"needs `of:` a dataset that is none itself, got 'jigsaw'"):
        load({"permuted": {"of": "jigsaw"}}, source)


# -- shifted test splits --------------------------------------------------------------------------------------


def test_a_shift_changes_the_test_split_alone(source: DataSource):
    plain, turned = resolve("digits", source), resolve({"digits": {"shift": "rotation"}}, source)
    for split in ("train", "val"):
        assert plain.fingerprint(split) == turned.fingerprint(split)
        assert torch.equal(plain.load(split).pixels, turned.load(split).pixels)
    assert plain.fingerprint("test") != turned.fingerprint("test")
    assert not torch.equal(plain.load("test").images, turned.load("test").images)
    assert torch.equal(plain.load("test").labels, turned.load("test").labels)
    assert turned.describe()["shift"] == ["rotation"]


@pytest.mark.parametrize("shift", ["rotation", "noise"])
def test_the_shift_of_an_image_depends_on_its_index_alone(shift: str, source: DataSource):
    whole = resolve({"digits": {"shift": shift}}, source).load("test")
    part = resolve({"digits": {"shift": [shift], "limit": 30}}, source).load("test")
    position = {index: place for place, index in enumerate(whole.indices.tolist())}
    for place, index in enumerate(part.indices.tolist()):
        torch.testing.assert_close(part.pixels[place], whole.pixels[position[index]], rtol=0, atol=1e-6)


def test_noise_has_the_stated_size(source: DataSource):
    from gauntlet.datasets.corruptions import corrupted

    grey = ImageSet(torch.full((200, 1, 20, 20), 0.5), torch.zeros(200).long(), ("0",), torch.arange(200), "g", "test")
    deviations = (corrupted(grey, CORRUPTIONS.get("shift/noise"), 1, exact=True).pixels - 0.5).flatten(1).std(1)
    assert 0.08 < deviations.min() < 0.12
    assert 0.22 < deviations.max() < 0.3


def test_an_unknown_shift_names_the_nearest(source: DataSource):
    with pytest.raises(GauntletError, match="has no 'rotate'; did you mean 'rotation'"):
        resolve({"digits": {"shift": "rotate"}}, source)
