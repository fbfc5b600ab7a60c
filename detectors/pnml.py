"""pNML: the regret of the last layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import GauntletError, detector
from .base import Detector
from .gaussians import whitening
from .moments import scatter
from .numerics import by_rows, compute_dtype, double, like
from .outputs import Head, Outputs
from .probabilities import log_probabilities
from .triangular import times


@detector(
    "pnml",
    needs=("features", "head"),
    reference="Bibas, Feder, Hassner 2021, arXiv 2110.09246",
    tags=("post-hoc", "features"),
)
class PNML(Detector):
    """Regret of not knowing the label, ``log(sum_c p_c / (p_c + (1 - p_c) p_c^k)) / log C``.

    ``k = t / (1 + t)`` with ``t = z' (X'X)+ z``; features z and training features X are scaled to length 1, and p is
    the softmax of the head of the scaled feature.
    """

    _root: Tensor | None = None  # (D, rank): root root' = (X'X)+

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Accumulate training features (N, D).

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        features = self.projected_features(train).detach()
        second = scatter(features, lambda part, _: F.normalize(double(part), dim=1))
        kind = features.dtype if features.is_floating_point() else torch.float32
        self._root = whitening(second / len(features), torch.finfo(kind).eps) / math.sqrt(len(features))

    def score(self, outputs: Outputs) -> Tensor:
        """Regrets in [0, 1], shape (N,), float64.

        Raises:
            GauntletError: The head has one class only.
        """
        root = self.fitted(self._root)
        compact = self.projected_features(outputs, len(root))
        features, head = self.pull(outputs)
        if len(head.bias) < 2:
            raise GauntletError(f"Detector {self.name!r} needs at least two classes, got one.")
        single = like(root, compact)

        def scaled(part: Tensor) -> Tensor:
            return F.normalize(compute_dtype(part), dim=1)

        lengths = by_rows(lambda part: torch.linalg.vector_norm(times(scaled(part), single), dim=1), compact)
        t = double(lengths).square()[:, None]
        log_p, log_rest = log_probabilities(by_rows(lambda part: head.logits(scaled(part)), features))
        # p / (p + (1 - p) p^k) is the logistic function of this; k - 1 = -1 / (1 + t)
        margins = log_p / (1 + t) - log_rest
        return torch.sigmoid(margins).sum(dim=1).log() / math.log(len(head.bias))
