"""The state of a network, so that what somebody did to it can be seen and undone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: What every module has: its mode, parameters, buffers, parts and hooks.
_OF_MODULES = frozenset(vars(nn.Module()))


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same numbers; NaN equals NaN here."""
    if first.shape != second.shape:
        return False
    return torch.equal(first, second) or torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)


class ModelState:
    """A network as it is now: modes, hooks, parts, methods, flags, gradients and the numbers of all its tensors.

    Making one copies every tensor (parameters, buffers, and those that are plain attributes); :meth:`set_back` only
    compares. What a network notes beside, such as a cache of its own, is left to it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = [_PartState(part) for part in module.modules()]
        self._tensors = {
            ".".join(filter(None, (prefix, name))): (value, value.detach().clone(), value.requires_grad, value.grad)
            for prefix, part in module.named_modules()
            for name, value in _tensors(part).items()
        }

    def changed(self) -> list[str]:
        """Names of the tensors whose numbers have changed."""
        return [name for name, (value, before, *_) in self._tensors.items() if not same(value.detach(), before)]

    def set_back(self) -> list[str]:
        """Make the network as it was; returns the names of the tensors whose numbers had changed."""
        for part in self._parts:
            part.set_back()
        changed = self.changed()
        for name in changed:
            value, before, *_ = self._tensors[name]
            value.data = before.clone()
        for value, _, required, grad in self._tensors.values():
            if value.is_leaf:
                value.requires_grad_(required)
                value.grad = grad
        return changed


class _PartState:
    """One module: what its registries hold, and its methods."""

    def __init__(self, part: nn.Module) -> None:
        self._part, self._names = part, frozenset(vars(part))
        self._registries = {name: _copied(value) for name, value in vars(part).items() if name in _OF_MODULES}
        self._others = {name: value for name, value in vars(part).items() if isinstance(value, Tensor)}

    def set_back(self) -> None:
        attributes = self._part.__dict__
        for name in [name for name in attributes if name not in self._names and hasattr(type(self._part), name)]:
            del attributes[name]  # a method that was replaced on the object, such as `forward`
        for name, value in self._registries.items():
            if isinstance(value, (dict, set)):
                attributes[name].clear()
                attributes[name].update(value)
            else:
                attributes[name] = value
        attributes.update(self._others)


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, set)) else value


def _tensors(part: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers and plain attributes of one module."""
    found: dict[str, Any] = {**vars(part), **part._parameters, **part._buffers}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
