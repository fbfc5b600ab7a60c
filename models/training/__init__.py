"""Recipes: how models are trained."""

from __future__ import annotations

from .recipe import EpochLog, Progress, Recipe

__all__ = ["EpochLog", "Progress", "Recipe"]
