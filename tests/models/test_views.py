"""The views of SimCLR: each transformation against torchvision's function for the same parameters, and the policies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gauntlet.models.training import views
from gauntlet.models.training.view_policy import CHUNK, FUNCTIONS, POLICIES, policy_for
from gauntlet.registry import AUGMENTATIONS, GauntletError

T = pytest.importorskip("torchvision.transforms.v2.functional")

SIZES = [(3, 32, 32), (1, 28, 28), (3, 20, 33)]


def images(count: int = 6, shape: tuple[int, int, int] = (3, 32, 32), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=generator(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def adjusted(name: str, x: Tensor, values: tuple[float, ...]) -> Tensor:
    """The images changed by views.adjust_NAME_, which works in place on colours that lie apart."""
    change = getattr(views, f"adjust_{name}_")
    return change(x.transpose(0, 1).clone(), torch.tensor(values).view(-1, 1, 1)).transpose(0, 1)


def close(ours: Tensor, theirs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=2e-6)


class TestGeometry:
    @pytest.mark.parametrize("shape", SIZES)
    @pytest.mark.parametrize("box", [(0, 0, 20, 20), (3, 5, 7, 11), (2, 1, 5, 19), (10, 4, 1, 1)])
    def test_a_box_is_resized_as_torchvision_does_bilinear_with_antialiasing(self, shape, box):
        x = images(3, shape)
        top, left, tall, wide = (torch.full((3,), float(value)) for value in box)
        theirs = [T.resized_crop(image, *box, list(shape[1:]), antialias=True) for image in x]
        close(views.resample(x, top, left, tall, wide), theirs)

    def test_mirrored_images_are_those_of_torchvision_flipped(self):
        x, mirrored = images(4), torch.tensor([True, False, False, True])
        box = [torch.full((4,), value) for value in (3.0, 5.0, 20.0, 11.0)]
        plain = views.resample(x, *box)
        theirs = [T.horizontal_flip(image) if turned else image for image, turned in zip(plain, mirrored, strict=True)]
        close(views.resample(x, *box, mirrored=mirrored), theirs)

    @pytest.mark.parametrize(("low", "high", "ratio"), [(0.08, 1.0, 4 / 3), (0.2, 0.6, 2.0)])
    def test_boxes_have_the_distribution_of_torchvisions(self, low, high, ratio):
        """Mean and spread of area, aspect and place, over 1,500 draws of either."""
        from torchvision.transforms import RandomResizedCrop

        torch.manual_seed(0)
        picture = torch.zeros(3, 96, 96)
        draws = [RandomResizedCrop.get_params(picture, [low, high], [1 / ratio, ratio]) for _ in range(1500)]
        theirs = torch.tensor(draws).float()
        ours = torch.stack(views.crop_boxes(1500, 96, 96, generator(), low, high, ratio), 1)
        assert ours[:, :2].min() >= 0
        assert (ours[:, 0] + ours[:, 2]).max() <= 96
        assert (ours[:, 1] + ours[:, 3]).max() <= 96
        for statistic in (
            lambda b: b[:, 2] * b[:, 3] / 96**2,
            lambda b: b[:, 3] / b[:, 2],
            lambda b: b[:, 0] + b[:, 2] / 2,
        ):
            a, b = statistic(ours), statistic(theirs)
            error = math.sqrt((a.var() + b.var()) / 1500)
            assert abs(a.mean() - b.mean()) < 4 * error
            assert abs(a.std() / b.std() - 1) < 0.12

    def test_enlarging_reads_a_window_of_the_interpolated_image(self):
        x = images(1, (3, 24, 24))
        found = views.enlarge(x, generator(), factor=4 / 3)
        whole = T.resize(x, [32, 32], antialias=True)
        # Windows start at fractions of a pixel: between the whole ones, the best of which comes near.
        errors = [float((found - whole[:, :, i : i + 24, j : j + 24]).abs().mean()) for i in range(9) for j in range(9)]
        assert min(errors) < 0.35 * sorted(errors)[len(errors) // 2]

    def test_a_stretch_of_nothing_is_the_identity(self):
        torch.testing.assert_close(views.stretch(images(), generator(), factor=1.0), images(), rtol=0, atol=1e-5)


class TestColour:
    FACTORS = (0.0, 0.3, 1.0, 1.7, 0.9, 1.2)

    @pytest.mark.parametrize("shape", SIZES)
    @pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
    def test_factors_act_as_in_torchvision(self, shape, name):
        x = images(6, shape)
        ours = adjusted(name, x, self.FACTORS)
        theirs = [getattr(T, f"adjust_{name}")(image, factor) for image, factor in zip(x, self.FACTORS, strict=True)]
        close(ours, theirs)

    def test_hues_turn_as_in_torchvision_also_of_greys_and_of_equal_channels(self):
        x = images()
        x[0, :, :8] = x[0, :1, :8]  # no hue
        x[1, 1] = x[1, 0]  # two largest or two smallest channels
        x[2, :, :4], x[2, :, 4:8] = 0, 1
        shifts = (0.2, -0.2, 0.1, 0.5, -0.5, 0.0)
        theirs = [T.adjust_hue(image, shift) for image, shift in zip(x, shifts, strict=True)]
        torch.testing.assert_close(adjusted("hue", x, shifts), torch.stack(theirs), rtol=0, atol=1e-5)

    def test_grey_is_torchvisions(self):
        close(
            views.grey(images().transpose(0, 1))[:, None].expand(-1, 3, -1, -1),
            [T.rgb_to_grayscale(image, 3) for image in images()],
        )

    def test_jitter_is_its_four_parts_in_some_order_and_leaves_a_fifth_alone(self):
        x = images(400, (3, 4, 4))
        same = (views.colour_jitter(x, generator()) == x).flatten(1).all(1)
        assert 0.15 < same.float().mean() < 0.25
        only = views.colour_jitter(x, generator(1), contrast=0, saturation=0, hue=0, p=1.0)
        factors = (only / x).flatten(1)
        unclipped = only.flatten(1).amax(1) < 1
        torch.testing.assert_close(factors[unclipped].amax(1), factors[unclipped].amin(1), rtol=1e-3, atol=1e-5)
        assert factors.min() > 0.19
        assert factors.max() < 1.81

    def test_jitter_applies_torchvisions_functions_in_the_order_that_was_drawn(self):
        """The draws are taken again, and torchvision's functions applied one by one to each image."""
        functions = [T.adjust_brightness, T.adjust_contrast, T.adjust_saturation, T.adjust_hue]
        orders = set()
        for seed in range(6):
            x = images(20, (3, 12, 12))
            ours = views.colour_jitter(x, generator(seed), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=1.0)
            rng = generator(seed)
            assert (views.uniform(20, rng) < 1).all()  # who takes part
            factors = [views.uniform(20, rng, 0.6, 1.4) for _ in range(3)] + [views.uniform(20, rng, -0.1, 0.1)]
            order = views.uniform(4, rng).argsort().tolist()
            orders.add(tuple(order))
            for number, image in enumerate(x):
                for operation in order:
                    image = functions[operation](image, float(factors[operation][number]))
                torch.testing.assert_close(ours[number], image, rtol=0, atol=1e-5)
        assert len(orders) > 3

    @pytest.mark.parametrize("name", ["colour-jitter", "greyscale", "blur", "resized-crop"])
    def test_the_images_that_come_in_stay_as_they_are(self, name):
        x = images()
        FUNCTIONS[name](x, generator())
        assert torch.equal(x, images())

    def test_a_hue_of_more_than_half_a_turn_is_refused(self):
        with pytest.raises(GauntletError, match="a hue of at most"):
            views.colour_jitter(images(), generator(), hue=0.6)


