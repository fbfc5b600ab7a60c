"""Networks, the tap that reads their features, checkpoints, and (in `training`) the recipes that train them."""

from __future__ import annotations

from .build import create_module
from .checkpoint import CheckpointStore, load_weights
from .tap import Tap

__all__ = ["CheckpointStore", "Tap", "create_module", "load_weights"]
