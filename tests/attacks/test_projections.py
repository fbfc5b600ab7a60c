"""Exact projections: onto the L1 ball within the box, and onto hyperplanes within the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor

from gauntlet.attacks.hyperplane import project_onto_hyperplane
from gauntlet.attacks.l1 import project_l1, sparse_direction, uniform_in_l1
from gauntlet.attacks.noise import clipped_scale
from gauntlet.datasets.per_image_rng import PerImageRNG

SIZES = {"linf": torch.inf, "l2": 2, "l1": 1}


def problem(seed: int, count: int = 6) -> tuple[Tensor, Tensor]:
    """Images with some black and white pixels, and perturbations of mixed size."""
    generator = torch.Generator().manual_seed(seed)
    clean = (1.4 * torch.rand(count, 1, 3, 3, generator=generator) - 0.2).clamp(0, 1)
    return clean, torch.randn(count, 1, 3, 3, generator=generator)


@given(st.integers(0, 10**6), st.floats(0.01, 4))
@settings(max_examples=30, deadline=None)
def test_the_l1_projection_is_the_nearest_point_of_ball_and_box(seed: int, radius: float) -> None:
    clean, offset = problem(seed, 1)
    found = project_l1(offset, clean, torch.tensor([radius]))
    u, x = offset.flatten().double().numpy(), clean.flatten().double().numpy()
    # Split into positive and negative parts, the problem is smooth.
    bounds = [(0, 1 - pixel) for pixel in x] + [(0, pixel) for pixel in x]

    def distance(parts: np.ndarray) -> tuple[float, np.ndarray]:
        gap = parts[:9] - parts[9:] - u
        return float(gap @ gap), np.concatenate([2 * gap, -2 * gap])

    ball = {"type": "ineq", "fun": lambda parts: radius - parts.sum(), "jac": lambda parts: -np.ones(18)}
    best = minimize(distance, np.zeros(18), jac=True, bounds=bounds, constraints=[ball], method="SLSQP", tol=1e-12)
    ours = float((found.flatten().double() - offset.flatten().double()).square().sum())
    assert ours == pytest.approx(best.fun, abs=1e-5)
    assert float(found.abs().sum()) <= radius * (1 + 1e-6)
    assert float((clean + found).min()) >= -1e-6
    assert float((clean + found).max()) <= 1 + 1e-6


def test_the_l1_projection_leaves_what_is_inside() -> None:
    clean = torch.full((2, 1, 3, 3), 0.5)
    offset = torch.full((2, 1, 3, 3), 0.1)
    assert torch.equal(project_l1(offset, clean, torch.tensor([1.0, 5.0])), offset)


@given(st.integers(0, 10**6), st.floats(-3, 3), st.sampled_from(["linf", "l2", "l1"]))
@settings(max_examples=60, deadline=None)
def test_the_smallest_move_onto_a_hyperplane(seed: int, share: float, norm: str) -> None:
    clean, normal = problem(seed, 1)
    x, w = clean.flatten().double().numpy(), normal.flatten().double().numpy()
    most = float(np.abs(w) @ np.where(w * np.sign(share or 1) > 0, 1 - x, x))
    gain = share * most / 3
    move = project_onto_hyperplane(clean, normal, torch.tensor([gain]), norm)
    reached = float((move * normal).sum())
    assert reached == pytest.approx(gain, abs=1e-4 * max(abs(gain), 1))
    assert float((clean + move).min()) >= -1e-5
    assert float((clean + move).max()) <= 1 + 1e-5
    size = float(torch.linalg.vector_norm(move.flatten(), ord=SIZES[norm]))
    assert size == pytest.approx(smallest(x, w, gain, norm), abs=2e-4)


def smallest(x: np.ndarray, w: np.ndarray, gain: float, norm: str) -> float:
    """Size of the smallest move, by a general solver."""
    if norm == "l2":
        plane = {"type": "eq", "fun": lambda d: d @ w - gain, "jac": lambda d: w}
        box = [(-pixel, 1 - pixel) for pixel in x]
        found = minimize(lambda d: d @ d, np.zeros(9), jac=lambda d: 2 * d, bounds=box, constraints=[plane], tol=1e-12)
        return float(np.sqrt(found.fun))
    if norm == "l1":
        parts = [(0, 1 - pixel) for pixel in x] + [(0, pixel) for pixel in x]
        return float(linprog(np.ones(18), A_eq=[np.concatenate([w, -w])], b_eq=[gain], bounds=parts).fun)
    rows = np.vstack([np.hstack([np.eye(9), -np.ones((9, 1))]), np.hstack([-np.eye(9), -np.ones((9, 1))])])
    box = [(-pixel, 1 - pixel) for pixel in x] + [(0, None)]
    plane = [np.append(w, 0)]
    return float(
        linprog(np.append(np.zeros(9), 1), A_ub=rows, b_ub=np.zeros(18), A_eq=plane, b_eq=[gain], bounds=box).fun
    )


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_out_of_reach_a_move_goes_as_far_as_the_box_lets_it(norm) -> None:
    clean, normal = problem(3)
    move = project_onto_hyperplane(clean, normal, torch.full((6,), 1e3), norm)
    torch.testing.assert_close(clean + move, (normal > 0).float(), rtol=0, atol=1e-6)


def test_sparse_steps_have_length_one_and_stay_inside_the_box() -> None:
    clean, gradient = problem(5)
    step = sparse_direction(gradient, clean, share=0.3)
    torch.testing.assert_close(step.flatten(1).abs().sum(dim=1), torch.ones(6))
    assert ((step != 0).flatten(1).sum(dim=1) <= 3).all()
    assert not ((clean == 0) & (step < 0)).any()
    assert not ((clean == 1) & (step > 0)).any()


def test_draws_from_the_l1_ball_are_uniform() -> None:
    """In d dimensions the d-th power of the norm of a uniform point is uniform in [0, 1]."""
    points = uniform_in_l1(PerImageRNG("k", torch.arange(4000)), torch.Size([1, 2, 2]))
    powers = points.flatten(1).abs().sum(dim=1) ** 4
    levels = torch.linspace(0.1, 0.9, 9)
    torch.testing.assert_close((powers[:, None] < levels).float().mean(dim=0), levels, rtol=0, atol=0.03)
    assert points.mean(dim=0).abs().max() < 0.01


@given(st.integers(0, 10**6), st.floats(0.05, 5))
@settings(max_examples=50, deadline=None)
def test_clipping_aware_noise_has_the_size_asked_for_or_fills_the_box(seed: int, radius: float) -> None:
    clean, noise = problem(seed)
    scale = clipped_scale(noise, clean, torch.full((6,), radius)).view(-1, 1, 1, 1)
    size = ((clean + scale * noise).clamp(0, 1) - clean).flatten(1).norm(dim=1)
    most = torch.where(noise > 0, 1 - clean, clean).flatten(1).norm(dim=1)
    torch.testing.assert_close(size, most.clamp_max(radius), rtol=1e-4, atol=1e-5)