class TestSharpness:
    @pytest.mark.parametrize("shape", SIZES)
    @pytest.mark.parametrize("sigma", [0.1, 1.0, 2.0])
    def test_blur_is_torchvisions(self, shape, sigma):
        x = images(3, shape)
        theirs = [T.gaussian_blur(image, [9, 9], [sigma, sigma]) for image in x]
        close(views.gaussian_blur(x, torch.full((3,), sigma), 4), theirs)

    def test_each_image_has_its_own_sigma(self):
        x = images(2)
        close(
            views.gaussian_blur(x, torch.tensor([0.5, 2.0]), 1),
            [T.gaussian_blur(image, [3, 3], [s, s]) for image, s in zip(x, (0.5, 2.0), strict=True)],
        )

    def test_a_blur_wider_than_the_image_is_refused(self):
        with pytest.raises(GauntletError, match="lower its share"):
            views.gaussian_blur(images(1, (1, 4, 4)), torch.ones(1), 4)


class TestPolicies:
    @pytest.mark.parametrize(("shape", "name"), [((3, 96, 96), "r4"), ((3, 32, 32), "cifar"), ((1, 28, 28), "digits")])
    def test_views_keep_shape_and_range_differ_by_image_and_repeat_by_seed(self, shape, name):
        assert policy_for(shape) is POLICIES[name]
        x = images(1, shape).expand(4, -1, -1, -1)
        first = POLICIES[name](x, generator(1))
        assert first.shape == x.shape
        assert 0 <= first.min() <= first.max() <= 1
        assert not torch.equal(first[0], first[1])
        assert torch.equal(first, POLICIES[name](x, generator(1)))
        assert not torch.equal(first, POLICIES[name](x, generator(2)))

    def test_more_images_than_a_chunk_all_come_out(self):
        x = images(CHUNK // 3**7 + 3, (3, 27, 27))
        policy = POLICIES["cifar"].changed(drop=[step.name for step in POLICIES["cifar"].steps])
        assert torch.equal(policy(x, generator()), x)

    @pytest.mark.parametrize("name", POLICIES)
    def test_every_step_of_report_r4s_table_is_there_with_a_reason(self, name):
        rows = POLICIES[name].rows()
        assert {row[0] for row in rows} == {
            *("enlarge", "resized-crop", "crop", "stretch", "flip", "rotation", "colour-jitter", "greyscale", "blur"),
            "noise",
        }
        assert all(reason.endswith(".") for *_, reason in rows)

    @pytest.mark.parametrize("name", POLICIES)
    def test_each_step_alone_changes_something_or_is_moot_for_grey_images(self, name):
        shape = {"r4": (3, 96, 96), "cifar": (3, 32, 32), "digits": (1, 28, 28)}[name]
        x = images(8, shape)
        nothing = POLICIES[name].changed(drop=[step.name for step in POLICIES[name].steps])
        assert torch.equal(nothing(x, generator()), x)
        for step in POLICIES[name].steps:
            changed = not torch.equal(nothing.changed(add=[step.name])(x, generator()), x)
            assert changed == (step.name != "greyscale" or shape[0] == 3), step.name

    def test_a_flip_after_a_resized_crop_is_made_with_it_as_often_as_alone(self):
        others = [step.name for step in POLICIES["cifar"].steps if step.name != "flip"]
        whole = {"resized-crop": {"low": 1.0, "high": 1.0, "ratio": 1.0}}
        policy = POLICIES["cifar"].changed(drop=others).changed(add=[whole, {"flip": {"p": 0.3}}])
        x = images(1).expand(2000, -1, -1, -1)
        mirrored = (policy(x, generator()) - x.flip(3)).abs().amax((1, 2, 3)) < 1e-5
        assert 0.25 < mirrored.float().mean() < 0.35

    def test_functions_are_those_of_the_registry(self):
        assert all(AUGMENTATIONS.get(name).factory is function for name, function in FUNCTIONS.items())

    def test_digits_are_never_mirrored(self):
        assert not next(step.on for step in POLICIES["digits"].steps if step.name == "flip")

    def test_parameters_can_be_given_where_a_step_is_added(self):
        policy = POLICIES["r4"].changed(add=[{"rotation": {"degrees": 5}}])
        step = next(step for step in policy.steps if step.name == "rotation")
        assert step.on
        assert step.parameters == {"degrees": 5.0}

    def test_an_unknown_step_is_refused_with_the_nearest(self):
        with pytest.raises(GauntletError, match=r"no transformation 'rotatoin'.*rotation"):
            POLICIES["r4"].changed(add=["rotatoin"])
