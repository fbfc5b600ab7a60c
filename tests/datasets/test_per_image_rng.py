from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from gauntlet.attacks import PerImageRNG
from gauntlet.datasets.per_image_rng import seeded

MASK = 2**64 - 1


def splitmix64(seed: int, position: int) -> int:
    """The reference algorithm in Python's own integers."""
    z = (seed + position * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_generator_is_splitmix64() -> None:
    """Its published first outputs for seed 1234567 (the reference implementation's test vector)."""
    from gauntlet.datasets.per_image_rng import _GOLDEN, _mix

    state = 1234567 + torch.arange(1, 4) * _GOLDEN
    found = [value % 2**64 for value in _mix(state).tolist()]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert found == [splitmix64(1234567, position) for position in (1, 2, 3)]


@pytest.mark.parametrize("vary", ["index", "position", "restart", "purpose"])
def test_draws_are_uniform_and_normal_along_every_axis(vary: str) -> None:
    def sample(kind: str) -> np.ndarray:
        if vary == "index":
            return getattr(PerImageRNG("k", torch.arange(20000)), kind)((), purpose="p").numpy()
        if vary == "position":
            return getattr(PerImageRNG("k", torch.tensor([7])), kind)((20000,), purpose="p").flatten().numpy()
        one = PerImageRNG("k", torch.tensor([7]))
        named = {"restart": lambda i: {"purpose": "p", "restart": i}, "purpose": lambda i: {"purpose": str(i)}}[vary]
        return torch.cat([getattr(one, kind)((), **named(i)) for i in range(2000)]).numpy()

    uniform = sample("uniform")
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert kstest(uniform, "uniform").pvalue > 0.001
    assert kstest(sample("normal"), "norm").pvalue > 0.001


def test_neighbouring_images_positions_and_purposes_are_uncorrelated() -> None:
    draws = PerImageRNG("k", torch.arange(200))
    first, second = draws.normal((100,), purpose="a"), draws.normal((100,), purpose="b")
    for left, right in [(first[1:], first[:-1]), (first[:, 1:], first[:, :-1]), (first, second)]:
        correlation = np.corrcoef(left.flatten().numpy(), right.flatten().numpy())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(left.numel())


def test_an_image_draws_the_same_whatever_its_order_and_neighbours() -> None:
    everyone = PerImageRNG("k", torch.arange(100)).uniform((1, 4, 4), purpose="start")
    order = torch.randperm(100)
    assert torch.equal(PerImageRNG("k", order).uniform((1, 4, 4), purpose="start"), everyone[order])
    assert torch.equal(PerImageRNG("k", torch.tensor([42])).uniform((1, 4, 4), purpose="start"), everyone[42:43])


def test_a_selection_draws_what_the_whole_drew() -> None:
    draws = PerImageRNG("k", torch.tensor([5, 9, 11, 2]))
    whole = draws.normal((3,), purpose="p")
    mask = torch.tensor([True, False, True, False])
    assert torch.equal(draws.select(mask).normal((3,), purpose="p"), whole[mask])
    assert torch.equal(draws.select(torch.tensor([3, 3])).normal((3,), purpose="p"), whole[[3, 3]])


def test_key_purpose_step_and_restart_each_give_other_numbers() -> None:
    index = torch.arange(8)
    seen = [
        PerImageRNG(key, index).uniform((5,), purpose=purpose, step=step, restart=restart)
        for key, purpose, step, restart in [
            ("k", "p", 0, 0),
            ("l", "p", 0, 0),
            ("k", "q", 0, 0),
            ("k", "p", 1, 0),
            ("k", "p", 0, 1),
        ]
    ]
    distinct = {tuple(numbers.flatten().tolist()) for numbers in seen}
    assert len(distinct) == len(seen)


def test_seeds_depend_on_the_batch_and_fit_numpy() -> None:
    draws = PerImageRNG("k", torch.arange(10))
    seeds = {draws.seed("p"), draws.seed("q"), draws.seed("p", 1), draws.select(slice(5)).seed("p")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert draws.seed("p") == PerImageRNG("k", torch.arange(10)).seed("p")


def test_seeding_a_library_repeats_and_leaves_the_global_generators_alone() -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    pairs = []
    for _ in range(2):
        with seeded(5, torch.device("cpu")):
            pairs.append((torch.rand(1).item(), np.random.rand()))
    assert pairs[0] == pairs[1]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_a_thousand_mnist_images_draw_within_a_second() -> None:
    start = time.perf_counter()
    assert PerImageRNG("k", torch.arange(1000)).normal((1, 28, 28), purpose="p").shape == (1000, 1, 28, 28)
    assert time.perf_counter() - start < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_the_same_bits() -> None:
    cpu, gpu = PerImageRNG("k", torch.arange(100)), PerImageRNG("k", torch.arange(100, device="cuda"))
    assert torch.equal(gpu.uniform((50,), purpose="p").cpu(), cpu.uniform((50,), purpose="p"))
    torch.testing.assert_close(gpu.normal((50,), purpose="p").cpu(), cpu.normal((50,), purpose="p"))
