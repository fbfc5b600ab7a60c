"""Corruptions against scikit-image, scipy and PIL, image by image, and what all of them promise."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from scipy import ndimage, stats
from skimage import color, feature, filters, transform

from gauntlet.datasets import DataSource, ImageSet, resolve
from gauntlet.datasets.corruptions import corrupted, obstacle, severities
from gauntlet.datasets.corruptions.blur import _disk, shuffled
from gauntlet.datasets.corruptions.filters import _stream, gaussian, plasma, sampled, streaked
from gauntlet.datasets.corruptions.mnist_c import _line
from gauntlet.datasets.per_image_rng import PerImageRNG
from gauntlet.registry import CORRUPTIONS, GauntletError

SOURCE = DataSource(Path("/nonexistent/data"), Path("/nonexistent/cache"))
ENTRIES = [entry for entry in CORRUPTIONS if entry.plugin is None]
COMMON = [entry for entry in ENTRIES if len(severities(entry)) > 1]
every = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


@pytest.fixture(scope="module")
def photographs() -> ImageSet:
    """Crops of scikit-learn's two photographs, 32x32, in colour."""
    return resolve({"name": "patches", "shape": [3, 32, 32], "limit": 40}, SOURCE).load("test")


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return resolve({"name": "digits", "limit": 40}, SOURCE).load("test")


def chosen_for(entry, photographs: ImageSet, digits: ImageSet) -> ImageSet:
    return digits if obstacle(entry, photographs.shape) else photographs


def made(name: str, images: ImageSet, severity: int) -> np.ndarray:
    """Corrupted images (N, H, W, C) in [0, 1], before they are rounded to 256 levels."""
    entry = CORRUPTIONS.get(name)
    draws = PerImageRNG(f"{images.name}/{images.split} {name}", images.indices)
    given = {"images": images.images, "severity": severity, "draws": draws}
    return last(entry.factory(*(given[need] for need in entry.needs)).clamp(0, 1))


def last(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).double().numpy()


def drawn(images: ImageSet, name: str) -> PerImageRNG:
    return PerImageRNG(f"{images.name}/{images.split} {name}", images.indices)


class TestAll:
    @every
    def test_an_image_depends_on_nothing_but_itself_and_its_index(self, entry, photographs, digits):
        images = chosen_for(entry, photographs, digits)
        some = torch.tensor([17, 3, 30])
        severity = severities(entry)[-1]
        whole = corrupted(images, entry, severity).pixels[some].int()
        alone = corrupted(images.subset(some), entry, severity).pixels.int()
        # Products of matrices may be summed in another order for another number of images: one level at most.
        assert (whole - alone).abs().max() <= 1
        assert (whole != alone).float().mean() < 0.001

    @every
    def test_images_keep_their_shape_labels_and_256_levels(self, entry, photographs, digits):
        images = chosen_for(entry, photographs, digits)
        found = corrupted(images, entry, severities(entry)[0])
        assert found.pixels.dtype == torch.uint8
        assert found.shape == images.shape
        assert torch.equal(found.labels, images.labels)
        assert torch.equal(found.indices, images.indices)
        assert not torch.equal(found.images, images.images)

    @pytest.mark.parametrize("entry", COMMON, ids=lambda entry: entry.name)
    def test_the_fifth_severity_changes_images_more_than_the_first(self, entry, photographs):
        def change(severity: int) -> float:
            found = corrupted(photographs, entry, severity).images - photographs.images
            return float(found.square().mean())

        # The benchmark's elastic transform gets finer from one severity to the next, not farther.
        assert change(5) > change(1) or entry.name == "elastic-transform"

    @pytest.mark.parametrize("entry", COMMON, ids=lambda entry: entry.name)
    def test_large_images_have_the_strengths_of_imagenet(self, entry):
        large = resolve({"name": "patches", "shape": [3, 96, 96], "limit": 2}, SOURCE).load("test")
        found = corrupted(large, entry, 3).pixels
        assert torch.equal(found, corrupted(large, entry, 3, {"scale": "large"}).pixels)
        assert not torch.equal(found, corrupted(large, entry, 3, {"scale": "small"}).pixels)

    def test_two_datasets_get_other_noise(self, digits):
        entry = CORRUPTIONS.get("gaussian-noise")
        other = ImageSet(digits.pixels, digits.labels, digits.classes, digits.indices, "other", "test")
        assert not torch.equal(corrupted(digits, entry, 5).pixels, corrupted(other, entry, 5).pixels)


