"""Keeps a generated part of a text file up to date, between two marker comments."""

from __future__ import annotations

from pathlib import Path

from ..registry import GauntletError
from .frame import write_text


def splice(path: Path | str, name: str, text: str) -> bool:
    """Replace what stands between ``<!-- gauntlet:NAME -->`` and ``<!-- /gauntlet:NAME -->``; returns if it changed.

    Raises:
        GauntletError: The file is absent, or the markers are not there exactly once, the first before the second.
    """
    path = Path(path)
    if not path.is_file():
        raise GauntletError(
            f"There is no file {path}; it must hold <!-- gauntlet:{name} --> and <!-- /gauntlet:{name} -->."
        )
    begin, end = f"<!-- gauntlet:{name} -->", f"<!-- /gauntlet:{name} -->"
    try:
        with path.open(encoding="utf-8", newline="") as file:  # line ends stay as they are
            old = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise GauntletError(f"{path} cannot be read: {error}.") from None
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise GauntletError(f"{path} must hold {begin} and, after it, {end}, each once; the table goes between them.")
    ends = "\r\n" if "\r\n" in old else "\n"
    before, after = old[: old.index(begin) + len(begin)], old[old.index(end) :]
    new = before + ends + text.strip("\n").replace("\n", ends) + ends + after
    if new != old:
        write_text(new, path)
    return new != old
