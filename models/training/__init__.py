"""Recipes: how models are trained."""

from __future__ import annotations

from .batch import Batch
from .hooks import Hook, LossOutput
from .recipe import EpochLog, Progress, Recipe
from .trainer import Trainer

__all__ = ["Batch", "EpochLog", "Hook", "LossOutput", "Progress", "Recipe", "Trainer"]
