"""Registration of the native attacks: their usual facts, and the tags that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..registry import attack


def native(
    name: str,
    *norms: str,
    reference: str,
    kind: str = "fixed",
    access: str = "gradient",
    cost: str = "fast",
    tags: tuple[str, ...] = (),
    **facts: Any,
) -> Callable[[Any], Any]:
    """Register a native attack.

    Args:
        name: Of the attack.
        *norms: Those that it works in, its default first.
        reference: Paper.
        kind: ``fixed``, ``minimum-norm`` or ``other``.
        access: What it asks of the model: ``gradient``, ``score``, ``decision`` or ``none``.
        cost: ``fast``, ``standard`` or ``full``.
        tags: Words for selections, beside ``native`` and ``white-box`` or ``black-box``.
        **facts: Further facts.

    Raises:
        GauntletError: The name is taken, or a fact is unknown.
    """
    box = {"gradient": ("white-box",), "none": ()}.get(access, ("black-box",))
    if len(norms) > 1:
        facts["norms"] = norms
    return attack(
        name,
        norm=norms[0],
        kind=kind,
        access=access,
        cost=cost,
        tags=("native", *box, *tags),
        reference=reference,
        **facts,
    )
