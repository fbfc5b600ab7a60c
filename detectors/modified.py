"""Detectors of what is left after activations or weights are changed: ReAct, ASH, SCALE, VRA and DICE before others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..registry import DETECTORS, Entry, GauntletError, Selected, detector, select_one
from .ash import shaped
from .base import Detector, build_detector
from .outputs import Head, Outputs
from .scale import scaled

Spec = str | dict[str, Any]

_READABLE = {"logits", "features", "head", "labels"}
_FUNCTIONS = {"ash": shaped, "scale": scaled}


@detector(
    "modified",
    needs=("features", "head", "logits", "labels"),
    reference="a product of the modifiers' papers (see react, ash, scale, vra, dice) with those of the detectors",
    tags=("post-hoc", "features"),
)
class Modified(Detector):
    """Another detector's score of the features, the head and the logits that ``modifier`` leaves.

    In a suite ``{gen: {modifier: {react: {q: 0.9}}}}`` is short for it. Modifiers are ``react``, ``ash``, ``scale``,
    ``vra`` and ``dice``, with their parameters; with ``energy`` they are the detectors of these names. Training and
    validation outputs are modified likewise before the detector is fitted.

    Args:
        detector: The detector: a name, or a spec as in a suite; one that reads nothing but logits, features and head.
        modifier: The modifier, likewise.

    Raises:
        GauntletError: Either is unknown or cannot play its part.
    """

    _ready: bool | None = None

    def __init__(self, detector: Spec = "energy", modifier: Spec = "react") -> None:
        chosen = self.parts({"detector": detector, "modifier": modifier})
        self.inner, self.modifier = map(build_detector, chosen)
        self._function = _FUNCTIONS.get(chosen[1].entry.name)
        if self._function is None and not hasattr(self.modifier, "modify"):
            known = ", ".join(entry.name for entry in DETECTORS if _modifies(entry))
            raise GauntletError(f"Detector {self.modifier.name!r} modifies nothing; modifiers: {known}.")
        if lacking := set(self.inner.needs) - _READABLE:
            raise GauntletError(
                f"Detector {self.inner.name!r} reads {', '.join(sorted(lacking))}, which a modifier does not change: "
                "modify one that reads logits or features alone."
            )
        self.needs_val = self.inner.needs_val or self.modifier.needs_val  # type: ignore[misc]

    @staticmethod
    def parts(parameters: Mapping[str, Any]) -> list[Selected]:
        """The detector and its modifier."""
        return [select_one(DETECTORS, parameters[key]) for key in ("detector", "modifier")]

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Fit the modifier, then the detector to what it leaves.

        Raises:
            GauntletError: One of them cannot be fitted.
        """
        self.full_features(train, fitting=True)
        self._ready = True
        if self.modifier.needs_fit:
            self.modifier.fit(train, val, self.required(head))
        if self.inner.needs_fit:
            changed = self._changed(train)
            self.inner.fit(changed, None if val is None else self._changed(val), changed.head)

    def score(self, outputs: Outputs) -> Tensor:
        """The detector's scores, shape (N,)."""
        self.fitted(self._ready)
        return self.inner.score(self._changed(outputs))

    def _changed(self, outputs: Outputs) -> Outputs:
        """The same images after the modifier."""
        features, head, _, _ = self.pull(outputs)
        if self._function is not None:
            features = self._function(features, **self.modifier.parameters)  # type: ignore[attr-defined]
        else:
            features, head = self.modifier.modify(features, head)  # type: ignore[attr-defined]
        return replace(outputs, features=features, projected=None, head=head, logits=head.logits(features))


def _modifies(entry: Entry) -> bool:
    return entry.name in _FUNCTIONS or hasattr(entry.factory, "modify")
