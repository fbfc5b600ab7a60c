"""Which linear maps a model applies in a pass, whoever calls them, and which of them explain its logits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: Most heads of which a mean is recognised.
_MOST_HEADS = 32


class Call(NamedTuple):
    """One linear map in a pass: features (N, ..., D) with the classes' weight (K, D) and bias (K,), or none."""

    features: Tensor
    weight: Tensor
    bias: Tensor | None


class LinearCalls(TorchFunctionMode):
    """Meanwhile, linear maps to ``classes`` outputs are told to ``tell``: linear layers, 1x1 convolutions, products.

    It sees what functions of torch are called with, so that a layer, ``F.linear`` and a computed weight are alike.
    """

    def __init__(self, classes: int, tell: Callable[[Call], None]) -> None:
        super().__init__()
        self._classes, self._tell = classes, tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and tell where it was a linear map."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        reader = _READERS.get(func)
        if reader is not None and (call := reader(*args, **kwargs)) is not None and len(call.weight) == self._classes:
            self._tell(call)
        return result


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    return Call(input, weight, bias) if weight.ndim == 2 and input.ndim >= 2 else None


def _convolution(input: Tensor, weight: Tensor, bias: Tensor | None = None, *more: Any, **named: Any) -> Call | None:
    plain = weight.ndim == 4 and weight.shape[2:] == (1, 1) and weight.shape[1] == input.shape[1] and input.ndim == 4
    stride = (more[0] if more else named.get("stride", 1)) in (1, (1, 1), [1, 1])
    padding = (more[1] if len(more) > 1 else named.get("padding", 0)) in (0, (0, 0), [0, 0], "valid", "same")
    return Call(input.movedim(1, -1), weight.flatten(1), bias) if plain and stride and padding else None


def _product(input: Any, other: Any, **_: Any) -> Call | None:
    tensors = isinstance(input, Tensor) and isinstance(other, Tensor)
    return Call(input, other.mT, None) if tensors and other.ndim == 2 and input.ndim >= 2 else None


def _sum_and_product(input: Tensor, mat1: Tensor, mat2: Tensor, **named: Any) -> Call | None:
    plain = input.ndim == 1 and mat2.ndim == 2 and named.get("beta", 1) == named.get("alpha", 1) == 1
    return Call(mat1, mat2.mT, input) if plain else None


_READERS: dict[Any, Callable[..., Call | None]] = {
    F.linear: _linear,
    F.conv2d: _convolution,
    torch.addmm: _sum_and_product,
    **dict.fromkeys((torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), _product),
}


def pooled(features: Tensor) -> Tensor:
    """Features (N, ..., D), averaged over places (tokens, pixels) to (N, D)."""
    return features if features.ndim == 2 else features.flatten(1, -2).mean(1)


@dataclass(frozen=True)
class Explanation:
    """How logits come from linear maps: the calls, by position, what each counts, and what is added for each class.

    Attributes:
        exact: Whether they are the logits; otherwise only up to a number an image, as of a softmax behind them.
    """

    calls: tuple[int, ...]
    scales: tuple[float, ...]
    shift: Tensor
    exact: bool = True

    def features(self, calls: Sequence[Call] | Mapping[int, Call]) -> Tensor:
        """Features (N, D) of one pass; those of several different inputs side by side."""
        return torch.cat([pooled(call.features) for call in self._distinct(calls)], 1)

    def head(self, calls: Sequence[Call]) -> tuple[Tensor, Tensor]:
        """Weight (K, D) and bias (K,) of one linear layer that gives the logits from the features."""
        chosen = [calls[position] for position in self.calls]
        parts: dict[int, Tensor] = {}
        bias: Tensor = self.shift
        for call, scale in zip(chosen, self.scales, strict=True):
            own = call.weight.detach() if scale == 1 else scale * call.weight.detach()
            key = id(_first_equal(call, chosen))
            parts[key] = parts[key] + own if key in parts else own
            if call.bias is not None:
                bias = bias + (call.bias.detach() if scale == 1 else scale * call.bias.detach())
        return torch.cat([*parts.values()], 1), bias

    def _distinct(self, calls: Sequence[Call] | Mapping[int, Call]) -> list[Call]:
        chosen = [calls[position] for position in self.calls]
        return [call for call in chosen if _first_equal(call, chosen) is call]


def _first_equal(call: Call, calls: Sequence[Call]) -> Call:
    """The first of the calls with the same input."""
    return next(one for one in calls if one.features is call.features)


def explain(logits: Tensor, calls: Sequence[Call], tolerance: float) -> Explanation | None:
    """What explains logits (N, K): one map with a scale and a shift of classes, or else a mean or sum of several.

    The last call is tried first. None where nothing does within ``tolerance`` of the logits' size.
    """
    usable = [n for n, call in enumerate(calls) if len(call.features) == len(logits)]
    raws = {n: _raw(calls[n]) for n in usable}
    for exact, target in _targets(logits):
        for chosen in _candidates(usable):
            found = _fitted(target, [raws[n] for n in chosen], tolerance, centred=not exact)
            if found is not None:
                return Explanation(chosen, *found, exact=exact)
    return None


def _raw(call: Call) -> Tensor:
    return F.linear(
        pooled(call.features).float(), call.weight.float(), None if call.bias is None else call.bias.float()
    )