class TestNoise:
    def test_gaussian_and_speckle_noise_are_normal(self, photographs):
        grey = ImageSet(
            torch.full((400, 3, 16, 16), 0.5), torch.zeros(400).long(), ("a",), torch.arange(400), "g", "test"
        )
        for name, deviation in (("gaussian-noise", 0.10), ("speckle-noise", 0.5 * 0.2)):
            noise = (made(name, grey, 5) - 0.5).ravel()
            assert stats.kstest(noise / deviation, "norm").pvalue > 1e-3

    def test_shot_noise_is_the_quantile_of_poissons_distribution(self, photographs):
        found = made("shot-noise", photographs, 5)
        uniform = last(drawn(photographs, "shot-noise").uniform(photographs.shape, purpose="shot-noise"))
        expected = stats.poisson.ppf(uniform, last(photographs.images) * 50) / 50
        assert_allclose(found, expected.clip(0, 1), atol=1e-6)

    def test_impulse_noise_is_salt_and_pepper_in_equal_parts(self):
        grey = ImageSet(
            torch.full((500, 1, 20, 20), 0.5), torch.zeros(500).long(), ("a",), torch.arange(500), "g", "test"
        )
        found = made("impulse-noise", grey, 5)
        n = found.size
        for value in (0.0, 1.0):
            assert stats.binomtest(int((found == value).sum()), n, 0.035).pvalue > 1e-3
        assert ((found == 0.5) | (found == 0) | (found == 1)).all()


