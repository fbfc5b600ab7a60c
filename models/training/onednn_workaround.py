"""A way around convolutions whose weight gradient breaks the heap on some CPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextlib.contextmanager
def sliced_inputs(module: nn.Module) -> Iterator[None]:
    """Meanwhile 1x1 convolutions that skip pixels of fewer than eight channels are given only those they look at.

    The results are the same. oneDNN (seen with torch 2.14) computes the gradient of their weights in channels-last
    memory and without AVX-512 for eight channels at a time, and writes past the end of its buffer where there are
    fewer: the process dies later, in another place.
    """
    with contextlib.ExitStack() as stack:
        for conv in module.modules():
            if isinstance(conv, nn.Conv2d) and _breaks(conv):
                stack.enter_context(_sliced(conv))
        yield


def _breaks(conv: nn.Conv2d) -> bool:
    plain = conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
    return plain and max(conv.stride) > 1 and conv.in_channels < 8


@contextlib.contextmanager
def _sliced(conv: nn.Conv2d) -> Iterator[None]:
    stride = conv.stride
    hook = conv.register_forward_pre_hook(partial(_every, stride))
    conv.stride = (1, 1)
    try:
        yield
    finally:
        conv.stride = stride
        hook.remove()


def _every(stride: tuple[int, ...], conv: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    (images,) = inputs
    return (images[..., :: stride[0], :: stride[1]],)
