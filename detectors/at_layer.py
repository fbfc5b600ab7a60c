"""Feature detectors on a layer of the model that is named, or on several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..registry import DETECTORS, GauntletError, Selected, detector, select_one
from .base import Detector, build_detector
from .outputs import Head, Outputs

Spec = str | dict[str, Any]

_READABLE = {"logits", "features", "labels"}


@detector(
    "at-layer",
    needs=("features", "labels"),
    reference="as Lee, Lee, Lee, Shin 2018, arXiv 1807.03888, use the layers of a network",
    tags=("post-hoc", "features"),
)
class AtLayer(Detector):
    """Another detector's score where the outputs of a named layer, averaged over pixels or tokens, are the features.

    In a suite ``{knn: {layer: body.3}}`` is short for it. Layers have the names of ``model.named_modules()``; those of
    several stand side by side.

    Args:
        detector: The detector: a name, or a spec as in a suite; one that reads features and no head.
        layer: Name of the layer, or a list of names; None for the features that every detector reads.

    Raises:
        GauntletError: The detector is unknown, or reads no features or more than them.
    """

    def __init__(self, detector: Spec = "mahalanobis", layer: str | list[str] | None = None) -> None:
        self.inner = build_detector(self.parts({"detector": detector})[0])
        self.layers = _names(layer)
        if "features" not in self.inner.needs or not set(self.inner.needs) <= _READABLE:
            raise GauntletError(
                f"Detector {self.inner.name!r} reads {', '.join(self.inner.needs)}: on a layer by name stand detectors "
                "that read features, and neither head nor images."
            )
        self.needs_fit, self.needs_val = self.inner.needs_fit, self.inner.needs_val  # type: ignore[misc]

    @staticmethod
    def parts(parameters: Mapping[str, Any]) -> list[Selected]:
        """The detector."""
        return [select_one(DETECTORS, parameters["detector"])]

    @classmethod
    def needs_of(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of the detector, with the layers in place of the features."""
        (inner,) = cls.parts(parameters)
        layers = _names(parameters.get("layer"))
        others = tuple(need for need in inner.needs if need != "features")
        return (*others, *layers) if layers else inner.needs

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Fit the detector to the layer's outputs.

        Raises:
            GauntletError: It cannot be fitted.
        """
        self.inner.name = self.name
        self.inner.fit(self._view(train), None if val is None else self._view(val), None)

    def score(self, outputs: Outputs) -> Tensor:
        """The detector's scores, shape (N,)."""
        self.inner.name = self.name
        return self.inner.score(self._view(outputs))

    def _view(self, outputs: Outputs) -> Outputs:
        """The same images with the layer's outputs as features, one view for all detectors."""
        if not self.layers:
            return outputs
        self.pull(outputs)  # each of the layers is there

        def view() -> Outputs:
            features = torch.cat([outputs.get(name) for name in self.layers], dim=1)
            return replace(outputs, features=features, projected=None, head=None)

        return outputs.cached(("view", self.layers), view)


def _names(layer: str | list[str] | None) -> tuple[str, ...]:
    """Names of outputs, as needs have them."""
    return tuple(f"layer:{name}" for name in ([layer] if isinstance(layer, str) else layer or ()))