class TestBlur:
    @pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 6.0])
    def test_a_gaussian_is_scipys(self, photographs, sigma):
        found = last(gaussian(photographs.images, sigma))
        expected = [
            filters.gaussian(image, sigma, mode="nearest", channel_axis=2) for image in last(photographs.images)
        ]
        assert_allclose(found, expected, atol=2e-6)
        mirrored = gaussian(photographs.images, sigma, truncate=3, mirror=True)[:, 0].double().numpy()
        for own, image in zip(mirrored, photographs.images[:, 0].double().numpy(), strict=True):
            assert_allclose(own, ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=3), atol=2e-6)

    @pytest.mark.parametrize("severity", [1, 5])
    def test_zoom_blur_averages_scipys_zooms(self, photographs, severity):
        factors = np.arange(1, [1.06, 1.11, 1.16, 1.21, 1.26][severity - 1], 0.01)
        for found, image in zip(made("zoom-blur", photographs, severity)[:5], last(photographs.images), strict=False):
            total = image.copy()
            for factor in factors:
                part = math.ceil(32 / factor)
                first = (32 - part) // 2
                inside = image[first : first + part, first : first + part]
                enlarged = ndimage.zoom(inside, (factor, factor, 1), order=1)
                cut = (len(enlarged) - 32) // 2
                total += enlarged[cut : cut + 32, cut : cut + 32]
            assert_allclose(found, total / (len(factors) + 1), atol=2e-6)

    @pytest.mark.parametrize(("severity", "radius"), [(1, 0.3), (4, 1), (5, 1.5)])
    def test_defocus_blur_is_a_convolution_with_a_soft_disk(self, photographs, severity, radius):
        softness = [0.4, 0.5, 0.6, 0.2, 0.1][severity - 1]
        line = np.arange(-8, 9)
        disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
        weights = np.exp(-0.5 * (np.arange(-1, 2) / softness) ** 2)
        kernel = disk / disk.sum()
        for axis in (0, 1):
            kernel = ndimage.convolve1d(kernel, weights / weights.sum(), axis=axis, mode="mirror")
        found = made("defocus-blur", photographs, severity)
        for own, image in zip(found, last(photographs.images), strict=True):
            for channel in range(3):
                expected = ndimage.convolve(image[..., channel], kernel, mode="mirror")
                assert_allclose(own[..., channel], expected, atol=2e-6)

    def test_a_large_disk_reaches_its_radius(self):
        kernel = _disk(10, 0.5)
        assert kernel.shape[0] >= 21
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)

    def test_glass_shuffles_pixels_one_after_the_other(self, photographs):
        few = photographs.subset(torch.arange(4))
        for reach, rounds in ((1, 1), (2, 2)):
            found = shuffled(few.images, reach, rounds, PerImageRNG("k", few.indices))
            expected = few.images.clone()
            for turn in range(rounds):
                side = range(32 - reach, reach, -1)
                uniform = PerImageRNG("k", few.indices).uniform((len(side) ** 2, 3), purpose="glass-blur", step=turn)
                moves = (uniform[..., :2] * 2 * reach).floor().long() - reach
                for n in range(len(few)):
                    for place, (row, column) in enumerate((row, column) for row in side for column in side):
                        other = row + int(moves[n, place, 0]), column + int(moves[n, place, 1])
                        kept = expected[n, :, row, column].clone()
                        expected[n, :, row, column] = expected[n, :, other[0], other[1]]
                        expected[n, :, other[0], other[1]] = kept
            assert torch.equal(found, expected)

    def test_motion_blur_is_half_a_gaussian_along_a_line(self):
        image = torch.zeros(3, 1, 21, 21)
        image[:, 0, 10, 10] = 1
        found = streaked(image, 6, 2.0, torch.tensor([0.0, 45.0, -90.0]))[:, 0]
        weights = np.exp(-0.5 * (np.arange(11) / 2.0) ** 2)
        weights /= weights.sum()
        assert_allclose(found[0, 10, :11].flip(0), weights, atol=1e-6)  # it takes pixels from the right
        steps = np.ceil(np.arange(11) / math.sqrt(2) - 0.5).astype(int)
        slanted = np.bincount(steps, weights, minlength=11)  # a step along the diagonal is shorter than its pixels
        assert_allclose(found[1].flip((0, 1)).diagonal()[10:21], slanted, atol=1e-6)
        assert_allclose(found[2, 10:, 10], weights, atol=1e-6)
        assert_allclose(found.sum((1, 2)), 1, atol=1e-6)


class TestWeather:
    def test_plasma_is_diamond_square_on_a_torus(self):
        """The same displacements, added point by point."""
        draws, size, decay = PerImageRNG("k", torch.arange(2)), 8, 2.0
        noise = (2 * _stream(draws, size * size, "p") - 1).double().numpy()
        for own, offsets in zip(plasma(draws, size, decay, "p").double().numpy(), noise, strict=True):
            heights, rest = np.zeros((size, size)), iter(offsets)
            step, wibble = size, 100.0
            while step >= 2:
                half = step // 2
                for starts, sides in (
                    ((half, half), [(-half, -half), (-half, half), (half, -half), (half, half)]),
                    ((0, half), [(-half, 0), (half, 0), (0, -half), (0, half)]),
                    ((half, 0), [(-half, 0), (half, 0), (0, -half), (0, half)]),
                ):
                    for row in range(starts[0], size, step):
                        for column in range(starts[1], size, step):
                            around = [heights[(row + a) % size, (column + b) % size] for a, b in sides]
                            heights[row, column] = np.mean(around) + wibble**2 * next(rest)
                step, wibble = half, wibble / decay
            assert_allclose(own, (heights - heights.min()) / np.ptp(heights), atol=1e-5)

    def test_fog_keeps_the_brightest_pixel_within_reach(self, photographs):
        found, images = made("fog", photographs, 3), last(photographs.images)
        brightest = images.max((1, 2, 3), keepdims=True)
        assert (found <= brightest + 1e-6).all()
        assert (found >= images * brightest / (brightest + 0.75) - 1e-6).all()

    def test_snow_falls_symmetrically_and_never_darkens(self, photographs):
        found, images = made("snow", photographs, 4), last(photographs.images)
        grey = color.rgb2gray(np.ones((1, 1, 3)))  # white stays white
        assert grey.item() == pytest.approx(1)
        assert (found >= images - 1e-6).all()

    def test_frost_says_what_it_stands_in_for(self):
        assert "photographs" in CORRUPTIONS.get("frost").meta["stand_in"]


