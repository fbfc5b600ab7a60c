"""Features and head of a model that somebody names by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import GauntletError, nearest
from .linear_calls import pooled
from .own import OwnModel, as_logits


class NamedFeatures(OwnModel):
    """A model of which the features, the head, or both are given.

    Args:
        model: A module (any callable where the features are a callable).
        features: Name of a layer, a module inside, or a callable of images (N, C, H, W); layers give (N, D), or maps
            (N, D, H, W) and tokens (N, T, D), which are averaged over places. None: what goes into the head.
        head: Name of a layer, a module with a weight (K, D) and maybe a bias (K,), or the pair of them.
        **options: Those of :class:`OwnModel`.

    Raises:
        GauntletError: There is no such layer, or it is no head.
    """

    def __init__(self, model: Any, *, features: Any = None, head: Any = None, **options: Any) -> None:
        super().__init__(model, **options)
        self._features = _layer(self.model, features, "features")
        self._head = _layer(self.model, head, "head")
        if self._features is None and not isinstance(self._head, nn.Module):
            raise GauntletError("head= given as tensors needs features=, the layer or callable that it reads.")
        said = features if isinstance(features, str) else type(self._features).__name__
        reads = head if isinstance(head, str) else "the head"
        self.taken = f"input of {reads}" if features is None else f"output of {said}"

    def forward_outputs(self, images: Tensor) -> dict[str, Tensor]:
        """``logits`` (N, K) and ``features`` (N, D).

        Raises:
            GauntletError: The layer did not run.
        """
        if callable(self._features) and not isinstance(self._features, nn.Module):
            given = images if self.normalize is None else self.normalize(images)
            return {"logits": self(images), "features": _vector(self._features(given))}
        caught: list[Tensor] = []
        if self._features is None:
            handle = self._head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        else:
            handle = self._features.register_forward_hook(lambda _, inputs, output: caught.append(output))
        try:
            logits = self(images)
        finally:
            handle.remove()
        if not caught:
            raise GauntletError(f"The {self.taken} was named as features, but that layer does not run.")
        return {"logits": logits, "features": _vector(caught[-1])}

    def head(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight (K, D) and bias (K,) of the named head; None where none was named."""
        if self._head is None:
            return None
        weight, bias = self._head if isinstance(self._head, tuple) else (self._head.weight, self._head.bias)
        weight = weight.flatten(1)
        if self._classes is not None:
            weight, bias = weight[self._classes], None if bias is None else bias[self._classes]
        return weight, bias


def _vector(features: Any) -> Tensor:
    """Features (N, D) of what a layer gave."""
    found = features[0] if isinstance(features, (tuple, list)) else features
    if found.ndim == 4:
        found = found.movedim(1, -1)
    return pooled(found if found.ndim > 1 else as_logits(found, len(found)))


def _layer(model: Any, named: Any, what: str) -> Any:
    """The module that a name stands for; anything else as it is."""
    if isinstance(named, str):
        known = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
        if named not in known:
            hint = nearest(named, filter(None, known))
            raise GauntletError(f"{what}={named!r}: the model has no such layer; {hint}")
        named = known[named]
    if what == "head" and isinstance(named, nn.Module) and not isinstance(getattr(named, "weight", None), Tensor):
        raise GauntletError(f"head= must have a weight (K, D), and {type(named).__name__} has none.")
    if what == "head" and isinstance(named, (tuple, list)):
        weight, bias = (None if part is None else torch.as_tensor(part) for part in named)
        return weight, bias
    wanted: tuple[type, ...] = (nn.Module,) if what == "head" else (nn.Module, Callable)  # type: ignore[assignment]
    if named is not None and not isinstance(named, wanted):
        got = type(named).__name__
        raise GauntletError(f"{what}= must be the name of a layer, a module or {_ELSE[what]}, got {got}.")
    return named


_ELSE = {"head": "(weight, bias)", "features": "a callable"}
