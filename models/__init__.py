"""Networks, the tap that reads their features, checkpoints, and (in `training`) the recipes that train them."""

from __future__ import annotations

from .build import create_module
from .calibrators import Calibrated, Calibrator
from .checkpoint import CheckpointStore, load_weights, weights_fingerprint
from .standard_form import kind_of, why_no_logits
from .tap import Tap

__all__ = [
    "Calibrated",
    "Calibrator",
    "CheckpointStore",
    "Tap",
    "create_module",
    "kind_of",
    "load_weights",
    "weights_fingerprint",
    "why_no_logits",
]
