"""CADRef: CARef's error in two parts, that which raises the logit of the predicted class and that which lowers it."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .caref import _LEAST, CARef, size
from .numerics import by_rows, compute_dtype, like
from .outputs import Head, Outputs
from .probabilities import log_sum_exp


@detector(
    "cadref",
    needs=("features", "head", "logits"),
    reference="Ling et al. 2025, CADRef, arXiv 2503.00325",
    tags=("post-hoc", "features"),
)
class CADRef(CARef):
    """``E_p / S + E_n / mean S``: of CARef's error, E_p is where ``w_y (z - mu_y)`` is positive.

    S is the logsumexp of an image's logits, which the method takes to be positive, ``mean S`` that of the training
    images. The parts are those of the authors' code; the printed equations split by the sign of ``w_y z``.
    """

    _mean_level = 1.0

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Average training features (N, D) by the largest of their logits (N, C), and the level of the logits.

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        self.full_features(train, fitting=True)
        super().fit(train.restricted_to(self.needs), val, head)
        self._mean_level = float(_level(self.pull(train)[2].detach()).mean())

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), float64."""
        features, head, logits = self.pull(outputs)
        means, weight = like(self.fitted(self._means), features), like(head.weight, features)

        def error(part: Tensor, predicted: Tensor, level: Tensor) -> Tensor:
            own = compute_dtype(part)
            along = (own - means[predicted]) * weight[predicted].sign()
            parts = size(along.clamp(min=0)) / level + size(along.clamp(max=0)) / self._mean_level
            return parts / size(own).clamp(min=_LEAST)

        return by_rows(error, features, logits.argmax(dim=1), _level(logits))


def _level(logits: Tensor) -> Tensor:
    """Logsumexp (N,) of logits (N, C), which is divided by and therefore not 0."""
    found = log_sum_exp(logits)
    return found.masked_fill(found.abs() < _LEAST, _LEAST)