def _targets(logits: Tensor) -> Iterator[tuple[bool, Tensor]]:
    """The logits, and what they are up to a number an image: of a softmax its logarithm, of sigmoids their logits."""
    logits = logits.float()
    yield True, logits
    yield False, logits - logits.mean(1, keepdim=True)
    if bool((logits >= 0).all()) and bool((logits <= 1).all()):
        logs = logits.clamp_min(torch.finfo(logits.dtype).tiny).log()
        yield False, logs - logs.mean(1, keepdim=True)
        odds = logits.clamp(1e-6, 1 - 1e-6).logit()
        yield False, odds - odds.mean(1, keepdim=True)


def _candidates(usable: Sequence[int]) -> Iterator[tuple[int, ...]]:
    yield from ((n,) for n in reversed(usable))
    yield from itertools.combinations(usable[-4:], 2)
    if 2 < len(usable) <= _MOST_HEADS:
        yield tuple(usable)


def _fitted(
    target: Tensor, raws: Sequence[Tensor], tolerance: float, *, centred: bool
) -> tuple[tuple[float, ...], Tensor] | None:
    """Scales of the maps and the shift of each class (K,) that give the target (N, K); None where none do."""
    size = tolerance * float(target.abs().max().clamp(min=1))
    if centred:
        raws = [raw - raw.mean(1, keepdim=True) for raw in raws]
    if len(raws) == 1 and float((target - raws[0]).abs().max()) <= size:  # as it is, without a fit's rounding
        return (1.0,), torch.zeros_like(target[0])
    # What varies between images decides the scales; what is left is the same for all and the shift.
    varying = torch.stack([(raw - raw.mean(0)).flatten() for raw in raws], 1).double()
    wanted = (target - target.mean(0)).flatten().double()
    if float(varying.abs().max()) == 0:
        return None
    scales = torch.linalg.lstsq(varying.cpu(), wanted.cpu()[:, None]).solution.flatten().tolist()
    made = sum(scale * raw for scale, raw in zip(scales, raws, strict=True))
    shift = (target - made).mean(0)
    error = float((made + shift - target).abs().max())
    if not error <= size or any(abs(scale) < 1e-6 for scale in scales):
        return None
    return tuple(scales), torch.where(shift.abs() <= size, torch.zeros_like(shift), shift)


class Watched:
    """Sees the calls of an explanation in later passes: by hooks on their layers, where all of them are layers.

    Hooks leave the fast paths of torch's own layers as they are; only a computed weight needs :class:`LinearCalls`.

    Args:
        module: The model.
        explanation: What explains its logits.
        probed: All calls of the probe.
        images: The probe.
    """

    def __init__(self, module: nn.Module, explanation: Explanation, probed: Sequence[Call], images: Tensor) -> None:
        self._module, self._explanation, self._count = module, explanation, len(probed)
        owners, weights = _owners(module), [call.weight.data_ptr() for call in probed]
        found = [owners.get(weights[n]) for n in explanation.calls]
        self._names = [f"input of {one[0]}" if one else "input of a computed linear map" for one in found]
        self._layers = [one[1] for one in found if one]
        #: Which call of its layer each is.
        self._turns = [weights[:n].count(weights[n]) for n in explanation.calls]
        # A layer's weight may also be used by a function, without a call of the layer.
        self._by_hooks = len(self._layers) == len(found) and self._hooked(images)[1] is not None

    @property
    def words(self) -> str:
        """What the features are, for people."""
        return " and ".join(dict.fromkeys(self._names))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, K) and features (N, D); none where the pass took another way than the probe's."""
        return self._hooked(images) if self._by_hooks else self._listened(images)

    def _listened(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        calls: list[Call] = []
        with LinearCalls(len(self._explanation.shift), calls.append):
            logits = self._module(images)
        return logits, self._explanation.features(calls) if len(calls) == self._count else None

    def _hooked(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        caught: dict[nn.Module, list[Call]] = {layer: [] for layer in self._layers}

        def act(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            call = _of_layer(layer, inputs[0] if inputs else named["input"])
            caught[layer] += [] if call is None else [call]

        handles = [layer.register_forward_pre_hook(act, with_kwargs=True) for layer in caught]
        try:
            logits = self._module(images)
        finally:
            for handle in handles:
                handle.remove()
        places = list(zip(self._explanation.calls, self._layers, self._turns, strict=True))
        if any(len(caught[layer]) <= turn for _, layer, turn in places):
            return logits, None
        return logits, self._explanation.features({n: caught[layer][turn] for n, layer, turn in places})


def _owners(module: nn.Module) -> dict[int, tuple[str, nn.Module]]:
    """Linear layers and 1x1 convolutions of a module, with their names, by the address of their weight."""
    found = {}
    for name, part in module.named_modules():
        weight = part._parameters.get("weight") if isinstance(part, (nn.Linear, nn.Conv2d)) else None
        if weight is not None and not isinstance(weight, nn.UninitializedParameter):
            found[weight.data_ptr()] = (name.removeprefix("model."), part)
    return found


def _of_layer(layer: Any, features: Tensor) -> Call | None:
    if isinstance(layer, nn.Linear):
        return _linear(features, layer.weight, layer.bias)
    return _convolution(features, layer.weight, layer.bias, layer.stride, layer.padding)
