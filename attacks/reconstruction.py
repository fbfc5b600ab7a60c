"""The victim of attacks on autoencoders: a model whose loss is its reconstruction error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .victim import Victim


class ReconstructionVictim(Victim):
    """A model that reconstructs, under attack: its loss is the squared error of each image, and nothing is ever fooled.

    For attacks that only climb a loss; labels are carried along and not looked at.

    Args:
        module: Its ``forward_outputs`` give a ``reconstruction`` (N, C, H, W).
        detach_target: Whether gradients flow through the reconstruction alone. By default they flow through the image
            as the target too (report R1).
        **settings: Those of :class:`Victim`.
    """

    def __init__(self, module: nn.Module, *, detach_target: bool = False, **settings: Any) -> None:
        self._errors = _Errors(module, detach_target)
        super().__init__(self._errors, **settings)

    def reconstruct(self, images: Tensor) -> Tensor:
        """The reconstructions (N, C, H, W), without gradient; not counted."""
        with torch.no_grad():
            return torch.cat([self._errors.reconstruct(part) for part in images.split(self.batch_size)])

    def inspect(self, images: Tensor) -> None:
        """Its outputs are errors and no classes."""

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The errors (N,)."""
        return outputs[:, 0]

    def is_fooled(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Nothing is fooled (N,): an error has no threshold."""
        return torch.zeros(len(outputs), dtype=torch.bool, device=outputs.device)


class _Errors(nn.Module):
    """Maps images (N, C, H, W) to the errors (N, 1) of their reconstructions."""

    def __init__(self, inner: nn.Module, detach_target: bool) -> None:
        super().__init__()
        self.inner = inner
        self.detach_target = detach_target

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.inner.forward_outputs(images)["reconstruction"]  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        target = images.detach() if self.detach_target else images
        return (target - self.reconstruct(images)).square().flatten(1).mean(dim=1, keepdim=True)
