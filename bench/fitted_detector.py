"""Detectors fitted for one row, shared by every evaluator that asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..detectors import Detector, build_detector, check_scores
from ..registry import GauntletError, NotAvailable, Selected
from .tuning import tune

if TYPE_CHECKING:
    from ..detectors import Outputs
    from .plan import Row
    from .workbench import Workbench


class FittedDetector:
    """A detector, tuned and fitted for a row, that scores no set of images twice.

    Attributes:
        detector: The detector itself.
        choices: The hyper-parameters that tuning chose.

    Raises:
        NotAvailable: The model does not yield what it needs, or there is nothing to fit it to.
    """

    def __init__(self, chosen: Selected, row: Row, bench: Workbench) -> None:
        self._label = chosen.label
        tuned, self.choices = tune(chosen, row, bench)
        self.detector = fitted_detector(tuned, row, bench.outputs(row.dataset, "test"), bench)

    def scores(self, outputs: Outputs) -> np.ndarray:
        """Scores (N,) in float64, checked; kept with the outputs."""
        return outputs.once(("scores", self), lambda: self._score(outputs))

    def _score(self, outputs: Outputs) -> np.ndarray:
        return np.asarray(checked_scores(self.detector, outputs, self._label).cpu())


def checked_scores(detector: Detector, outputs: Outputs, label: str) -> Tensor:
    """Scores (N,) in float64 of images whose outputs are finite.

    Raises:
        GauntletError: What the detector reads, or what it gives, is NaN or infinite for some image.
    """
    outputs = outputs.seen_by(detector.needs)
    for need in detector.needs:
        # An argmax or a bin would make a number of a NaN. What a model's own outputs may hold is its own affair.
        if not need.startswith("output:") and (bad := outputs.broken(need)):
            where = f" of {outputs.name}" if outputs.name else ""
            raise GauntletError(
                f"Detector {label!r} cannot score {bad} of {len(outputs)} images{where}: their {need} are not finite "
                "(NaN or infinite)."
            )
    return check_scores(detector.score(outputs), len(outputs), label)


def fitted_detector(chosen: Selected, row: Row, inside: Outputs, bench: Workbench) -> Detector:
    """The detector, fitted to what it wants of the row.

    Raises:
        NotAvailable: The model does not yield what it needs, or there is nothing to fit it to.
    """
    detector = build_detector(chosen)
    if "head" in detector.needs and inside.head is None:
        raise NotAvailable(f"{chosen.label} needs a head, but {bench.why_no_head()}.")
    for need in detector.needs:
        if need != "head" and inside.get(need) is None:
            raise NotAvailable(f"{chosen.label} needs {need}, which model {row.model.label} does not yield.")
    if detector.needs_fit:
        if reason := row.dataset.missing("train"):
            raise NotAvailable(reason)
        train = bench.outputs(row.dataset, "train", limit=bench.suite.fit_limit)
        val = bench.outputs(row.dataset, "val") if getattr(detector, "needs_val", False) else None
        seen = detector.needs
        detector.fit(train.seen_by(seen), None if val is None else val.seen_by(seen), inside.head)
    return detector
