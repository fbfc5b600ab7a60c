"""Reads logits, features and named outputs of any model in one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import GauntletError
from .linear_calls import Call, Explanation, LinearCalls, Watched, explain
from .standard_form import precision_of

_TOLERANCE = 1e-4
_MORE = 8  # images of noise beside the probe, so that no fit is better than it is
_NOT_EXPLAINED = "the logits are not the output of the final linear layer"
_HALF = (torch.float16, torch.bfloat16)


class Tap:
    """One pass through a module gives its logits, its features and whatever else it names.

    A module that has ``forward_outputs(x) -> dict`` (and, if it has one, ``head() -> (weight, bias)``) is asked.
    For any other, the linear map that explains its logits is the head (or several of which they are the mean), its
    input the features: of a linear layer, a 1x1 convolution with pooling, a computed weight (:mod:`.linear_calls`).
    Either way the head is believed only if W z + b equals the logits on the probe, up to 1e-4 of their size, or what
    half precision rounds away.
    The module is not changed.

    Args:
        module: In eval mode; maps images (N, C, H, W) to logits (N, K).
        probe: A few images on the module's device.

    Raises:
        GauntletError: The module's own ``forward_outputs`` gives no mapping of tensors.

    Attributes:
        why_no_head: What is missing, where ``head`` is None; empty where there is one.
        taken: What the features are, in words; empty where there are none.
    """

    def __init__(self, module: nn.Module, probe: Tensor) -> None:
        self._module = module
        self.why_no_head = self.taken = ""
        self._own = callable(getattr(module, "forward_outputs", None))
        self._clones, self._rounding = False, 0.0
        self._explanation: Explanation | None = None
        self._probed: list[Call] = []
        self._watched: Watched | None = None
        with torch.no_grad():
            lent = probe.clone()
            if self._own:
                outputs = self(lent)
                self.taken = getattr(module, "taken", "features that the model names") * ("features" in outputs)
                self._clones = lent._version > 0  # the model's own forward_outputs writes into its images
                self.why_no_head = self._doubt(outputs)
            else:
                self._find(lent)

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

    def _find(self, probe: Tensor) -> None:
        """Look for the linear maps that explain the logits of the probe, and of images beside it."""
        more = torch.rand(_MORE, *probe.shape[1:], generator=torch.Generator().manual_seed(_MORE)).to(probe)
        images = torch.cat([probe, more])
        logits = self._module(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            self.why_no_head = "the model gives no logits (N, classes)"
            return
        with LinearCalls(logits.shape[1], self._probed.append):
            self._module(images)
        rounding = torch.finfo(logits.dtype).eps if logits.is_floating_point() else 0.0
        tolerance = max(_TOLERANCE, 4 * rounding, 4 * precision_of(self._module))
        self._explanation = found = explain(logits, self._probed, tolerance)
        if found is None:
            last = "the model has no final linear layer" if not self._probed else _NOT_EXPLAINED
            self.why_no_head = last
            return
        self._watched = Watched(self._module, found, self._probed, images)
        self.taken = self._watched.words
        self.why_no_head = "" if found.exact else _NOT_EXPLAINED

    def _caught(self, images: Tensor) -> dict[str, Tensor]:
        """Logits, and the features that explain them."""
        if self._watched is None:
            return {"logits": self._module(images)}
        logits, features = self._watched(images)
        return {"logits": logits} if features is None else {"logits": logits, "features": features}

    def _own_outputs(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self._module.forward_outputs(images)  # type: ignore[operator]
        if not isinstance(outputs, Mapping) or not all(isinstance(value, Tensor) for value in outputs.values()):
            raise GauntletError(
                f"{type(self._module).__name__}.forward_outputs must return a mapping from names to tensors, got "
                f"{_described(outputs)}."
            )
        return dict(outputs)

    def _doubt(self, outputs: dict[str, Tensor]) -> str:
        if "logits" not in outputs:
            return "the model gives no logits"
        head = self._candidate()
        if head is None:
            return "the model has no final linear layer"
        if "features" not in outputs:
            return "the input of the final linear layer is not one vector an image"
        if not _explains(head, outputs, max(_TOLERANCE, 4 * self._rounding, 4 * precision_of(self._module))):
            return _NOT_EXPLAINED
        return ""

    def _candidate(self) -> tuple[Tensor, Tensor] | None:
        if self._own:
            own_head = getattr(self._module, "head", None)
            head = own_head() if callable(own_head) and not isinstance(own_head, nn.Module) else None
        else:
            head = None if self._explanation is None else self._explanation.head(self._probed)
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
