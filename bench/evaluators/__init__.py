"""Evaluators turn the jobs of one kind into measurements; each plans its cells and computes them."""

from __future__ import annotations

from .accuracy import Accuracy
from .adversarial_detection import AdversarialDetection
from .attack import AttackEvaluator
from .base import Evaluator
from .calibration import Calibration
from .checks import Checks
from .corruption import Corruption
from .ood import OOD
from .open_set import OpenSet
from .reconstruction import Reconstruction
from .representation import Representation

EVALUATORS: dict[str, Evaluator] = {
    evaluator.name: evaluator
    for evaluator in (
        Accuracy(),
        Calibration(),
        OOD(),
        OpenSet(),
        AttackEvaluator(),
        AdversarialDetection(),
        Checks(),
        Corruption(),
        Reconstruction(),
        Representation(),
    )
}

__all__ = ["EVALUATORS", "Evaluator"]
