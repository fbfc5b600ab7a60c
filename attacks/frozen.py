"""A module that is laid out for passes and frozen, and put back exactly as it was."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FrozenModule:
    """A module in eval mode whose parameters ask for no gradient, on a device and in a layout that suit it.

    Args:
        module: The caller's module, which is changed in place between :meth:`freeze` and :meth:`restore`.
        device: Where its parameters and buffers go.
        memory_format: Layout of 4-D weights and images. By default ``channels_last`` on a CPU, where convolutions are
            up to twice as fast in it, and contiguous elsewhere; a module that cannot work on the former (it calls
            ``view``) gets the latter.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, memory_format: torch.memory_format | None = None
    ) -> None:
        default = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self.module, self._device, self._format = module, device, memory_format or default

    def __call__(self, images: Tensor) -> Any:
        """What the module returns for images (N, C, H, W), in its own precision."""
        images = images.to(self._dtype)
        try:
            return self.module(images.to(memory_format=self._format_of(images)))
        except RuntimeError as error:
            if self._format is torch.contiguous_format or "view size is not compatible" not in str(error):
                raise
        self._lay_out(torch.contiguous_format)
        return self.module(images.contiguous())

    def freeze(self) -> None:
        """Note every training flag, ``requires_grad``, device and memory format, and change them."""
        module = self.module
        # All of it is noted before anything changes.
        self._modes = [(part, part.training) for part in module.modules()]
        self._parameters = [(parameter, parameter.data, parameter.requires_grad) for parameter in module.parameters()]
        self._buffers = [(part, name, value) for part in module.modules() for name, value in part._buffers.items()]
        floating = (parameter.dtype for parameter, *_ in self._parameters if parameter.is_floating_point())
        self._dtype = next(floating, torch.float32)
        try:
            with torch.inference_mode(False):  # what is laid out there could not be differentiated through
                module.eval().requires_grad_(False)
                self._lay_out(self._format)
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Put back what was noted."""
        for parameter, data, requires_grad in self._parameters:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
        for part, name, value in self._buffers:
            part._buffers[name] = value
        for part, training in self._modes:
            part.training = training

    def _lay_out(self, memory_format: torch.memory_format) -> None:
        self._format = memory_format
        for parameter, data, _ in self._parameters:
            # Not contiguous(): it leaves a layout that fits both formats, as one channel does, and convolutions then
            # take the slow one.
            parameter.data = data.to(self._device, memory_format=self._format_of(data))
        for part, name, value in self._buffers:
            part._buffers[name] = None if value is None else value.to(self._device)

    def _format_of(self, tensor: Tensor) -> torch.memory_format:
        return self._format if tensor.ndim == 4 else torch.contiguous_format