class TestDigital:
    @pytest.mark.parametrize("severity", [1, 3, 5])
    def test_brightness_and_saturation_are_those_of_hsv(self, photographs, severity):
        images = last(photographs.images)
        images[0, :4, :4] = 0.3  # greys, which have no hue
        images[0, 5, :3] = 0.0
        changed = ImageSet(
            torch.from_numpy(images).permute(0, 3, 1, 2).float(), photographs.labels, photographs.classes,
            photographs.indices, "patches", "test",
        )  # fmt: skip
        hsv = color.rgb2hsv(last(changed.images))
        brighter, vivid = hsv.copy(), hsv.copy()
        brighter[..., 2] = (hsv[..., 2] + [0.05, 0.1, 0.15, 0.2, 0.3][severity - 1]).clip(0, 1)
        factor, added = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][severity - 1]
        vivid[..., 1] = (hsv[..., 1] * factor + added).clip(0, 1)
        assert_allclose(made("brightness", changed, severity), color.hsv2rgb(brighter), atol=2e-6)
        assert_allclose(made("saturate", changed, severity), color.hsv2rgb(vivid), atol=2e-6)

    def test_contrast_draws_channels_to_their_means(self, photographs):
        images = last(photographs.images)
        means = images.mean((1, 2), keepdims=True)
        assert_allclose(made("contrast", photographs, 5), means + 0.15 * (images - means), atol=2e-6)

    @pytest.mark.parametrize(("severity", "share"), [(1, 0.95), (4, 0.75), (5, 0.65)])
    def test_pixelate_is_pils_box_filter(self, photographs, severity, share):
        found = made("pixelate", photographs, severity)
        for own, pixels in zip(found, levels(photographs), strict=True):
            small = Image.fromarray(pixels).resize((int(32 * share),) * 2, Image.Resampling.BOX)
            expected = np.asarray(small.resize((32, 32), Image.Resampling.BOX)) / 255
            assert np.abs(own - expected).max() <= 2.01 / 255  # PIL rounds after each of its passes

    @pytest.mark.parametrize(("severity", "quality"), [(1, 80), (5, 40)])
    @pytest.mark.parametrize("kind", ["photographs", "digits"])
    def test_jpeg_is_pils(self, kind, severity, quality, request):
        images = request.getfixturevalue(kind)
        found = made("jpeg-compression", images, severity)
        for own, pixels in zip(found, levels(images), strict=True):
            file = io.BytesIO()
            Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
            expected = np.asarray(Image.open(file)).reshape(pixels.shape) / 255
            assert np.abs(own - expected).max() <= 1.01 / 255

    @pytest.mark.parametrize(
        ("border", "mode"), [("zero", "grid-constant"), ("mirror", "reflect"), ("mirror-101", "mirror")]
    )
    def test_points_between_pixels_are_scipys(self, photographs, border, mode):
        rng = np.random.default_rng(0)
        rows, columns = rng.uniform(-12, 44, (2, len(photographs), 9, 11))
        found = sampled(photographs.images, torch.tensor(rows).float(), torch.tensor(columns).float(), border)
        for own, image, r, c in zip(
            found.double().numpy(), photographs.images.double().numpy(), rows, columns, strict=True
        ):
            expected = [ndimage.map_coordinates(channel, [r, c], order=1, mode=mode) for channel in image]
            assert_allclose(own, expected, atol=2e-5)

    def test_elastic_transform_moves_three_points_and_bends(self, photographs):
        """At severity 1 only the affine part: three points come to lie where their draws say."""
        entry = CORRUPTIONS.get("elastic-transform")
        ramp = (
            torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")).expand(5, 2, 32, 32) / 64
        )
        draws = PerImageRNG("k", torch.arange(5))
        found = 64 * entry.factory(ramp, 1, draws)
        before = np.array([[26, 26], [26, 6], [6, 6]])  # x, y
        after = before + 0.08 * 32 * (2 * draws.uniform((3, 2), purpose="elastic-transform points").numpy() - 1)
        for own, points in zip(found.double().numpy(), after, strict=True):
            for (x, y), place in zip(before, points, strict=True):
                row, column = (ndimage.map_coordinates(part, [[place[1]], [place[0]]], order=1)[0] for part in own)
                assert (column, row) == pytest.approx((x, y), abs=1e-3)


