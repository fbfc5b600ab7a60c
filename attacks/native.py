"""Registration of the native attacks: their usual facts, and the tags that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, Unpack

from ..registry import attack
from ..registry.facts import AttackFacts, Norm

T = TypeVar("T", bound=Callable[..., Any])


def native(name: str, *works_in: Norm, **facts: Unpack[AttackFacts]) -> Callable[[T], T]:
    """Register a native attack.

    Args:
        name: Of the attack.
        *works_in: The norms that it works in, its default first.
        **facts: Further facts; without ``access`` it uses gradients, without ``cost`` it is fast, and its ``tags``
            stand beside ``native`` and ``white-box`` or ``black-box``.

    Raises:
        GauntletError: The name is taken, or a fact is unknown.
    """
    access = facts.setdefault("access", "gradient")
    facts.setdefault("cost", "fast")
    box = {"gradient": ("white-box",), "none": ()}.get(access, ("black-box",))
    weak = ("weak",) if "fault" in facts else ()
    facts["tags"] = ("native", *box, *facts.get("tags", ()), *weak)
    if len(works_in) > 1:
        facts["norms"] = works_in
    facts["norm"] = works_in[0]
    return attack(name, **facts)
