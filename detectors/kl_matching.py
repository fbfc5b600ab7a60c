"""Divergence from the typical prediction of any class."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import by_rows, double
from .outputs import Head, Outputs
from .probabilities import below_top


@detector(
    "kl-matching",
    needs="logits",
    reference="Hendrycks et al. 2019, arXiv 1911.11132",
    tags=("post-hoc", "logits"),
)
class KLMatching(Detector):
    """``min_k KL(p || d_k)``, where d_k is the mean softmax of the validation images predicted as k.

    Classes that are never predicted are left out.
    """

    needs_val = True

    _log_typical: Tensor | None = None  # (predicted classes, C)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Average the validation images' softmax by predicted class.

        Raises:
            GauntletError: There are no validation images.
        """
        (logits,) = self.pull(self.validation(val))
        p = double(logits).detach().softmax(dim=1)
        if not len(p):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted to an empty validation set.")
        predicted = p.argmax(dim=1)
        typical = torch.stack([p[predicted == label].mean(dim=0) for label in predicted.unique()])
        # A probability that underflowed to 0 would make the divergence infinite.
        self._log_typical = typical.clamp_min(torch.finfo(typical.dtype).tiny).log()

    def score(self, outputs: Outputs) -> Tensor:
        """Divergences of at least 0 in nats, shape (N,)."""
        log_typical = self.fitted(self._log_typical)
        return by_rows(lambda part: _divergence(part, log_typical), *self.pull(outputs))


def _divergence(logits: Tensor, log_typical: Tensor) -> Tensor:
    _, below = below_top(logits, double)
    weights = below.exp()
    total = weights.sum(dim=0)
    differing = (weights * below).sum(dim=0) - log_typical @ weights
    return (differing.amin(dim=0) / total - total.log()).clamp(min=0)
