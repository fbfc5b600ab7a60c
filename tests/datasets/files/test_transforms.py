"""Preprocessing as data does, pixel for pixel, what torchvision's transforms do."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision import models
from torchvision import transforms as T

from gauntlet import GauntletError
from gauntlet.datasets.files.transforms import PRESETS, cover, parse_transform

SIZES = [(60, 40), (40, 60), (33, 97), (64, 64), (300, 20)]
CASES = [
    ({"resize": 32, "centre_crop": 24}, T.Compose([T.Resize(32), T.CenterCrop(24)])),
    ({"resize": [20, 30]}, T.Resize([20, 30])),
    ([{"resize": {"size": 48, "interpolation": "bicubic"}}], T.Resize(48, T.InterpolationMode.BICUBIC)),
    ([{"resize": {"size": [24, 24], "interpolation": "nearest"}}], T.Resize([24, 24], T.InterpolationMode.NEAREST)),
    ([{"pad": 4}, {"center_crop": 80}], T.Compose([T.Pad(4), T.CenterCrop(80)])),
    ({"pad": {"padding": [1, 2, 3, 4], "fill": 7}}, T.Pad([1, 2, 3, 4], fill=7)),
    ({"pad": {"padding": [2, 3], "mode": "reflect"}}, T.Pad([2, 3], padding_mode="reflect")),
    ("imagenet-256-224", T.Compose([T.Resize(256), T.CenterCrop(224)])),
    ("small-32", T.Compose([T.Resize(32), T.CenterCrop(32)])),
]


@pytest.mark.parametrize(("spec", "theirs"), CASES)
@pytest.mark.parametrize("size", SIZES)
def test_every_step_equals_torchvisions(photograph, spec, theirs, size):
    """Also the rounding of sides that do not divide."""
    for image in (Image.fromarray(photograph(1, size)), Image.fromarray(photograph(2, size)).convert("L")):
        made = parse_transform(spec, "test")
        assert np.array_equal(made(image), theirs(image))
        assert made.size in (None, np.asarray(made(image)).shape[:2])


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_b_16", "resnet50/IMAGENET1K_V1"])
def test_the_preset_of_a_models_weights_is_that_of_torchvision(photograph, name):
    """Up to the conversion to a tensor and the normalisation, which is a layer of the model."""
    model, _, weights = name.partition("/")
    enum = models.get_model_weights(model)
    theirs = (enum[weights] if weights else enum.DEFAULT).transforms()
    theirs.mean, theirs.std = [0.0], [1.0]
    image = Image.fromarray(photograph(1, (500, 375)))
    ours = np.asarray(parse_transform(f"torchvision/{name}", "test")(image)).transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(ours, theirs(image).numpy())


def test_without_antialiasing_it_is_torchvisions_resize_of_tensors(photograph):
    """Pillow always smooths."""
    image = Image.fromarray(photograph(1, (60, 40)))
    made = parse_transform({"resize": {"size": [16, 16], "antialias": False}}, "test")(image)
    theirs = T.functional.resize(T.functional.pil_to_tensor(image), [16, 16], antialias=False)
    assert np.array_equal(np.asarray(made).transpose(2, 0, 1), theirs.numpy())


@pytest.mark.parametrize("size", SIZES)
def test_covering_has_the_size_asked_for_and_keeps_proportions(photograph, size):
    """A square in the middle of an image stays a square."""
    image = Image.fromarray(photograph(1, size))
    assert cover(28, 28)(image).size == (28, 28)
    assert cover(size[1], size[0])(image) is image


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("imagenet-256", "no transform 'imagenet-256'; did you mean 'imagenet-256-224'"),
        ("torchvision/resnet1", "no model 'resnet1'"),
        ({"resise": 3}, "no step 'resise'; did you mean 'resize'"),
        ({"resize": 0}, "must be pixels"),
        ({"resize": {"size": 4, "interpolation": "cubic"}}, "did you mean 'bicubic'"),
        ({"resize": {"sizes": 4}}, "resize cannot be read"),
        ({"pad": -1}, "must be pixels"),
        (7, "must be a preset"),
        ([], "must be a preset"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(spec, sentence):
    """With what would be right."""
    with pytest.raises(GauntletError, match=sentence):
        parse_transform(spec, "here")


def test_presets_end_in_one_size():
    """So that images of all sizes make one set."""
    assert all(parse_transform(name, "test").size for name in PRESETS)
