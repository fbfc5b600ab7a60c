"""`linear-probe`: a linear classifier on a frozen encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..registry import GauntletError, model


@model(
    "linear-probe",
    children="encoder",
    tags=("composite", "r4"),
    reference="Alain & Bengio 2016, arXiv 1610.01644",
)
class LinearProbe(nn.Module):
    """One linear layer on the embeddings of an encoder that stays as it is, its batch-norm included.

    Every recipe for classifiers trains the linear layer; ``logistic-regression`` solves for it. What comes out is a
    classifier like any other, through whose encoder gradients reach the image: it can be attacked, and its features
    are the embeddings.

    Args:
        encoder: The module that maps images to embeddings (in a suite: a model spec).
        classes: Number of classes.
        shape: (C, H, W) of the images.

    Raises:
        GauntletError: The encoder is no model.
    """

    def __init__(
        self, encoder: Any = "simclr", *, classes: int = 10, shape: tuple[int, int, int] = (3, 96, 96)
    ) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise GauntletError(f"A linear probe needs an encoder, which is a model, got {encoder!r}.")
        self.encoder = encoder.eval().requires_grad_(False)
        device = next(encoder.parameters(), torch.zeros(())).device
        with torch.no_grad():
            found: Any = encoder(torch.zeros(2, *shape, device=device))
        if not isinstance(found, Tensor) or found.ndim != 2:
            raise GauntletError(
                f"A linear probe needs an encoder that gives a vector an image, and {type(encoder).__name__} does not."
            )
        self.fc = nn.Linear(found.shape[1], classes)

    def train(self, mode: bool = True) -> LinearProbe:
        """Training mode for the linear layer alone."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, classes)."""
        return self.fc(self.encoder(x))
