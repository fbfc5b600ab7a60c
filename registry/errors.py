"""The errors that users see: one sentence each, printed without a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

#: Why something cannot run, as one sentence or the end of one; empty where it can.
Obstacle = str


#: Control characters but tab and newline, and those that end a line or turn the direction of writing unseen.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    r"""A text as a terminal may show it: escape sequences, which move its cursor or worse, stand there in letters.

    >>> print(harmless("red: \x1b[31m"))
    red: \x1b[31m
    """
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


class GauntletError(Exception):
    """Something the user can put right; the message says what was wrong, where, and what would be right."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(harmless(part) if isinstance(part, str) else part for part in parts))


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
