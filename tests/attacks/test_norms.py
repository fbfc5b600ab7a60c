from __future__ import annotations

import foolbox
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim, check_ball, perturbation_norms
from gauntlet.attacks.norms import into_ball, project
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.steps import ascend, random_offset, steepest_direction
from gauntlet.registry import GauntletError

offsets = arrays("float32", (4, 2, 3, 3), elements=st.floats(-2, 2, width=32)).map(torch.from_numpy)
radii = st.floats(0.001, 3)
ball_norms = st.sampled_from(["linf", "l2"])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_norms_equal_foolboxes(norm: str) -> None:
    images, other = torch.rand(5, 3, 7, 7), torch.rand(5, 3, 7, 7)
    torch.testing.assert_close(perturbation_norms(other, images, norm), getattr(foolbox.distances, norm)(images, other))


def test_l0_counts_pixels_not_channels() -> None:
    images = torch.zeros(2, 3, 4, 4)
    other = images.clone()
    other[0, :, 1, 1] = 0.5
    other[0, 2, 2, 3] = 0.5
    assert perturbation_norms(other, images, "l0").tolist() == [2, 0]


@given(offsets, radii, ball_norms)
@settings(max_examples=60, deadline=None)
def test_a_projection_lies_in_its_ball_and_repeats_itself(offset: torch.Tensor, radius: float, norm: str) -> None:
    limit = torch.full((4,), radius)
    projected = project(offset, norm, limit)
    sizes = perturbation_norms(projected, torch.zeros_like(projected), norm)
    assert (sizes <= limit * (1 + 1e-6)).all()
    torch.testing.assert_close(project(projected, norm, limit), projected, rtol=1e-6, atol=1e-7)
    inside = perturbation_norms(offset, torch.zeros_like(offset), norm) < radius * (1 - 1e-5)
    assert torch.equal(projected[inside], offset[inside])


@given(offsets, offsets, radii, ball_norms)
@settings(max_examples=60, deadline=None)
def test_no_point_of_the_ball_is_nearer_than_the_projection(
    offset: torch.Tensor, other: torch.Tensor, radius: float, norm: str
) -> None:
    limit = torch.full((4,), radius)
    rival = project(other, norm, limit)
    chosen = (offset - project(offset, norm, limit)).flatten(1).norm(dim=1)
    assert (chosen <= (offset - rival).flatten(1).norm(dim=1) + 1e-5).all()


def test_each_image_has_its_own_radius() -> None:
    offset = torch.ones(3, 1, 2, 2)
    assert project(offset, "linf", torch.tensor([0.1, 0.5, 2.0])).amax(dim=(1, 2, 3)).tolist() == pytest.approx(
        [0.1, 0.5, 1.0]
    )


@given(offsets, offsets, radii, ball_norms)
@settings(max_examples=60, deadline=None)
def test_a_step_and_a_shrunk_image_pass_the_check(
    first: torch.Tensor, second: torch.Tensor, radius: float, norm: str
) -> None:
    images = first.abs() / 2
    limit = torch.full((4,), radius)
    check_ball(ascend(images, images, second, norm, stepsize=limit, radius=limit), images, norm, radius)
    check_ball(into_ball((images + second).clamp(0, 1), images, norm, radius), images, norm, radius)


def linear_victim(side: int) -> tuple[Victim, torch.Tensor, torch.Tensor]:
    """A linear model of few weights on large images, 3 of these, and labels that it gets right."""
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, 3)).eval()
    with torch.no_grad():
        return Victim(model), images, model(images).argmax(1)


