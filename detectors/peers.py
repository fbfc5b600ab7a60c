"""Detector objects of pytorch-ood and oodeel as detectors of ours, recognised by their class: nothing is imported.

In both, as here, a higher score means more out-of-distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..registry import GauntletError
from .base import Detector
from .outputs import Head, Outputs


class PeerDetector(Detector):
    """An object of another library.

    One that scores logits or features is handed those of the pass that all detectors share; one that has a model of
    its own, images.
    """

    peer: Any
    how: str

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Fit the object to logits or features with labels, or to batches of images with labels.

        Raises:
            GauntletError: The object has no such fit.
        """
        if self.how == "images":
            self.peer.fit(list(_batches(train)))
            return
        values = train.logits if self.how == "logits" else self.projected_features(train)
        method = getattr(self.peer, f"fit_{self.how}", None)
        if method is None:
            raise GauntletError(f"Detector {self.name!r} cannot be fitted to {self.how}: it has no fit_{self.how}.")
        method(values, train.labels)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores (N,) of the object."""
        if self.how == "logits":
            return torch.as_tensor(self.peer.predict_logits(outputs.logits))
        if self.how == "features":
            return torch.as_tensor(self.peer.predict_features(self.projected_features(outputs)))
        with torch.enable_grad():  # some perturb their images
            return torch.cat([_scored(self.peer, images).detach().flatten() for images, _ in _batches(outputs)])


def _batches(outputs: Outputs) -> Any:
    (images,) = (outputs.get("images"),)
    start = 0
    for batch in images():
        yield batch, outputs.labels[start : start + len(batch)]
        start += len(batch)


def _scored(peer: Any, images: Tensor) -> Tensor:
    """Of pytorch-ood ``predict``, of oodeel the first of what ``score`` returns."""
    found = peer.predict(images) if hasattr(peer, "predict") else peer.score(images)
    return torch.as_tensor(found[0] if isinstance(found, tuple) else found)


def recognised(item: Any) -> tuple[Callable[..., Any], tuple[str, ...], str] | None:
    """What a registry builds a detector from, its needs, and what tells the object from others; None for others."""
    home = type(item).__module__
    if home.partition(".")[0] not in ("pytorch_ood", "oodeel") or isinstance(item, type):
        return None
    on_features = hasattr(item, "predict_features") and getattr(item, "model", None) is None
    how = "logits" if hasattr(item, "predict_logits") else "features" if on_features else "images"
    is_unfitted = bool(getattr(item, "requires_fit", False))

    class Lent(PeerDetector):
        needs_fit = is_unfitted

    Lent.peer, Lent.how = item, how
    plain = {name: value for name, value in vars(item).items() if isinstance(value, (bool, int, float, str))}
    needs = ("images",) if how == "images" else (how,)
    return Lent, needs, repr((home, type(item).__qualname__, sorted(plain.items())))