class TestMNISTC:
    def test_there_are_fifteen_at_one_severity_each(self):
        names = [entry for entry in ENTRIES if entry.name.startswith("mnist-c/")]
        assert len(names) == 15
        assert all(len(severities(entry)) == 1 for entry in names)

    @pytest.mark.parametrize("kind", ["shear", "scale", "rotate", "translate"])
    def test_geometry_is_scikit_images_about_the_centre(self, digits, kind):
        found = made(f"mnist-c/{kind}", digits, 0)[..., 0]
        sign = {
            axis: 2.0 * (drawn(digits, f"mnist-c/{kind}").uniform((), purpose=f"mnist-c/{kind}{axis}") < 0.5).numpy()
            - 1
            for axis in ("", " x", " y")
        }
        for n, image in enumerate(last(digits.images)[..., 0]):
            angle = 0.4 * sign[""][n]
            linear = {
                "shear": [[1, -math.sin(angle)], [0, math.cos(angle)]],
                "scale": [[1 / 0.7, 0], [0, 1 / 0.7]],
                "rotate": [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
                "translate": [[1, 0], [0, 1]],
            }[kind]
            matrix = np.eye(3)
            matrix[:2, :2] = linear
            matrix[:2, 2] = 13.5 - np.array(linear) @ [13.5, 13.5]
            if kind == "translate":
                matrix[:2, 2] = 3 * sign[" x"][n], 3 * sign[" y"][n]
            expected = transform.warp(image, transform.AffineTransform(matrix=matrix))
            assert_allclose(found[n], expected, atol=1e-5)

    def test_edges_are_scikit_images(self, digits):
        found = made("mnist-c/canny-edges", digits, 0)[..., 0]
        expected = np.array([feature.canny(image[..., 0]) for image in last(digits.images)])
        assert (found != expected).mean() < 1e-3  # gradients along exactly 45 degrees may fall to either side

    def test_spatter_is_mud_where_smoothed_noise_is_high(self, digits):
        found = made("mnist-c/spatter", digits, 4)[..., 0]
        noise = drawn(digits, "mnist-c/spatter").normal((28, 28), purpose="mnist-c/spatter").double().numpy()
        for own, image, one in zip(found, last(digits.images)[..., 0], noise, strict=True):
            mud = filters.gaussian((filters.gaussian(0.65 + 0.3 * one, 1) > 0.65).astype(float), 1.5)
            mud[mud < 0.8] = 0
            near = np.abs(mud - 0.8) > 1e-5  # float32 may fall to the other side of the threshold
            assert_allclose(own[near], (image * (1 - mud) + 63 / 255 * mud)[near], atol=1e-5)

    def test_stripes_are_inverted(self, digits):
        found, images = made("mnist-c/stripe", digits, 0), last(digits.images)
        outside = np.r_[0:7, 21:28]
        assert_allclose(found[:, :, outside], 1 - images[:, :, outside], atol=1e-6)
        assert_allclose(found[:, :, 7:21], images[:, :, 7:21], atol=1e-6)

    def test_a_stroke_fades_with_the_distance_from_its_line(self):
        ends = [torch.tensor([value], dtype=torch.float64) for value in (3.2, 4.0, 20.7, 11.0)]
        found = _line(*ends)[0].numpy()
        left, top, right, bottom = (float(end) for end in ends)
        for row in range(28):
            for column in range(28):
                away = abs(row - top - (bottom - top) / (right - left) * (column - left))
                inside = math.floor(left) <= column < math.ceil(right) and away < 2.3
                expected = max(math.log(1 - away / 2.3) + 1, 0) if inside else 0
                assert found[row, column] == pytest.approx(expected, abs=1e-9)

    def test_lines_only_add_light(self, digits):
        for kind in ("dotted-line", "zigzag"):
            found, images = made(f"mnist-c/{kind}", digits, 0), last(digits.images)
            assert (found >= images - 1e-6).all()
            assert ((found - images).max((1, 2, 3)) > 0.5).all()

    def test_they_are_for_digits_of_28_pixels(self, photographs):
        with pytest.raises(GauntletError, match=r"'mnist-c/fog' cannot be applied to 'patches': it is made for 1x28"):
            corrupted(photographs, CORRUPTIONS.get("mnist-c/fog"), 5)


class TestBadInput:
    def test_another_severity(self, digits):
        with pytest.raises(GauntletError, match=r"'fog' has no severity 6, only 1, 2, 3, 4, 5\.$"):
            corrupted(digits, CORRUPTIONS.get("fog"), 6)

    def test_colour_for_saturation(self, digits):
        with pytest.raises(GauntletError, match="'saturate' cannot be applied to 'digits': it needs images of 3 chan"):
            corrupted(digits, CORRUPTIONS.get("saturate"), 1)

    def test_an_unknown_scale(self, digits):
        with pytest.raises(GauntletError, match="is auto, small or large, got 'huge'"):
            corrupted(digits, CORRUPTIONS.get("fog"), 1, {"scale": "huge"})

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda images: images[:, :, 1:], r"must return images of shape \(40, 1, 28, 28\), got \(40, 1, 27, 28\)"),
            (lambda images: None, r"must return images of shape .*, got NoneType"),
            (lambda images: images * torch.nan, "returned pixels that are not finite"),
        ],
    )
    def test_a_plug_in_that_returns_something_else(self, digits, change, problem):
        try:
            CORRUPTIONS.register("test-broken")(lambda images, severity: change(images))
            with pytest.raises(GauntletError, match=problem):
                corrupted(digits, CORRUPTIONS.get("test-broken"), 1)
        finally:
            CORRUPTIONS._entries.pop("test-broken", None)

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("fog", "fog has the severities 1, 2, 3, 4, 5, got None"),
            ({"fog": 0}, "fog has the severities 1, 2, 3, 4, 5, got 0"),
            ({"fog": True}, "got True"),
            ({"fgo": 1}, "Unknown corruption 'fgo'.*fog"),
            ([], "must name corruptions and severities"),
        ],
    )
    def test_the_option_of_a_dataset(self, value, problem):
        with pytest.raises(GauntletError, match=problem):
            resolve({"digits": {"corrupt": value}}, SOURCE)


