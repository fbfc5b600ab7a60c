"""The options of mi-fgsm: each paper's step, computed directly."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from gauntlet.attacks import PerImageRNG, Victim, check_ball
from gauntlet.attacks.mi_fgsm import gaussian_kernel
from gauntlet.registry import ATTACKS, GauntletError

STEPS, EPSILON = 4, 0.1
ALPHA = EPSILON / STEPS


def made(model: nn.Module, data, *, batch_size: int = 64, **options):
    images, labels = data
    with Victim(model, batch_size=batch_size, memory_format=torch.contiguous_format) as victim:
        rng = PerImageRNG("k", torch.arange(len(images)))
        attack = ATTACKS.create("mi-fgsm", steps=STEPS, stop_when_fooled=False, **options)
        (result,) = attack.run(victim, images, labels, [EPSILON], rng=rng)
    check_ball(result.images, images, "linf", EPSILON)
    return result


def slope(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(images), labels, reduction="sum"), images)[0]


def by_hand(data, gradient) -> Tensor:
    """MI-FGSM where ``gradient(image, velocity, step)`` says what is added to the velocity, before it is normalised."""
    images, _ = data
    current, velocity = images.clone(), torch.zeros_like(images)
    for step in range(STEPS):
        found = gradient(current, velocity, step)
        velocity = velocity + found / found.abs().sum(dim=(1, 2, 3), keepdim=True)
        current = (current + ALPHA * velocity.sign()).clamp(images - EPSILON, images + EPSILON).clamp(0, 1)
    return current


@pytest.fixture(scope="module")
def some(correct) -> tuple[Tensor, Tensor]:
    return correct[0][:12], correct[1][:12]


def same(found: Tensor, expected: Tensor) -> bool:
    """Signs of gradients that are nearly 0 may round either way."""
    return ((found - expected).abs() < 1e-5).float().mean().item() > 0.99


def test_without_options_it_is_mi_fgsm(trained, some) -> None:
    expected = by_hand(some, lambda x, v, step: slope(trained, x, some[1]))
    assert same(made(trained, some).images, expected)


def test_nesterov_takes_the_gradient_where_the_velocity_leads(trained, some) -> None:
    expected = by_hand(some, lambda x, v, step: slope(trained, x + ALPHA * v, some[1]))
    assert same(made(trained, some, nesterov=True).images, expected)


def test_scale_averages_over_copies_of_less_brightness(trained, some) -> None:
    def gradient(x: Tensor, v: Tensor, step: int) -> Tensor:
        leaf = x.detach().requires_grad_()
        losses = [F.cross_entropy(trained(leaf / 2**copy), some[1], reduction="sum") for copy in range(3)]
        return torch.autograd.grad(sum(losses) / 3, leaf)[0]

    assert same(made(trained, some, scale=3).images, by_hand(some, gradient))


def test_translation_smooths_gradients_with_a_gaussian(trained, some) -> None:
    line = torch.as_tensor(stats.norm.pdf(torch.linspace(-3, 3, 5).numpy()))
    kernel = (line[:, None] * line / (line[:, None] * line).sum()).float()
    torch.testing.assert_close(gaussian_kernel(5).float(), kernel)
    expected = by_hand(some, lambda x, v, step: F.conv2d(slope(trained, x, some[1]), kernel[None, None], padding=2))
    assert same(made(trained, some, translation=5).images, expected)


def test_variance_corrects_each_step_by_how_the_neighbours_of_the_last_differed(trained, some) -> None:
    draws, before = PerImageRNG("k", torch.arange(12)), [torch.zeros_like(some[0])]

    def gradient(x: Tensor, v: Tensor, step: int) -> Tensor:
        own, correction = slope(trained, x, some[1]), before[-1]
        near = []
        for turn in range(3):
            at = torch.full((12,), step * 3 + turn)
            noise = 2 * draws.uniform(some[0].shape[1:], purpose="neighbours", step=at) - 1
            near.append(slope(trained, x + 1.5 * EPSILON * noise, some[1]))
        before.append(sum(near) / 3 - own)
        return own + correction

    expected = by_hand(some, gradient)
    assert same(made(trained, some, variance=3).images, expected)


def test_diverse_input_shows_the_model_smaller_images_on_black(trained, some) -> None:
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if images.requires_grad:
                seen.append(images.detach())
            return trained(images)

    white = torch.ones_like(some[0])
    made(Watched(), (white, some[1]), diverse_input=1.0)
    totals = seen[0].sum(dim=(1, 2, 3)) / white[0].numel()
    assert ((totals > 0.7) & (totals < 1)).all()
    assert totals.std() > 0.01
    plain, often = (made(trained, some, diverse_input=share).images for share in (0.0, 1.0))
    assert not torch.equal(plain, often)


def test_options_combine_and_do_not_depend_on_the_batch(trained, some) -> None:
    options = {"diverse_input": 0.7, "translation": 3, "nesterov": True, "scale": 2, "variance": 2}
    whole, parts = (made(trained, some, batch_size=size, **options) for size in (64, 5))
    assert same(whole.images, parts.images)
    passes = 2 * 3  # copies of the image and of two neighbours
    assert whole.backwards == STEPS * passes * len(some[0])
    assert whole.forwards == STEPS * (passes + 1) * len(some[0]) + len(some[0])


@pytest.mark.parametrize("options", [{"diverse_input": 2.0}, {"translation": 4}, {"scale": 0}, {"variance": -1}])
def test_bad_options_are_one_sentence(options) -> None:
    with pytest.raises(GauntletError, match=r"needs diverse_input in \[0, 1\], an odd translation"):
        ATTACKS.create("mi-fgsm", **options)
