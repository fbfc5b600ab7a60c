"""Projection onto a hyperplane within the box, in Linf, L2 and L1, exactly, by one sort for all images."""

from __future__ import annotations

import torch
from torch import Tensor

from .norms import per_image


def project_onto_hyperplane(points: Tensor, normals: Tensor, gain: Tensor, norm: str) -> Tensor:
    """The smallest move d with ``normals . d = gain`` that keeps ``points + d`` in [0, 1].

    Every coordinate moves in the direction that helps, at the rate that the norm asks for (all alike in Linf, as the
    normal in L2, one after the other from the largest normal down in L1), until it meets the box (Croce, Hein 2020,
    arXiv 1907.02044, section 2). Where even the whole box does not suffice, each goes as far as it can.

    Args:
        points: Images in [0, 1] (N, C, H, W).
        normals: Normals of the hyperplanes, same shape.
        gain: How much the product with the normal has to change (N,), of either sign.
        norm: ``linf``, ``l2`` or ``l1``.
    """
    slopes = (normals * per_image(gain.sign(), normals)).flatten(1)
    flat = points.flatten(1)
    room = torch.where(slopes > 0, 1 - flat, flat)
    room = torch.where(slopes == 0, torch.zeros_like(room), room)
    steep, need = slopes.abs(), gain.abs()
    reach = _move_in_turn(steep, room, need) if norm == "l1" else _move_together(steep, room, need, norm)
    return (reach * slopes.sign()).view_as(points)


def _move_together(steep: Tensor, room: Tensor, need: Tensor, norm: str) -> Tensor:
    """All coordinates (N, D) move at once: by ``min(t * rate, room)`` with the t at which the gain (N,) is reached."""
    rate = torch.ones_like(steep) if norm == "linf" else steep
    full = room / rate.clamp_min(1e-30)  # the t at which a coordinate meets the box
    full, order = full.sort(dim=1)
    # Sums in double precision: thousands of small gains are added, and a difference of them decides.
    done = (steep * room).gather(1, order).double().cumsum(dim=1)  # gain of the coordinates that are at the box
    speeds = (steep * rate).gather(1, order).double()
    moving = speeds.flip(1).cumsum(dim=1).flip(1) - speeds  # gain per t of those that are not
    reached = done + full.double() * moving  # gain at each bend
    bend = (reached < need[:, None]).sum(dim=1, keepdim=True)  # bends before the gain is reached
    before = (bend - 1).clamp_min(0)
    start = torch.where(bend > 0, done.gather(1, before), 0.0)
    speed = torch.where(bend > 0, moving.gather(1, before), speeds.sum(dim=1, keepdim=True))
    time = ((need[:, None] - start) / speed.clamp_min(1e-30)).to(steep.dtype)
    enough = bend < steep.shape[1]
    return torch.where(enough, (time * rate).minimum(room), room)


def _move_in_turn(steep: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """One coordinate (N, D) after the other, the steepest first, each to the box, until the gain (N,) is reached."""
    sorted_steep, order = steep.sort(dim=1, descending=True)
    gains = sorted_steep * room.gather(1, order)
    before = gains.cumsum(dim=1) - gains
    share = ((need[:, None] - before) / gains.clamp_min(1e-30)).clamp(0, 1)
    moved = share * room.gather(1, order)
    return torch.zeros_like(room).scatter(1, order, moved)
