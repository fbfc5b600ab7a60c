"""Components cannot harm one another: what user code is handed is its own, and what it sets globally is set back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..detectors import Head, Outputs
from ..registry import GauntletError

#: How to read and how to set what torch keeps for the whole process.
_GLOBALS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (lambda: torch.backends.cudnn.benchmark, lambda value: setattr(torch.backends.cudnn, "benchmark", value)),
    (lambda: torch.backends.cudnn.deterministic, lambda value: setattr(torch.backends.cudnn, "deterministic", value)),
    (torch.random.get_rng_state, torch.random.set_rng_state),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextlib.contextmanager
def global_state() -> Iterator[None]:
    """Random streams, default dtype, threads, grad mode and flags are afterwards as they were before."""
    kept = [(read(), write) for read, write in _GLOBALS]
    try:
        yield
    finally:
        for value, write in kept:
            write(value)


@contextlib.contextmanager
def module_state(module: nn.Module, who: str) -> Iterator[None]:
    """The modes, hooks, gradients and flags of a module are set back; weights and buffers too, with an error.

    Raises:
        GauntletError: The code inside changed a weight or a buffer; the message names ``who``.
    """
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    parts = [(part, part.training, {name: getattr(part, name).copy() for name in _HOOKS}) for part in module.modules()]
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    try:
        yield
    finally:
        for part, training, hooks in parts:
            part.training = training
            for name, held in hooks.items():
                getattr(part, name).clear()
                getattr(part, name).update(held)
        for parameter, required, grad in flags:
            parameter.requires_grad_(required)
            parameter.grad = grad
        changed = [name for name, value in module.state_dict().items() if not same(value, weights[name])]
        if changed:
            module.load_state_dict(weights)
    if changed:
        raise GauntletError(f"{who} changed weights or buffers of the model ({changed[0]}), which others use too.")


@contextlib.contextmanager
def lent(outputs: Outputs, who: str) -> Iterator[Outputs]:
    """Copies of ``outputs`` for user code, which are afterwards compared with the originals.

    Raises:
        GauntletError: The code inside wrote into what it was handed, or changed the model; the message names ``who``.
    """
    own = _copy(outputs, who)
    with contextlib.ExitStack() as stack:
        stack.enter_context(global_state())
        if outputs.model is not None:
            stack.enter_context(module_state(outputs.model, who))
        yield own
    for (name, mine), (_, theirs) in zip(_tensors(outputs), _tensors(own), strict=True):
        if not same(mine, theirs):
            raise _in_place(who, name)


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same numbers; NaN equals NaN here."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)


def _tensors(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    fields = {"labels": outputs.labels, "logits": outputs.logits, "features": outputs.features, **outputs.named}
    fields["projected features"] = outputs.projected
    fields |= {} if outputs.head is None else {"head's weight": outputs.head.weight, "head's bias": outputs.head.bias}
    yield from ((name, value) for name, value in fields.items() if value is not None)


def _copy(outputs: Outputs, who: str) -> Outputs:
    def clone(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.clone()

    batches = outputs.image_batches
    return replace(
        outputs,
        labels=outputs.labels.clone(),
        logits=clone(outputs.logits),
        features=clone(outputs.features),
        projected=clone(outputs.projected),
        named={name: value.clone() for name, value in outputs.named.items()},
        head=None if outputs.head is None else Head(*(part.clone() for part in outputs.head)),
        image_batches=None if batches is None else lambda: _lent_batches(batches(), who),
    )


def _lent_batches(batches: Iterable[Tensor], who: str) -> Iterator[Tensor]:
    for batch in batches:
        own = batch.clone()
        yield own
        if not same(batch, own.detach()):
            raise _in_place(who, "images")


def _in_place(who: str, what: str) -> GauntletError:
    return GauntletError(
        f"{who} wrote into the {what} that it was handed (zero_, clamp_, scatter_, out=, ...): let it work on a copy, "
        "such as clone() gives."
    )
