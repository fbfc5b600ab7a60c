"""Class means and covariances of training features, computed once for all detectors that are fitted to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .numerics import beside, cached_rows, double, mean_row, rounding_of, working
from .outputs import Outputs


class Moments(NamedTuple):
    """Moments of features (N, D) in float64, by class; images without a class are one more class."""

    origin: Tensor  # (D,): the mean, in the precision of the features
    means: Tensor  # (classes, D), about the origin
    weights: Tensor  # (classes,): their shares of the images
    within: Tensor  # (D, D): covariance within the classes, divided by N
    rounding: float  # the deviation that rounding alone may give a feature

    def total(self, point: Tensor) -> Tensor:
        """Second moments (D, D) of all images about a ``point`` (D,)."""
        apart = self.means + self.origin - point
        return self.within + apart.T @ (self.weights[:, None] * apart)


def class_moments(outputs: Outputs) -> Moments:
    """The moments of an image set's compact features by its labels."""
    return outputs.once("moments", lambda: _moments(outputs))


def feature_mean(outputs: Outputs, features: Tensor) -> Tensor:
    """Mean (D,) in float64 of ``features`` (N, D), which are the whole or the projected ones of ``outputs``."""
    return outputs.once(("mean", id(features)), lambda: mean_row(features.detach()))


def scatter(features: Tensor, prepare: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Sum (D, D) of the outer products of features (N, D), each prepared: some rows and which they are to float64."""
    width, rows = features.shape[1], 8 * cached_rows(features.shape[1])
    total = double(features[:0]).new_zeros(width, width)
    for start in range(0, len(features), rows):
        place = slice(start, start + rows)
        total += _products(prepare(features[place], place))
    return total


def _products(rows: Tensor) -> Tensor:
    """``rows.T @ rows``; on a CPU by numpy, which sees that the result is symmetric and does half the work."""
    if rows.device.type != "cpu":
        return rows.T @ rows
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)


def _moments(outputs: Outputs) -> Moments:
    assert outputs.compact is not None
    features = outputs.compact.detach()
    origin = beside(feature_mean(outputs, outputs.compact), features)
    _, index, counts = outputs.labels.to(features.device).unique(return_inverse=True, return_counts=True)
    means = _sums_about(origin, features, index, len(counts)) / counts[:, None]
    # In the precision of the features: the rounding of a centre enters the covariance squared.
    centres = beside(means + double(origin), features)
    within = scatter(features, lambda part, place: double(working(part) - centres[index[place]])) / len(features)
    return Moments(origin, means, double(counts) / len(features), within, rounding_of(features))


def _sums_about(origin: Tensor, features: Tensor, index: Tensor, classes: int) -> Tensor:
    """Sums (classes, D) in float64 of features (N, D) less the origin, by class."""
    rows = cached_rows(features.shape[1])
    sums = double(features[:0]).new_zeros(classes, features.shape[1])
    for part, own in zip(features.split(rows), index.split(rows), strict=True):
        sums.index_add_(0, own.to(sums.device), double(working(part) - origin))
    return sums
