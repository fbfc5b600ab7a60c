"""Folders that the environment names: the cache of trained models, and the data."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """``GAUNTLET_CACHE``, or `gauntlet` in the user's cache directory."""
    if given := os.environ.get("GAUNTLET_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "gauntlet" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gauntlet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gauntlet"


def data_root(given: str | Path | None = None) -> Path:
    """What the user gave, else ``GAUNTLET_DATA``, else `data` in the cache folder."""
    return Path(given or os.environ.get("GAUNTLET_DATA") or cache_folder() / "data").expanduser()
