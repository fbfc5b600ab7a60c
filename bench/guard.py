"""Components cannot harm one another: what user code is handed is its own, and what it sets globally is set back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import Tensor, nn

from ..datasets.process_state import global_state
from ..detectors import Head, Outputs
from ..models.standard_form import moving
from ..models.state import ModelState, same
from ..registry import EVALUATORS, GauntletError, Selected
from ..results import estimates
from ..results.estimates import Estimate
from ..results.samples import Sample
from .jobs import Job


class Harm(GauntletError):
    """A component changed what others use: none of its figures can be believed."""


@contextlib.contextmanager
def module_state(module: nn.Module, who: str) -> Iterator[None]:
    """The modes, hooks, gradients and flags of a module are set back; weights and buffers too, with an error.

    Raises:
        Harm: The code inside changed a weight or a buffer; the message names ``who``.
    """
    state = ModelState(module)
    try:
        yield
    finally:
        changed = state.set_back()
    refuse_changes(changed, module, who)


def refuse_changes(changed: Iterable[str], module: nn.Module, who: str) -> None:
    """Raise where weights or buffers were changed, other than those that the model itself changes in every pass.

    Raises:
        Harm: Some were; the message names ``who``.
    """
    if names := [name for name in changed if name not in moving(module)]:
        raise Harm(f"{who} changed weights or buffers of the model ({names[0]}), which others use too.")


def is_foreign(job: Job) -> bool:
    """Whether code of the user's own takes part in a job: its evaluator, its model, or what it is about."""
    model = job.row.model
    about = [value.entry for value in vars(job).values() if isinstance(value, Selected)]
    entries = [EVALUATORS.get(job.evaluator), *(part.entry for part in (model, *model.members)), *about]
    return not all(entry.is_ours for entry in entries)


def estimate(names: Iterable[str], sample: Sample) -> dict[str, Estimate]:
    """As :func:`gauntlet.results.estimates.estimate`; metrics of plug-ins leave nothing changed for the process."""
    with global_state():
        return estimates.estimate(names, sample)


@contextlib.contextmanager
def lent(outputs: Outputs, who: str) -> Iterator[Outputs]:
    """Copies of ``outputs`` for user code, which are afterwards compared with the originals.

    Raises:
        Harm: The code inside wrote into what it was handed, or changed the model; the message names ``who``.
    """
    own = own_copy(outputs, who)
    with contextlib.ExitStack() as stack:
        stack.enter_context(global_state())
        if outputs.model is not None:
            stack.enter_context(module_state(outputs.model, who))
        yield own
    for (name, mine), (_, theirs) in zip(_tensors(outputs), _tensors(own), strict=True):
        if not same(mine, theirs):
            raise _in_place(who, name)


def _tensors(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    fields = {"labels": outputs.labels, "logits": outputs.logits, "features": outputs.features, **outputs.named}
    fields["projected features"] = outputs.projected
    fields |= {} if outputs.head is None else {"head's weight": outputs.head.weight, "head's bias": outputs.head.bias}
    yield from ((name, value) for name, value in fields.items() if value is not None)


def own_copy(outputs: Outputs, who: str) -> Outputs:
    """The same outputs in tensors of their own; ``who`` writes into a batch of images at the price of an error."""

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


def _in_place(who: str, what: str) -> Harm:
    return Harm(
        f"{who} wrote into the {what} that it was handed (zero_, clamp_, scatter_, out=, ...): let it work on a copy, "
        "such as clone() gives."
    )
