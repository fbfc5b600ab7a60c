"""Class means and covariances of training features, computed once for all detectors that are fitted to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from .numerics import by_rows, cached_rows, compute_dtype, double, like, mean_row, rounding_of
from .outputs import Outputs

#: Columns of a symmetric product that are computed together; the part below their diagonal blocks is not.
_COLUMNS = 64
#: Rows that a product takes at least: below that, adding up (D, D) would cost more than multiplying.
_LEAST_ROWS = 256


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
    """The moments of an image set's (projected) features by its labels."""
    return outputs.cached("moments", lambda: _moments(outputs))


def feature_mean(outputs: Outputs, features: Tensor) -> Tensor:
    """Mean (D,) in float64 of ``features`` (N, D), which are the whole or the projected ones of ``outputs``."""
    return outputs.cached(("mean", id(features)), lambda: mean_row(features.detach()))


def unit_features(features: Tensor) -> Tensor:
    """Features (N, D) divided by their lengths; a zero feature stays zero."""
    return by_rows(lambda part: F.normalize(compute_dtype(part), dim=1), features)


def of_unit_features(outputs: Outputs) -> Outputs:
    """The same images with (projected) features of length 1, made once for all detectors."""
    assert outputs.projected_features is not None
    features = outputs.projected_features.detach()
    return outputs.cached("unit", lambda: replace(outputs, features=unit_features(features), projected=None))


def means_by(index: Tensor, features: Tensor, classes: int, otherwise: Tensor) -> Tensor:
    """Mean (classes, D) in float64 of the features (N, D) of each class in ``index``, ``otherwise`` (D,) of none."""
    origin = like(otherwise, features)
    counts = double(index.bincount(minlength=classes))[:, None]
    means = _sums_about(origin, features, index, classes) / counts.clamp(min=1)
    return means + double(origin)


def scatter(features: Tensor, prepare: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Sum (D, D) of the outer products of features (N, D), each prepared: some rows and which they are to float64."""
    width = features.shape[1]
    rows = max(cached_rows(width) // 2, _LEAST_ROWS)
    total = double(features[:0]).new_zeros(width, width)
    for start in range(0, len(features), rows):
        place = slice(start, start + rows)
        _add_products(total, prepare(features[place], place))
    return total.triu() + total.triu(1).T


def _add_products(total: Tensor, rows: Tensor) -> None:
    """Add ``rows.T @ rows`` to ``total`` (D, D): right of the diagonal, and what lies beside it in the same block."""
    columns = _COLUMNS if rows.device.type == "cpu" else total.shape[1]
    for start in range(0, total.shape[1], columns):
        own = slice(start, start + columns)
        total[own, start:].addmm_(rows[:, own].T, rows[:, start:])


def _moments(outputs: Outputs) -> Moments:
    assert outputs.projected_features is not None
    features = outputs.projected_features.detach()
    origin = like(feature_mean(outputs, outputs.projected_features), features)
    _, index, counts = outputs.labels.to(features.device).unique(return_inverse=True, return_counts=True)
    means = _sums_about(origin, features, index, len(counts)) / counts[:, None]
    # In the precision of the features: the rounding of a centre enters the covariance squared.
    centres = like(means + double(origin), features)

    def centred(part: Tensor, place: slice) -> Tensor:
        return double(compute_dtype(part) - centres.index_select(0, index[place]))

    within = scatter(features, centred) / len(features)
    return Moments(origin, means, double(counts) / len(features), within, rounding_of(features))


def _sums_about(origin: Tensor, features: Tensor, index: Tensor, classes: int) -> Tensor:
    """Sums (classes, D) in float64 of features (N, D) less the origin, by class; of few rows in their own precision."""
    rows = max(cached_rows(features.shape[1]), 4 * classes)
    sums = double(features[:0]).new_zeros(classes, features.shape[1])
    for part, own in zip(features.split(rows), index.split(rows), strict=True):
        centred = compute_dtype(part) - origin
        sums += double(centred.new_zeros(sums.shape).index_add_(0, own, centred))
    return sums
