"""Augmentations: what they change, what they keep, and the targets they leave."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gauntlet.models.training import Batch
from gauntlet.models.training.augment import betas, read_augmentations
from gauntlet.models.training.pixmix import _product, _weights
from gauntlet.registry import AUGMENTATIONS, GauntletError

NAMES = [entry.name for entry in AUGMENTATIONS]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 64, channels: int = 3, height: int = 12, width: int = 12) -> Batch:
    images = torch.rand(count, channels, height, width, generator=generator(9))
    return Batch(images, torch.arange(count) % 10, torch.arange(count))


def apply(spec: object, given: Batch, seed: int = 0) -> Batch:
    (one,) = read_augmentations([spec])
    return one(given, generator(seed), 10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 9, 14)])
def test_images_keep_shape_and_range_and_targets_stay_probabilities(name: str, shape: tuple[int, int, int]):
    before = batch(32, *shape)
    original = before.images.clone()
    after = apply(name, before)
    assert after.images.shape == before.images.shape
    assert after.images.min() >= 0
    assert after.images.max() <= 1
    assert torch.equal(before.images, original)
    if after.targets.is_floating_point():
        torch.testing.assert_close(after.targets.sum(1), torch.ones(32))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_draws_give_the_same_images_and_others_do_not(name: str):
    spec = {"cutmix": {"p": 1.0}} if name == "cutmix" else name
    assert torch.equal(apply(spec, batch(), 1).images, apply(spec, batch(), 1).images)
    assert not torch.equal(apply(spec, batch(), 1).images, apply(spec, batch(), 2).images)


@pytest.mark.parametrize("spec", [{"rotation": {"degrees": 0}}, {"translation": {"share": 0}}])
def test_a_warp_of_nothing_is_the_identity(spec: dict):
    torch.testing.assert_close(apply(spec, batch()).images, batch().images, rtol=0, atol=1e-5)


def test_rotation_agrees_with_torchvision():
    """One image turned by its own draw; torchvision turns the other way round its y axis, hence the sign."""
    from torchvision.transforms.v2 import functional as T

    for size in ((15, 15), (15, 21)):
        given = batch(1, 1, *size)
        angle = float(torch.rand(1, generator=generator(4))) * 60 - 30
        expected = T.rotate(given.images, angle, interpolation=T.InterpolationMode.BILINEAR)
        ours = apply({"rotation": {"degrees": 30}}, given, 4).images
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


def test_translation_moves_by_at_most_its_share():
    dot = torch.zeros(200, 1, 21, 21)
    dot[:, :, 10, 10] = 1
    moved = apply({"translation": {"share": 0.2}}, Batch(dot, torch.zeros(200).long(), torch.arange(200))).images
    rows = (moved.sum((1, 3)) * torch.arange(21)).sum(1) / moved.sum((1, 2, 3))
    assert (rows - 10).abs().max() <= 0.2 * 21 + 1e-3
    assert (rows - 10).abs().max() > 0.18 * 21


def test_crop_is_a_window_of_the_padded_image():
    given = batch(16)
    padded = F.pad(given.images, (2,) * 4)
    windows = padded.unfold(2, 12, 1).unfold(3, 12, 1)  # (N, C, 5, 5, 12, 12)
    cropped = apply({"crop": {"padding": 2}}, given).images
    found = (windows == cropped[:, :, None, None]).all(-1).all(-1).all(1).flatten(1)
    assert bool((found.sum(1) == 1).all())
    assert len(found.float().argmax(1).unique()) > 5


def test_flip_mirrors_the_images_that_its_probability_says():
    given = batch(400)
    flipped = apply({"flip": {"p": 0.25}}, given).images
    mirrored = (flipped == given.images.flip(3)).flatten(1).all(1)
    assert bool((mirrored ^ (flipped == given.images).flatten(1).all(1)).all())
    assert 70 <= int(mirrored.sum()) <= 130
    assert torch.equal(apply({"flip": {"p": 1.0}}, given).images, given.images.flip(3))


def test_noise_has_a_deviation_between_its_ends():
    grey = Batch(torch.full((300, 1, 20, 20), 0.5), torch.zeros(300).long(), torch.arange(300))
    deviations = (apply({"noise": {"low": 0.05, "high": 0.1}}, grey).images - 0.5).flatten(1).std(1)
    assert 0.04 < deviations.min() < 0.06
    assert 0.09 < deviations.max() < 0.11


# -- mixing ---------------------------------------------------------------------------------------------------


def solid(count: int = 10) -> Batch:
    """Image i is of value i / 10 and of class i: pixels tell what was mixed."""
    values = torch.arange(count) / 10
    return Batch(values.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone(), torch.arange(count), torch.arange(count))


def expected_value(targets: Tensor) -> Tensor:
    return targets @ (torch.arange(10) / 10)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_weights_pixels_and_targets_alike(seed: int):
    mixed = apply("mixup", solid(), seed)
    torch.testing.assert_close(mixed.images.mean((1, 2, 3)), expected_value(mixed.targets))
    own = mixed.targets.gather(1, torch.arange(10)[:, None])[:, 0]
    assert own.max() - own.min() < 1e-6 or bool((own == 1).any())  # one weight for all, but for an image with itself


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_weights_equal_the_kept_area_exactly(seed: int):
    mixed = apply({"cutmix": {"p": 1.0}}, solid(), seed)
    torch.testing.assert_close(mixed.images.mean((1, 2, 3)), expected_value(mixed.targets), rtol=0, atol=1e-6)
    kept = (mixed.images == solid().images).float().mean((1, 2, 3))
    torch.testing.assert_close(mixed.targets.gather(1, torch.arange(10)[:, None])[:, 0], kept, rtol=0, atol=1e-6)


def test_cutmix_leaves_a_batch_alone_as_often_as_it_should():
    changed = [apply({"cutmix": {"p": 0.5}}, solid(), seed).targets.is_floating_point() for seed in range(200)]
    assert 75 <= sum(changed) <= 125


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.3, 0.3), (3.0, 1.0)])
def test_beta_draws_have_the_moments_of_a_beta_distribution(a: float, b: float):
    draws = betas(a, b, 20_000, generator())
    known = torch.distributions.Beta(a, b)
    assert float(draws.mean()) == pytest.approx(float(known.mean), abs=0.01)
    assert float(draws.var()) == pytest.approx(float(known.variance), abs=0.01)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_beta_without_positive_parameters_is_refused(name: str):
    with pytest.raises(GauntletError, match="positive parameters, got 0"):
        apply({name: {"alpha": 0.0}}, batch())


def test_pixmix_of_no_rounds_only_augments_some_images():
    given = batch(100)
    mixed = apply({"pixmix": {"rounds": 0}}, given).images
    alike = (mixed - given.images).flatten(1).abs().amax(1) < 1e-6
    assert 30 <= int(alike.sum()) <= 70


def test_pixmix_draws_both_weights_apart():
    first, second = (values.flatten() for values in _weights(batch(200).images, 3.0, generator()))
    outside = second < 0
    assert 70 <= int(outside.sum()) <= 130
    assert int((first - 1 == -second)[outside].sum()) == 0
    assert bool((first[outside] >= 1).all())
    assert bool((first[~outside] <= 1).all())


def test_pixmix_multiplies_by_black_as_by_next_to_nothing():
    image = torch.full((200, 1, 2, 2), 0.5)
    assert float(_product(image, torch.zeros_like(image), 3.0, generator()).min()) < 1e-10


@pytest.mark.parametrize("severity", [-0.1, 10.1, 13.0, float("nan")])
def test_pixmix_beyond_what_its_augmentations_take_is_one_sentence(severity: float):
    with pytest.raises(GauntletError, match="pixmix needs a severity from 0 to 10, got"):
        apply({"pixmix": {"severity": severity}}, batch())


@pytest.mark.parametrize("severity", [0.0, 10.0])
def test_pixmix_at_either_end_gives_images(severity: float):
    assert bool(apply({"pixmix": {"severity": severity}}, batch()).images.isfinite().all())


def test_a_plug_in_augmentation_takes_part():
    try:

        @AUGMENTATIONS.register("half")
        def half(images: Tensor, rng: torch.Generator) -> Tensor:
            """Halves all pixels."""
            return images / 2

        torch.testing.assert_close(apply("half", batch()).images, batch().images / 2)
    finally:
        AUGMENTATIONS._entries.pop("half", None)
