"""Measurements that tell whether robustness may be an illusion (Carlini et al. 2019, arXiv 1902.06705)."""

from __future__ import annotations

import torch
from torch import Tensor

from .victim import Victim


def lost_gradients(victim: Victim, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of images (N, C, H, W) whose loss gradient is zero, for the cross entropy and for the margin.

    Entries that are NaN or infinite count as zero, as in an attack.

    A confident model saturates the cross entropy in single precision, and then loses its gradient there and not in
    the margin (best wrong logit minus true logit).

    Raises:
        GauntletError: No gradient reaches the images at all.
    """
    victim.gradient(images[:1], labels[:1])  # raises where no gradient arrives at all
    return {
        "cross entropy": _lost(victim.gradient(images, labels)[0]),
        "margin": _lost(torch.cat([_margin_gradient(victim, *part) for part in _batches(victim, images, labels)])),
    }


def disagreement(victim: Victim, images: Tensor, passes: int = 5) -> tuple[float, float]:
    """Over several passes of images (N, C, H, W): share whose prediction changes, and largest change of a logit."""
    outputs = torch.stack([victim.outputs(images) for _ in range(passes)])
    changed = (outputs.argmax(dim=2) != outputs[0].argmax(dim=1)).any(dim=0)
    return float(changed.float().mean()), float((outputs - outputs[0]).abs().max())


def roughness(
    victim: Victim, images: Tensor, labels: Tensor, *, radius: float = 8 / 255, directions: int = 100
) -> float:
    """Mean relative change of the loss over random sign perturbations of a size, averaged over images (N, C, H, W).

    Pintor et al. 2021, arXiv 2106.09947 (unstable predictions).
    """
    generator = torch.Generator().manual_seed(0)
    before = victim.loss(images, labels)
    changes = []
    for _ in range(directions):
        signs = torch.randint(0, 2, images.shape, generator=generator).to(images) * 2 - 1
        after = victim.loss((images + radius * signs).clamp(0, 1), labels)
        changes.append((after - before).abs() / (before.abs() + after.abs()).clamp_min(1e-2))
    return float(torch.stack(changes).mean())


def _lost(gradient: Tensor) -> float:
    flat = gradient.flatten(1)
    return float((flat == 0).all(dim=1).float().mean())


def _margin_gradient(victim: Victim, images: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        outputs = victim.module(images)
        wrong = outputs.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
        margin = wrong - outputs.gather(1, labels[:, None])[:, 0]
        return torch.autograd.grad(margin.sum(), images)[0]


def _batches(victim: Victim, *tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    return zip(*(tensor.split(victim.batch_size) for tensor in tensors), strict=True)
