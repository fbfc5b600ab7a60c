"""Convolutions that oneDNN cannot be trusted with take a detour that changes nothing but the arithmetic's order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gauntlet.models.training.onednn_workaround import sliced_inputs


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 1, stride=2), nn.Conv2d(8, 4, 3), nn.Conv2d(4, 5, 1, stride=(1, 3), bias=False)
    )


def gradients(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    out = module(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *module.parameters()])]


def test_outputs_and_gradients_are_the_same():
    module, x = net().double(), torch.rand(4, 3, 15, 14, dtype=torch.float64)
    plain = gradients(module, x)
    with sliced_inputs(module):
        for expected, found in zip(plain, gradients(module, x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_no_such_convolution_skips_pixels_meanwhile_and_all_do_afterwards():
    module = net()
    with sliced_inputs(module):
        assert [conv.stride for conv in module] == [(1, 1), (1, 1), (1, 1)]
    assert [conv.stride for conv in module] == [(2, 2), (1, 1), (1, 3)]
    assert not any(conv._forward_pre_hooks for conv in module)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 4, 1, stride=2),  # as many channels as oneDNN wants
        nn.Conv2d(3, 4, 2, stride=2),
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(3, 4, 1, stride=2, padding=1),
        nn.Conv2d(4, 4, 1, stride=2, groups=4),
    ],
)
def test_others_are_left_alone(conv: nn.Conv2d):
    before = conv.stride
    with sliced_inputs(conv):
        assert conv.stride == before
        assert not conv._forward_pre_hooks
