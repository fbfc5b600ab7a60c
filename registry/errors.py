"""The errors that users see: one sentence each, printed without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Why something cannot run, as one sentence or the end of one; empty where it can.
Obstacle = str


class GauntletError(Exception):
    """Something the user can put right; the message says what was wrong, where, and what would be right."""


class NotAvailable(GauntletError):
    """Right as written but impossible here (a file is absent, an extra is not installed): its cells are skipped."""


def nearest(name: str, known: Iterable[str], *, limit: int = 8) -> str:
    """End of a sentence that helps with a misspelt ``name``: the nearest known spelling, or what is known."""
    names = sorted(known)
    lowered = {known_name.lower(): known_name for known_name in names}
    longer = sorted((found for found in lowered if name and found.startswith(name.lower())), key=len)
    swapped = [found for found in lowered if sorted(found) == sorted(name.lower())]  # letters in another order
    close = longer[:1] or swapped or difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    if close:
        return f"did you mean {lowered[close[0]]!r}?"
    if not names:
        return "none are known."
    shown = ", ".join(names[:limit])
    return f"known: {shown}{f' and {len(names) - limit} more' if len(names) > limit else ''}."
