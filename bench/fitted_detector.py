"""Detectors fitted for one row, shared by every evaluator that asks for them."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..detectors import Detector, FunctionDetector, Head, Outputs, build_detector, check_scores
from ..models import kind_of, why_no_logits
from ..registry import GauntletError, NotAvailable, Selected
from .context import RowContext
from .guard import lent
from .kernels import ood_metrics
from .tuning import tuning_facts

#: Needs that mean nothing where a model gives probabilities.
_LEVELS = {"logits", "deflated-logits", "model", "passes", "members"}
_TRIED = 64  # images on which a detector is seen to read the level of logits


class FittedDetector:
    """A detector, tuned and fitted for a row, that scores no set of images twice.

    Attributes:
        detector: The detector itself.
        choices: The hyper-parameters that tuning chose.
        remark: That it was fitted to some of the training images only, where it was.

    Raises:
        NotAvailable: The model does not yield what it needs, or there is nothing to fit it to.
    """

    def __init__(self, chosen: Selected, context: RowContext) -> None:
        self._label = chosen.label
        tuned, self.choices = tune(chosen, context)
        inside = context.outputs(context.row.dataset, "test")
        self.detector = _fit(tuned, inside, context)
        self.remark = _cut(inside, context) if self.detector.needs_fit else ""

    def scores(self, outputs: Outputs) -> np.ndarray:
        """Scores (N,) in float64, checked; kept with the outputs."""
        return outputs.cached(("scores", self), lambda: self._score(outputs))

    def _score(self, outputs: Outputs) -> np.ndarray:
        return np.asarray(checked_scores(self.detector, outputs, self._label).cpu())


def fitted(chosen: Selected, context: RowContext) -> FittedDetector:
    """A detector of the suite, tuned and fitted for the row on the first call; labels are unique in a suite.

    Raises:
        NotAvailable: The model does not yield what it needs, or there is nothing to fit it to.
    """
    return context.once(("detector", chosen.label), lambda: FittedDetector(chosen, context))


def tune(chosen: Selected, context: RowContext) -> tuple[Selected, dict[str, Any]]:
    """The detector with the hyper-parameters of the highest validation AUROC, the first of equals, and those alone.

    They are chosen on validation images and validation outliers, never on test images.

    Raises:
        NotAvailable: The dataset has no validation images.
    """
    facts, row = tuning_facts(context.suite, chosen), context.row
    if not facts:
        return chosen, {}
    if reason := row.dataset.obstacle("val"):
        raise NotAvailable(f"{chosen.label} cannot be tuned: {reason}")
    inside, outside = context.outputs(row.dataset, "val"), context.validation_outliers()
    best, choice = -1.0, {}
    for values in itertools.product(*facts["grid"].values()):
        candidate = dict(zip(facts["grid"], values, strict=True))
        variant = replace(chosen, parameters={**chosen.parameters, **candidate})
        detector = _fit(variant, inside, context)
        sides = [checked_scores(detector, side, chosen.label) for side in (inside, outside)]
        auroc = ood_metrics(*sides)["auroc"]
        if auroc > best:
            best, choice = auroc, candidate
    return replace(chosen, parameters={**chosen.parameters, **choice}), choice


def checked_scores(detector: Detector, outputs: Outputs, label: str) -> Tensor:
    """Scores (N,) in float64 of images whose outputs are finite.

    Raises:
        GauntletError: What the detector reads, or what it gives, is NaN or infinite for some image.
    """
    outputs = outputs.restricted_to(detector.needs)
    for need in detector.needs:
        # An argmax or a bin would make a number of a NaN. What a model's own outputs may hold is its own affair.
        if not need.startswith("output:") and (bad := outputs.broken(need)):
            where = f" of {outputs.name}" if outputs.name else ""
            raise GauntletError(
                f"Detector {label!r} cannot score {bad} of {len(outputs)} images{where}: their {need} are not finite "
                "(NaN or infinite)."
            )
    return check_scores(ask(detector, "score", outputs, label), len(outputs), label)


def ask(detector: Detector, method: str, outputs: Outputs, label: str) -> Any:
    """What ``score``, ``predict`` or ``probabilities`` of a detector gives; one of the user's own is lent copies.

    Raises:
        GauntletError: It wrote into what it was handed.
    """
    if _is_ours(detector):
        return getattr(detector, method)(outputs)
    with lent(outputs, f"Detector {label!r}") as own:
        return getattr(detector, method)(own)


def _is_ours(detector: Detector) -> bool:
    made_of = detector.function if isinstance(detector, FunctionDetector) else type(detector)
    return getattr(made_of, "__module__", "").startswith("gauntlet.")


def _fit(chosen: Selected, inside: Outputs, context: RowContext) -> Detector:
    """The detector, fitted to what it wants of the row.

    Raises:
        NotAvailable: The model does not yield what it needs, or there is nothing to fit it to.
    """
    detector, row = build_detector(chosen), context.row
    if "head" in detector.needs and inside.head is None:
        raise NotAvailable(f"{chosen.label} needs a head, but {context.why_no_head()}.")
    for need in detector.needs:
        if need != "head" and inside.get(need) is None:
            raise NotAvailable(f"{chosen.label} needs {need}, which model {row.model.label} does not yield.")
    logits = inside.logits if _LEVELS & set(detector.needs) else None
    if logits is not None and (why := why_no_logits(logits, row.model.label)):
        raise NotAvailable(f"{chosen.label} reads logits, but {why}")
    if detector.needs_fit:
        if reason := row.dataset.obstacle("train"):
            raise NotAvailable(reason)
        train = context.outputs(row.dataset, "train", limit=context.fit_limit(_width(inside)))
        val = context.outputs(row.dataset, "val") if getattr(detector, "needs_val", False) else None
        seen = detector.needs
        inner = train.restricted_to(seen), None if val is None else val.restricted_to(seen)
        _fit_to(detector, *inner, inside.head, chosen.label)
        if detector.needs_outliers and inner[1] is not None:
            detector.fit_outliers(inner[1], context.validation_outliers().restricted_to(seen))
    if logits is not None and "logits" in detector.needs and kind_of(logits) == "log-probabilities":
        _refuse_levels(detector, inside, chosen.label, row.model.label)
    return detector


def _cut(inside: Outputs, context: RowContext) -> str:
    """That there are more training images than a detector is fitted to."""
    limit, train = context.fit_limit(_width(inside)), context.row.dataset
    if len(context.outputs(train, "train", limit=limit)) < limit:
        return ""
    count = len(context.images(train, "train"))
    return f"Fitted to {limit:,} of the {count:,} training images (fit_limit)." if count > limit else ""


def _width(inside: Outputs) -> int:
    """Numbers that a detector may keep of each training image, whatever other detectors of the suite need."""
    known = inside.projected_features if inside.head is None else inside.head.weight
    return 1 if known is None else known.shape[1]


def _refuse_levels(detector: Detector, inside: Outputs, label: str, model: str) -> None:
    """Log-probabilities are logits without a level: their log-sum-exp is 0 for every image.

    Raises:
        NotAvailable: The scores of a detector move with the level.
    """
    some = inside.subset(slice(0, _TRIED)).restricted_to(detector.needs)
    assert some.logits is not None
    raised = replace(some, logits=some.logits + torch.linspace(1, 5, len(some), device=some.logits.device)[:, None])
    plain, moved = (ask(detector, "score", part, label).double() for part in (some, raised))
    if not torch.allclose(plain, moved, rtol=1e-3, atol=1e-5):
        raise NotAvailable(
            f"{label} reads the level of logits, but model {model} gives log-probabilities, which have none (the "
            "log-sum-exp of every image is 0): let it return what comes before its log_softmax."
        )


def _fit_to(detector: Detector, train: Outputs, val: Outputs | None, head: Head | None, label: str) -> None:
    if _is_ours(detector):
        detector.fit(train, val, head)
        return
    with ExitStack() as stack:
        own, held_out = (
            None if one is None else stack.enter_context(lent(one, f"Detector {label!r}")) for one in (train, val)
        )
        assert own is not None
        detector.fit(own, held_out, own.head)
