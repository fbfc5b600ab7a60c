"""What is registered and cannot run here, and why."""

from __future__ import annotations

import importlib.util

from ..registry import Entry


def unavailable(entry: Entry) -> str:
    """Why a component cannot run here, in one sentence, or nothing: an optional package is absent, or it never can."""
    if reason := entry.meta.get("unavailable"):
        return f"{entry.name} cannot work here: {reason}."
    for package in entry.meta.get("extras", ()):
        if importlib.util.find_spec(package) is None:
            return f"{entry.name} needs the package {package}: pip install 'gauntlet-bench[{package}]'."
    return ""
