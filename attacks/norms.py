"""Norms of perturbations, projection onto their balls, and the check that an adversarial image stays in its ball."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError

Norm = Literal["linf", "l2", "l1", "l0"]


class InvalidAdversarial(GauntletError):
    """What an attack returned is no adversarial image: not finite, outside [0, 1] or its ball, or of another shape."""


#: ``none`` is for attacks without a budget, such as rotations: the size of what they do is told in L2.
_ORDERS = {"linf": float("inf"), "l2": 2.0, "l1": 1.0, "none": 2.0}


def perturbation_norms(adversarial: Tensor, images: Tensor, norm: str) -> Tensor:
    """Size (N,) of each perturbation; L0 counts pixels (a pixel changes if any of its channels does).

    Args:
        adversarial: Perturbed images (N, C, H, W).
        images: The originals, same shape.
        norm: ``linf``, ``l2``, ``l1`` or ``l0``.

    Raises:
        GauntletError: The norm is unknown.

    >>> images = torch.zeros(1, 1, 1, 3)
    >>> moved = images + torch.tensor([0.3, -0.4, 0.0])
    >>> [round(perturbation_norms(moved, images, norm).item(), 4) for norm in ("linf", "l2", "l1", "l0")]
    [0.4, 0.5, 0.7, 2.0]
    """
    offset = adversarial - images
    if norm == "l0":
        return (offset != 0).any(dim=1).flatten(1).sum(dim=1).to(images.dtype)
    # Sums in double precision: a float32 sum over a large image errs by more than the ball's tolerance.
    precise = offset if offset.device.type == "mps" else offset.double()
    return torch.linalg.vector_norm(precise.flatten(1), ord=_order(norm), dim=1).to(images.dtype)


def project(offset: Tensor, norm: str, radius: Tensor) -> Tensor:
    """The nearest perturbation of at most the given size.

    Args:
        offset: Perturbations (N, C, H, W).
        norm: ``linf`` or ``l2``.
        radius: Largest size (N,), one for each image.

    Raises:
        GauntletError: The norm is another.

    >>> project(torch.tensor([[3.0, 4.0]]), "l2", torch.tensor([1.0]))
    tensor([[0.6000, 0.8000]])
    """
    radius = per_image(radius, offset)
    if norm == "linf":
        return offset.clamp(-radius, radius)
    if norm == "l2":
        return offset * (per_image(1 / lengths(offset), offset) * radius).clamp_max(1)
    raise GauntletError(f"There is no projection onto balls of norm {norm!r}; known: l2, linf.")


def into_ball(adversarial: Tensor, images: Tensor, norm: str, epsilon: float) -> Tensor:
    """Shrink perturbations of images (N, C, H, W) that exceed ``epsilon`` to it; the others stay bit for bit the same.

    As in foolbox, one in L2 or L1 is scaled and one in Linf clipped. There is no smaller version of one in L0: beyond
    ``epsilon`` pixels the original comes back.
    """
    sizes = perturbation_norms(adversarial, images, norm)
    outside = per_image(sizes > epsilon, images)
    if norm == "l0":
        return torch.where(outside, images, adversarial)
    offset = adversarial - images
    if norm == "linf":
        shrunk = images + offset.clamp(-epsilon, epsilon)
    elif norm == "l1":
        shrunk = add_l1(images, offset * per_image(epsilon / sizes, offset), torch.full_like(sizes, epsilon))
    else:
        shrunk = images + project(offset, norm, torch.full_like(sizes, epsilon))
    return torch.where(outside, shrunk, adversarial).clamp(0, 1)


def add_l1(images: Tensor, offset: Tensor, radius: Tensor) -> Tensor:
    """``images`` plus perturbations of L1 norm ``radius`` (N,) at most, in [0, 1], and no further away by rounding.

    A sum in float32 is off by up to 3e-8, and 150,000 of them together by more than the ball's tolerance. Where they
    leave the ball, those that were rounded away from the image are rounded towards it; a smaller perturbation would
    be rounded back to the same one.
    """
    moved = (images + offset).clamp(0, 1)
    outside = per_image(perturbation_norms(moved, images, "l1") > radius, images)
    if not outside.any():
        return moved
    away = outside & ((moved - images).abs() > offset.abs())
    return torch.where(away, moved.nextafter(images), moved)


def check_ball(adversarial: Tensor, images: Tensor, norm: str, epsilon: float) -> None:
    """Check images (N, C, H, W): finite, in [0, 1], within ``epsilon * (1 + 1e-5) + 1e-6`` of the originals.

    The slack is what float32 rounding can add to a perturbation of exactly ``epsilon``.

    Raises:
        InvalidAdversarial: They are not; the message says by how much.
    """
    if adversarial.shape != images.shape:
        raise InvalidAdversarial(
            f"Adversarial images have shape {tuple(adversarial.shape)}, the originals {tuple(images.shape)}; "
            "an attack keeps the shape."
        )
    if not len(images):
        return
    broken = int((~adversarial.flatten(1).isfinite()).any(dim=1).sum())
    if broken:
        raise InvalidAdversarial(f"{broken} of {len(images)} adversarial images hold NaN or infinite pixels.")
    low, high = float(adversarial.min()), float(adversarial.max())
    if low < 0 or high > 1:
        raise InvalidAdversarial(f"Adversarial pixels lie in [{low:.9g}, {high:.9g}]; they must lie in [0, 1].")
    largest = float(perturbation_norms(adversarial, images, norm).max()) if norm != "none" else 0.0
    # Not `largest > epsilon`: a NaN is not within the ball.
    if not largest <= epsilon * (1 + 1e-5) + 1e-6:
        raise InvalidAdversarial(
            f"A perturbation has {norm} norm {largest:.7g}, which leaves the ball of radius {epsilon:g} "
            f"by {largest - epsilon:.3g}."
        )


def lengths(vectors: Tensor) -> Tensor:
    """Euclidean length (N,) of each image, at least 1e-12."""
    # Summed as foolbox sums it: paths of L2 attacks then agree bit for bit, where rounding would let them part.
    return vectors.flatten(1).square().sum(dim=1).sqrt().clamp_min(1e-12)


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """``values`` (N,) shaped to broadcast over images (N, ...)."""
    return values.view(-1, *[1] * (images.ndim - 1))


def _order(norm: str) -> float:
    if norm not in _ORDERS:
        raise GauntletError(f"Unknown norm {norm!r}; known: linf, l2, l1, l0.")
    return _ORDERS[norm]
