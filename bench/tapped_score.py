"""A fitted detector as a function of images: with gradients through the network, or asked from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..attacks.score import Score
from ..datasets import ImageSet
from ..detectors import Detector, Outputs, random_projection

if TYPE_CHECKING:
    from .context import RowContext
    from .fitted_detector import FittedDetector


def differentiable(detector: Detector, like: Outputs) -> Score:
    """The score of images through one pass of the model; ``like`` are its outputs on any images."""
    assert like.tap is not None
    tap, width = like.tap, None if like.projected_features is None else like.projected_features.shape[1]

    def score(images: Tensor) -> Tensor:
        tapped = dict(tap(images))
        features, logits = tapped.pop("features", None), tapped.pop("logits", None)
        projected = None
        if features is not None and width is not None and features.shape[1] > width:
            projected = features @ random_projection(features.shape[1], width, features.device)
        outputs = Outputs(
            labels=torch.full((len(images),), -1, device=images.device),
            logits=logits,
            features=features,
            named=tapped,
            head=like.head,
            model=like.model,
            image_batches=lambda: [images],
            projected=projected,
            tap=tap,
            name=like.name,
        )
        return detector.score(outputs.restricted_to(detector.needs)).float()

    return score


def from_outside(fitted: FittedDetector, images: ImageSet, context: RowContext) -> Score:
    """The score of images as everybody gets it, without gradients; ``images`` lends name and classes."""
    needs = frozenset({*fitted.detector.needs, "logits"})

    def score(pixels: Tensor) -> Tensor:
        count = len(pixels)
        unknown = torch.full((count,), -1)
        made = ImageSet(
            pixels.detach().float().clamp(0, 1),
            unknown.to(pixels.device),
            images.classes,
            torch.arange(count, device=pixels.device),
            f"{images.name}/attacked",
            "test",
        )
        found: np.ndarray = fitted.scores(context.outputs_of(made, needs))
        return torch.from_numpy(found).float().to(pixels.device)

    return score