class TestOption:
    def test_it_corrupts_test_images_only_in_order(self, digits):
        plain = resolve("digits", SOURCE)
        both = resolve({"digits": {"corrupt": {"contrast": 2, "mnist-c/stripe": 1}}}, SOURCE)
        expected = corrupted(plain.load("test"), CORRUPTIONS.get("contrast"), 2)
        expected = corrupted(expected, CORRUPTIONS.get("mnist-c/stripe"), 1)
        assert torch.equal(both.load("test").pixels, expected.pixels)
        assert torch.equal(both.load("train").pixels, plain.load("train").pixels)
        assert both.fingerprint("train") == plain.fingerprint("train")
        assert both.fingerprint("test") != plain.fingerprint("test")
        assert "corrupt" in both.label

    def test_one_severity_need_not_be_said(self):
        assert resolve({"digits": {"corrupt": "mnist-c/zigzag"}}, SOURCE).options == {"corrupt": {"mnist-c/zigzag": 1}}


def flat(pixels: torch.Tensor) -> ImageSet:
    return ImageSet(pixels, torch.zeros(len(pixels)).long(), ("a",), torch.arange(len(pixels)), "flat", "test")


def levels(images: ImageSet) -> np.ndarray:
    """Pixels (N, H, W, C) in 256 levels."""
    return (images.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
