"""Divergence from the typical prediction of any class."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import double, rows_per_chunk
from .outputs import Head, Outputs


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

    def __init__(self) -> None:
        self._log_typical: Tensor | None = None  # (predicted classes, C)

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
        chunks = self.pull(outputs)[0].split(rows_per_chunk(log_typical.shape[1]))
        return torch.cat([_divergence(double(chunk), log_typical) for chunk in chunks])


def _divergence(logits: Tensor, log_typical: Tensor) -> Tensor:
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    return ((p * log_p).sum(dim=1, keepdim=True) - p @ log_typical.T).amin(dim=1).clamp(min=0)
