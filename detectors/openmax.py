"""OpenMax: the probability of an unknown class."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import double
from .outputs import Head, Outputs

_SHAPES = (1e-2, 1e4)


class Tail(NamedTuple):
    """Where a class lies among the logits, and the Weibull distribution of its farthest training images."""

    centre: Tensor  # (C,)
    start: Tensor  # distance at which the tail starts, minus 1
    shape: Tensor
    scale: Tensor


@detector(
    "openmax",
    needs=("logits", "labels"),
    reference="Bendale, Boult 2015, arXiv 1511.06233",
    tags=("post-hoc", "logits"),
    differentiable=False,
)
class OpenMax(Detector):
    """Probability of the unknown class after the largest logits were revised by their distance from known images.

    A class is known by its correctly classified training images: the mean of their logits and a Weibull distribution
    (maximum likelihood) of the ``tail`` largest Euclidean distances from it. With w_j the Weibull CDF at the distance
    of an image from class j, logit number i (of the ``alpha`` largest) is multiplied by
    ``1 - w (alpha + 1 - i) / alpha``, and what they lose is the logit of the unknown class. A class without such
    images is unknown: w = 1.

    Args:
        tail: Number of distances of a class to fit to.
        alpha: Number of logits that are revised; all where there are fewer classes.

    Raises:
        GauntletError: A parameter is out of its range.
    """

    def __init__(self, tail: int = 20, alpha: int = 3) -> None:
        if tail < 1 or alpha < 1:
            raise GauntletError(f"Detector 'openmax' needs tail and alpha of at least 1, got {tail} and {alpha}.")
        self.tail, self.alpha = tail, alpha
        self._tails: list[Tail | None] | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Fit the tails to logits (N, C) and labels (N,).

        Raises:
            GauntletError: No training image is classified correctly.
        """
        logits, labels = self.labelled(train, "logits")
        logits = double(logits)
        right = logits.argmax(dim=1) == labels
        if not bool(right.any()):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted: no training image is classified correctly.")
        members = [logits[right & (labels == label)] for label in range(logits.shape[1])]
        self._tails = [_fit_tail(own, self.tail) if len(own) else None for own in members]

    def score(self, outputs: Outputs) -> Tensor:
        """Probabilities in [0, 1], shape (N,), float64."""
        tails = self.fitted(self._tails)
        logits = double(self.pull(outputs)[0].detach())
        alpha = min(self.alpha, logits.shape[1])
        top = logits.topk(alpha, dim=1).indices
        falling = torch.arange(alpha, 0, -1, dtype=logits.dtype, device=logits.device) / alpha
        weight = torch.zeros_like(logits).scatter(1, top, falling.expand(len(logits), -1))
        lost = logits * weight * torch.stack([_surprise(logits, tail) for tail in tails], dim=1)
        revised = torch.cat([lost.sum(dim=1, keepdim=True), logits - lost], dim=1)
        return revised.softmax(dim=1)[:, 0]


def _fit_tail(members: Tensor, size: int) -> Tail:
    centre = members.mean(dim=0)
    distances = torch.linalg.vector_norm(members - centre, dim=1)
    largest = distances.topk(min(size, len(distances))).values
    start = largest.min() - 1
    return Tail(centre, start, *_fit_weibull(largest - start))


def _fit_weibull(values: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale of the likeliest Weibull distribution for values (n,) of at least 1.

    The likelihood's slope in the shape k, ``1/k + mean(log x) - sum(x^k log x) / sum(x^k)``, falls in k; equal values
    have no likeliest shape and get the largest one.
    """
    logs = values.log()
    low, high = (math.log(bound) for bound in _SHAPES)
    for _ in range(60):
        k = math.exp((low + high) / 2)
        slope = 1 / k + float(logs.mean() - ((k * logs).softmax(dim=0) * logs).sum())
        low, high = ((low + high) / 2, high) if slope > 0 else (low, (low + high) / 2)
    k = math.exp((low + high) / 2)
    scale = (((k * logs).logsumexp(dim=0) - math.log(len(logs))) / k).exp()
    return values.new_tensor(k), scale


def _surprise(logits: Tensor, tail: Tail | None) -> Tensor:
    """Weibull CDF at the distance of logits (N, C) from a class, shape (N,)."""
    if tail is None:
        return torch.ones_like(logits[:, 0])
    distance = torch.linalg.vector_norm(logits - tail.centre, dim=1)
    place = (distance - tail.start).clamp(min=0) / tail.scale
    return -torch.expm1(-(place**tail.shape))