@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize("settings", [{}, {"random_start": False}, {"stop_when_fooled": False}], ids=str)
def test_rounding_takes_no_large_image_out_of_its_l1_ball(side: int, settings: dict[str, bool]) -> None:
    epsilons = [0.01, 0.1, 1.0, 5.0, 12.0]
    victim, images, labels = linear_victim(side)
    with victim:
        results = PGD("l1", steps=3, **settings).run(
            victim, images, labels, epsilons, rng=PerImageRNG("k", torch.arange(3))
        )
    for result in results:
        check_ball(result.images, images, "l1", result.epsilon)
    if "stop_when_fooled" in settings:
        assert float(results[-1].norms.min()) > 0.95 * 12  # the ball is used


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0, 5.0, 12.0])
def test_large_images_are_shrunk_into_an_l1_ball(epsilon: float) -> None:
    images, other = torch.rand(2, 3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    shrunk = into_ball(other, images, "l1", epsilon)
    check_ball(shrunk, images, "l1", epsilon)
    assert float(perturbation_norms(shrunk, images, "l1").min()) > 0.4 * epsilon


def test_perturbations_of_less_than_a_float_are_not_rounded_out_of_an_l1_ball() -> None:
    """Floats near 0.75 lie 2**-24 apart: 0.7 of that rounds to all of it, in every entry."""
    images = torch.full((2, 3, 64, 64), 0.75)
    epsilon = 10.7 * 2**-24 * images[0].numel()
    shrunk = into_ball(torch.full_like(images, 0.8), images, "l1", epsilon)
    check_ball(shrunk, images, "l1", epsilon)
    assert float(perturbation_norms(shrunk, images, "l1").min()) > 0.9 * epsilon


def test_an_image_inside_its_ball_is_left_bit_for_bit() -> None:
    images, near = torch.rand(20, 1, 5, 5), torch.rand(20, 1, 5, 5)
    assert torch.equal(into_ball(near, images, "l2", 100.0), near)


def test_directions_have_unit_size_and_are_zero_where_there_is_no_gradient() -> None:
    gradient = torch.randn(3, 1, 4, 4)
    gradient[1] = 0
    gradient[2, 0, 0, 0] = torch.nan
    for norm in ("linf", "l2"):
        direction = steepest_direction(gradient, norm)
        sizes = perturbation_norms(direction, torch.zeros_like(direction), norm)
        assert direction.isfinite().all()
        torch.testing.assert_close(sizes[:2], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(("norm", "power"), [("linf", 4), ("l2", 4)])
def test_random_starts_fill_the_unit_ball_uniformly(norm: str, power: int) -> None:
    from scipy.stats import kstest

    offset = random_offset(norm, PerImageRNG("k", torch.arange(4000)), torch.Size((1, 2, 2)))
    sizes = perturbation_norms(offset, torch.zeros_like(offset), norm)
    assert kstest(sizes.numpy() ** power, "uniform").pvalue > 0.001  # volume grows with the dimension's power
    assert (offset.mean(dim=0).abs() < 0.05).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x + 0.2, r"linf norm 0\.2.* leaves the ball of radius 0\.1 by 0\.1"),
        (lambda x: x - 0.55, r"\[-0\.05.*must lie in \[0, 1\]"),
        (lambda x: x * torch.nan, "2 of 2 adversarial images hold NaN"),
        (lambda x: x[:1], r"shape \(1, 1, 2, 2\)"),
    ],
)
def test_the_check_says_how_an_image_leaves(change, message: str) -> None:
    images = torch.full((2, 1, 2, 2), 0.5)
    with pytest.raises(GauntletError, match=message):
        check_ball(change(images), images, "linf", 0.1)


def test_the_check_allows_rounding_and_no_more() -> None:
    images = torch.zeros(1, 1, 1, 1)
    check_ball(images + 0.1 + 1.9e-6, images, "linf", 0.1)
    with pytest.raises(GauntletError, match="leaves the ball"):
        check_ball(images + 0.1 + 2.3e-6, images, "linf", 0.1)


def test_unknown_norms_are_named() -> None:
    images = torch.zeros(1, 1, 1, 1)
    with pytest.raises(GauntletError, match="Unknown norm 'l3'"):
        perturbation_norms(images, images, "l3")
    with pytest.raises(GauntletError, match="no projection onto balls of norm 'l0'"):
        project(images, "l0", torch.ones(1))
