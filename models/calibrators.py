"""Calibrators: maps from logits to logits that are fitted on validation data and become part of the model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import GauntletError, calibrator
from .tap import Tap
from .temperature import checked, fit_temperature


class Calibrator(nn.Module):
    """Logits times a scale plus a shift, each one number a class; a subclass says how they are found.

    Attributes:
        scale: (K,).
        shift: (K,).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("shift", torch.zeros(1))

    def fit(self, logits: Tensor, labels: Tensor) -> None:
        """Find scale and shift.

        Args:
            logits: (N, K), of validation images.
            labels: (N,).

        Raises:
            GauntletError: The data do not determine them.
        """
        values, truth = checked(logits, labels)
        scale, shift = self.find(values, truth)
        self.scale = scale.expand(values.shape[1]).to(logits)
        self.shift = shift.expand(values.shape[1]).to(logits)

    def find(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, each of shape (K,) or (1,), from float64 logits."""
        raise NotImplementedError

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (N, K) to logits (N, K)."""
        return logits * self.scale + self.shift


@calibrator("temperature", short="T", reference="Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599")
class Temperature(Calibrator):
    """One temperature for all classes; predictions stay."""

    def find(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """1/T that minimises the NLL, by a bounded search on log T."""
        temperature, _, _ = fit_temperature(logits, labels)
        return logits.new_tensor([1 / temperature]), logits.new_zeros(1)


@calibrator("vector", short="V", reference="Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599")
class Vector(Calibrator):
    """A scale and a shift for each class (vector scaling); predictions may change.

    Args:
        penalty: Weight of the squares of shifts and of the scales' distance from their mean; keeps classes without
            errors finite.
    """

    shared_scale = False

    def __init__(self, *, penalty: float = 1e-4) -> None:
        super().__init__()
        if not 0 < penalty < float("inf"):
            raise GauntletError(f"A calibrator needs a positive penalty, got {penalty}.")
        self.penalty = penalty

    def find(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Minimise the penalised NLL (convex) by L-BFGS in double precision, from the best temperature."""
        temperature, _, _ = fit_temperature(logits, labels)
        classes = logits.shape[1]
        scale = torch.full((1 if self.shared_scale else classes,), 1 / temperature, dtype=logits.dtype)
        scale = scale.to(logits.device).requires_grad_()
        shift = torch.zeros(classes, dtype=logits.dtype, device=logits.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([scale, shift], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            spread = (scale - scale.mean()).square().sum() + shift.square().sum()
            value = F.cross_entropy(logits * scale + shift, labels) + self.penalty * spread
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return scale.detach(), shift.detach()


@calibrator("platt", short="P", reference="Platt 1999; Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599")
class Platt(Vector):
    """One scale for all classes and a shift for each: Platt's sigmoid where there are two classes.

    Args:
        penalty: Weight of the squares of the shifts; keeps classes without errors finite.
    """

    shared_scale = True


class Calibrated(nn.Module):
    """A model and the calibrator of its logits, as one model; a linear head has the calibration folded in.

    Args:
        model: The classifier, in eval mode.
        calibrator: Fitted on it.
    """

    def __init__(self, model: nn.Module, calibrator: Calibrator) -> None:
        super().__init__()
        self.model, self.calibrator = model, calibrator
        # A tap holds references, not parameters: kept out of the module tree.
        self.__dict__["_tap"] = None

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to calibrated logits (N, K)."""
        return self.calibrator(self.model(x))

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """The model's outputs with calibrated logits."""
        if self.__dict__["_tap"] is None:
            self.__dict__["_tap"] = Tap(self.model, x[:4])
        outputs: dict[str, Any] = self.__dict__["_tap"](x)
        return {**outputs, "logits": self.calibrator(outputs["logits"])}

    def head(self) -> tuple[Tensor, Tensor] | None:
        """The model's head with scale and shift folded in; None before the first pass or without a head."""
        tap: Tap | None = self.__dict__["_tap"]
        if tap is None or tap.head is None:
            return None
        weight, bias = tap.head
        return self.calibrator.scale[:, None] * weight, self.calibrator.scale * bias + self.calibrator.shift
