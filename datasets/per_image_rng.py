"""Random numbers that belong to an image: they depend on nothing but a key, the image's index and a purpose."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

# Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64), as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


class PerImageRNG:
    """Random numbers for images, whatever their order, batch, device or neighbours.

    Each number is a hash of (key, purpose, step, restart, index of the image, position): nothing is consumed, so
    asking twice gives the same numbers. A step may be a tensor (N,) with one for each image.

    >>> draws = PerImageRNG("seed=0", torch.tensor([7, 8]))
    >>> alone = PerImageRNG("seed=0", torch.tensor([8]))
    >>> torch.equal(alone.uniform((3,), purpose="start"), draws.uniform((3,), purpose="start")[1:])
    True

    Args:
        key: Names the stream, such as ``"seed=0 mnist pgd"``.
        indices: Index (N,) of each image in its dataset, int64; the draws are made on its device.
    """

    def __init__(self, key: str, indices: Tensor) -> None:
        self.key = key
        self.indices = indices.long()

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, positions: Tensor | slice) -> PerImageRNG:
        """The draws of some of the images, given by positions (repetition allowed) or a mask (N,)."""
        return PerImageRNG(self.key, self.indices[positions])

    def uniform(self, shape: Sequence[int], *, purpose: str, step: int | Tensor = 0, restart: int = 0) -> Tensor:
        """Uniform numbers in [0, 1) of shape (N, *shape), float32; the same bits on every device."""
        bits = self._bits(shape, purpose, step, restart)
        return _shift(bits, 40).float().mul_(2.0**-24)

    def normal(self, shape: Sequence[int], *, purpose: str, step: int | Tensor = 0, restart: int = 0) -> Tensor:
        """Standard normal numbers of shape (N, *shape), float32; devices agree up to rounding."""
        bits = self._bits(shape, purpose, step, restart)
        home = bits.device
        if home.type == "mps":  # it has no double precision
            bits = bits.cpu()
        open_unit = _shift(bits, 12).double().add_(0.5).mul_(2.0**-52)
        return torch.special.ndtri(open_unit).float().to(home)

    def seed(self, purpose: str, restart: int = 0) -> int:
        """A 32-bit seed for a library that draws per batch; it depends on which images are in the batch."""
        batch = hashlib.sha256(self.indices.cpu().numpy().tobytes()).hexdigest()
        return _digest(self.key, purpose, restart, batch) % 2**32

    def _bits(self, shape: Sequence[int], purpose: str, step: int | Tensor, restart: int) -> Tensor:
        """Hashes (N, *shape), int64: SplitMix64 seeded for each image."""
        device = self.indices.device
        if isinstance(step, Tensor):
            seeds = _mix(self.indices * _GOLDEN + _digest(self.key, purpose, "each", restart))
            seeds = _mix(seeds + step * _GOLDEN)
        else:
            seeds = _mix(self.indices * _GOLDEN + _digest(self.key, purpose, step, restart))
        places = torch.arange(1, math.prod(shape) + 1, device=device) * _GOLDEN
        return _mix(seeds[:, None] + places[None]).view(len(self), *shape)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of numpy and torch (CPU and ``device``); their states are restored afterwards."""
    numpy_state = np.random.get_state()
    cuda = device.type == "cuda"
    try:
        with torch.random.fork_rng(devices=[device] if cuda else []):
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)


def _digest(*parts: object) -> int:
    """A signed 64-bit integer that any change of the parts changes."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's finaliser, in place: every output bit depends on every input bit. Products wrap at 64 bits."""
    state.bitwise_xor_(_shift(state, 30)).mul_(_MULTIPLIERS[0])
    state.bitwise_xor_(_shift(state, 27)).mul_(_MULTIPLIERS[1])
    return state.bitwise_xor_(_shift(state, 31))


def _shift(values: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own drags the sign along."""
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)
