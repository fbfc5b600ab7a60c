"""The leaderboard page: one HTML file with every table, plot and provenance, that needs no network."""

from __future__ import annotations

from .build import build_page
from .findings import FINDERS, Finding, findings

__all__ = ["FINDERS", "Finding", "build_page", "findings"]
