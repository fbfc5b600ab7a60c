"""State dicts as people save them: beside epochs and scores, under any key, behind the prefix of any wrapper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

_DEEPEST = 4


def find_state(content: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The state dict in a checkpoint that has most of the ``wanted`` names, the first of equals, without its prefix.

    None where no mapping in it has names with tensors.

    >>> import torch
    >>> nested = {"epoch": 3, "net": {"module.bias": torch.ones(1)}}
    >>> find_state(nested, {"bias": torch.zeros(1)})
    {'bias': tensor([1.])}
    """
    found = [_as_wanted(state, wanted) for state in _states(content, 0)]
    return max(found, key=lambda state: len(set(state) & set(wanted)), default=None)


def _states(content: Mapping[Any, Any], depth: int) -> Iterator[dict[str, Tensor]]:
    if content and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        yield dict(content)
    for value in content.values() if depth < _DEEPEST else ():
        if isinstance(value, Mapping):
            yield from _states(value, depth + 1)


def _as_wanted(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, without the prefix that all names have beyond the wanted ones, or with that which they lack."""
    if set(state) & set(wanted):
        return state
    if prefix := _prefix(state, wanted):
        return {name.removeprefix(prefix): value for name, value in state.items()}
    lacking = _prefix(wanted, state)
    return {lacking + name: value for name, value in state.items()}


def _prefix(longer: Mapping[str, Any], shorter: Mapping[str, Any]) -> str:
    """What all the longer names begin with so that the rest is most often a shorter one; empty where there is none."""
    ends = [(name, name[start:]) for name in longer for start in _starts(name)]
    counts = Counter(name.removesuffix(end) for name, end in ends if end in shorter)
    usable = [prefix for prefix, _ in counts.most_common() if all(name.startswith(prefix) for name in longer)]
    return usable[0] if usable else ""


def _starts(name: str) -> Iterator[int]:
    return (place + 1 for place, sign in enumerate(name) if sign == ".")
