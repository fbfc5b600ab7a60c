"""Calibrators: maps from logits to logits that are fitted on validation data and become part of the model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import Component, GauntletError, calibrator
from .tap import Tap
from .temperature import checked, fit_temperature

_MOST_STEPS = 10_000


class Calibrator(Component, nn.Module):
    """From what a model gives to calibrated logits.

    Attributes:
        source: The model's output that it reads: ``logits`` (N, K), or ``members`` (N, M, K).
    """

    source = "logits"

    def fit(self, outputs: Tensor, labels: Tensor) -> None:
        """Learn from the outputs of validation images and their labels (N,).

        Raises:
            GauntletError: The data do not determine the calibration.
        """
        raise NotImplementedError

    def forward(self, outputs: Tensor) -> Tensor:
        """Calibrated logits (N, K)."""
        raise NotImplementedError

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor] | None:
        """The linear head with the calibration in it, or None where it is no longer linear."""
        return None

    def read(self, model: nn.Module, images: Tensor) -> Tensor:
        """The output of a model that it needs.

        Raises:
            GauntletError: The model has no such output.
        """
        if self.source == "logits":
            return model(images)
        named: Any = getattr(model, "forward_outputs", lambda _: {})
        outputs: dict[str, Tensor] = named(images)
        if self.source not in outputs:
            raise GauntletError(f"the calibrator needs {self.source}, which an ensemble has and this model has not.")
        return outputs[self.source]


class ScaleAndShift(Calibrator):
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

    def fit(self, outputs: Tensor, labels: Tensor) -> None:
        """Find scale and shift."""
        values, truth = checked(outputs, labels)
        scale, shift = self.find(values, truth)
        self.scale = scale.expand(values.shape[1]).to(outputs)
        self.shift = shift.expand(values.shape[1]).to(outputs)

    def find(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, each of shape (K,) or (1,), from float64 logits."""
        raise NotImplementedError

    def forward(self, outputs: Tensor) -> Tensor:
        """Logits (N, K) to logits (N, K)."""
        return outputs * self.scale + self.shift

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The head with scale and shift in it."""
        return self.scale[:, None] * weight, self.scale * bias + self.shift


@calibrator("temperature", short="T", reference="Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599")
class Temperature(ScaleAndShift):
    """One temperature for all classes; predictions stay."""

    def find(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """1/T that minimises the NLL, by a bounded search on log T."""
        temperature, _, _ = fit_temperature(logits, labels)
        return logits.new_tensor([1 / temperature]), logits.new_zeros(1)


@calibrator("vector", short="V", reference="Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599")
class Vector(ScaleAndShift):
    """A scale and a shift for each class (vector scaling); predictions may change.

    Args:
        penalty: Weight of the squares of shifts and of the scales' distance from their mean; keeps classes without
            errors finite.

    Raises:
        GauntletError: The penalty is not positive.
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


@calibrator("member-weights", short="W", reference="Dempster, Laird, Rubin 1977 (EM); Rahaman, Thiery 2020, 2007.08792")
class MemberWeights(Calibrator):
    """An ensemble's probabilities averaged with convex weights in place of equal ones.

    Attributes:
        weights: (M,), none negative, together 1.
    """

    source = "members"
    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(1))

    def fit(self, outputs: Tensor, labels: Tensor) -> None:
        """Minimise the NLL of the mixture, which is convex in the weights, by expectation-maximisation."""
        likelihoods = torch.stack(
            [-F.cross_entropy(member, labels, reduction="none") for member in outputs.double().unbind(1)], 1
        )
        weights = torch.full_like(likelihoods[0], 1 / likelihoods.shape[1])
        for _ in range(_MOST_STEPS):
            before, weights = weights, (weights.log() + likelihoods).softmax(1).mean(0)
            if torch.allclose(before, weights, rtol=0, atol=1e-9):
                break
        self.weights = weights.to(outputs)

    def forward(self, outputs: Tensor) -> Tensor:
        """The logarithm of the mixture (N, K), from the members' logits (N, M, K)."""
        return (outputs.log_softmax(2) + self.weights.log()[:, None]).logsumexp(1)


class Calibrated(nn.Module):
    """A model and the calibrator of its outputs, as one model; a linear head has the calibration folded in.

    Args:
        model: The classifier, in eval mode.
        calibrator: Fitted to its outputs.
    """

    def __init__(self, model: nn.Module, calibrator: Calibrator) -> None:
        super().__init__()
        self.model, self.calibrator = model, calibrator
        # A tap holds references, not parameters: kept out of the module tree.
        self.__dict__["_tap"] = None

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to calibrated logits (N, K)."""
        return self.calibrator(self.calibrator.read(self.model, x))

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """The model's outputs with calibrated logits."""
        if self.__dict__["_tap"] is None:
            self.__dict__["_tap"] = Tap(self.model, x[:4])
        outputs: dict[str, Any] = self.__dict__["_tap"](x)
        return {**outputs, "logits": self.calibrator(outputs[self.calibrator.source])}

    def head(self) -> tuple[Tensor, Tensor] | None:
        """The model's head with the calibration folded in; None before the first pass or without a head."""
        tap: Tap | None = self.__dict__["_tap"]
        return None if tap is None or tap.head is None else self.calibrator.fold(*tap.head)
