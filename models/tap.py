"""Reads logits, features and named outputs of any model in one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import GauntletError
from .standard_form import precision_of

_TOLERANCE = 1e-4
_HALF = (torch.float16, torch.bfloat16)


class Tap:
    """One pass through a module gives its logits, its features and whatever else it names.

    A module that has ``forward_outputs(x) -> dict`` (and, if it has one, ``head() -> (weight, bias)``) is asked.
    For any other, the last ``nn.Linear`` that runs in a forward pass is taken to be the head, its input the features.
    Either way the head is believed only if W z + b equals the logits on the probe, up to 1e-4 of their size, or what
    half precision rounds away.
    The module is not changed: hooks live during a call only.

    Args:
        module: In eval mode; maps images (N, C, H, W) to logits (N, K).
        probe: A few images on the module's device.

    Raises:
        GauntletError: The module's own ``forward_outputs`` gives no mapping of tensors.

    Attributes:
        why_no_head: What is missing, where ``head`` is None; empty where there is one.
    """

    def __init__(self, module: nn.Module, probe: Tensor) -> None:
        self._module = module
        self._layer: nn.Linear | None = None
        self.why_no_head = ""
        self._own = callable(getattr(module, "forward_outputs", None))
        self._clones, self._rounding = False, 0.0
        with torch.no_grad():
            if not self._own:
                self._layer = self._last_linear(probe)
            lent = probe.clone()
            outputs = self(lent)
            self._clones = lent._version > 0  # the model's own forward_outputs writes into its images
            self.why_no_head = self._doubt(outputs)

    @property
    def head(self) -> tuple[Tensor, Tensor] | None:
        """Weight (K, D) and bias (K,) of the final linear layer as they are now, or None."""
        return None if self.why_no_head else self._candidate()

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) to ``logits`` (N, K) and ``features`` (N, D) where there are any, and named outputs.

        What comes in half precision goes on in float32.
        """
        outputs = self._own_outputs(images.clone() if self._clones else images) if self._own else self._caught(images)
        known = [value.dtype for name, value in outputs.items() if name in ("logits", "features")]
        self._rounding = max((torch.finfo(dtype).eps for dtype in known if dtype.is_floating_point), default=0.0)
        if len(images) == 1:  # of a batch of one, a model that squeezes leaves a vector
            batched = {name: outputs[name][None] for name in ("logits", "features") if _is_vector(outputs.get(name))}
            outputs |= batched
        return {name: value.float() if value.dtype in _HALF else value for name, value in outputs.items()}

    def _caught(self, images: Tensor) -> dict[str, Tensor]:
        """Logits, and the features that go into the last linear layer."""
        if self._layer is None:
            return {"logits": self._module(images)}
        caught: list[Tensor] = []
        handle = self._layer.register_forward_pre_hook(
            lambda _, inputs, named: caught.append(inputs[0] if inputs else named["input"]), with_kwargs=True
        )
        try:
            logits = self._module(images)
        finally:
            handle.remove()
        return {"logits": logits, "features": caught[-1]} if caught and caught[-1].ndim == 2 else {"logits": logits}

    def _own_outputs(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self._module.forward_outputs(images)  # type: ignore[operator]
        if not isinstance(outputs, Mapping) or not all(isinstance(value, Tensor) for value in outputs.values()):
            raise GauntletError(
                f"{type(self._module).__name__}.forward_outputs must return a mapping from names to tensors, got "
                f"{_described(outputs)}."
            )
        return dict(outputs)

    def _last_linear(self, probe: Tensor) -> nn.Linear | None:
        called: list[nn.Linear] = []

        def remember(layer: nn.Module, *_: Any) -> None:
            assert isinstance(layer, nn.Linear)
            called.append(layer)

        linears = [layer for layer in self._module.modules() if isinstance(layer, nn.Linear)]
        handles = [layer.register_forward_hook(remember) for layer in linears]
        try:
            self._module(probe)
        finally:
            for handle in handles:
                handle.remove()
        return called[-1] if called else None

    def _doubt(self, outputs: dict[str, Tensor]) -> str:
        if "logits" not in outputs:
            return "the model gives no logits"
        head = self._candidate()
        if head is None:
            return "the model has no final linear layer"
        if "features" not in outputs:
            return "the input of the final linear layer is not one vector an image"
        if not _explains(head, outputs, max(_TOLERANCE, 4 * self._rounding, 4 * precision_of(self._module))):
            return "the logits are not the output of the final linear layer"
        return ""

    def _candidate(self) -> tuple[Tensor, Tensor] | None:
        if self._own:
            own_head = getattr(self._module, "head", None)
            head = own_head() if callable(own_head) and not isinstance(own_head, nn.Module) else None
        else:
            head = None if self._layer is None else (self._layer.weight, self._layer.bias)
        if head is None:
            return None
        weight, bias = head
        weight = weight.detach().float() if weight.dtype in _HALF else weight.detach()
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().to(weight.dtype)


def _described(outputs: Any) -> str:
    if not isinstance(outputs, Mapping):
        return f"a {type(outputs).__name__}"
    return ", ".join(f"{name}: a {type(value).__name__}" for name, value in outputs.items())


def _is_vector(values: Tensor | None) -> bool:
    return values is not None and values.ndim == 1


def _explains(head: tuple[Tensor, Tensor], outputs: dict[str, Tensor], tolerance: float) -> bool:
    weight, bias = head
    features, logits = outputs["features"], outputs["logits"]
    if features.shape[1:] != weight.shape[1:] or logits.shape[1:] != bias.shape:
        return False
    error = (features @ weight.T + bias - logits).abs().max()
    return bool(error <= tolerance * logits.abs().max().clamp(min=1))
