"""Ensembles of detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..registry import DETECTORS, GauntletError, Selected, detector, select_one
from .base import Detector, build_detector, check_scores
from .numerics import double
from .outputs import Head, Outputs

Spec = str | dict[str, Any]


@detector(
    "combine",
    needs=("logits", "features", "labels"),
    reference="logistic weights as Lee, Lee, Lee, Shin 2018, arXiv 1807.03888",
    tags=("post-hoc", "ensemble"),
)
class Combine(Detector):
    """Several detectors as one: the mean of their standardised scores or ranks, or a logistic regression on them.

    Scores are standardised by mean and deviation over validation images; a rank is the share of validation images that
    score less, half of those that score the same, so that images beyond all of them tie. The regression (L2 penalty of
    scikit-learn's default) tells validation images from validation outliers: the suite's ``tune: outliers`` where it
    names some, synthetic ones otherwise. It is no fair row where test outliers are like those.

    Args:
        detectors: Names, or specs as in a suite.
        how: ``standardised``, ``ranks`` or ``logistic``.

    Raises:
        GauntletError: There is no detector, or one is unknown.
    """

    needs_val = True

    def __init__(
        self,
        detectors: list[Spec] = ["msp", "mahalanobis"],  # noqa: B006 (never changed)
        how: Literal["standardised", "ranks", "logistic"] = "standardised",
    ) -> None:
        if not detectors:
            raise GauntletError("Detector 'combine' needs at least one of detectors.")
        self.members = [build_detector(one) for one in self.parts({"detectors": detectors})]
        self.how = how
        self.needs_outliers = how == "logistic" or any(member.needs_outliers for member in self.members)  # type: ignore[misc]
        self._known: Tensor | None = None  # scores of validation images (members, N), each row in rising order
        self._weights: Tensor | None = None  # (members,)

    @staticmethod
    def parts(parameters: Mapping[str, Any]) -> list[Selected]:
        """The detectors."""
        return [select_one(DETECTORS, spec) for spec in parameters["detectors"]]

    @classmethod
    def needs_of(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """Whatever one of the detectors needs."""
        return tuple(dict.fromkeys(need for part in cls.parts(parameters) for need in part.needs))

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Fit each detector, and look at its scores of validation images.

        Raises:
            GauntletError: One cannot be fitted, or there are no validation images.
        """
        held_out = self.validation(val)
        if not len(held_out):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted to an empty validation set.")
        if "features" in self.needs:
            self.projected_features(train)
        for member in self.members:
            if member.needs_fit:
                member.fit(train.restricted_to(member.needs), held_out.restricted_to(member.needs), head)
        self._known = self._scores(held_out).sort(dim=1).values
        self._weights = None if self.how == "logistic" else self._known.new_ones(len(self.members)) / len(self.members)

    def fit_outliers(self, inside: Outputs, outside: Outputs) -> None:
        """Find the logistic weights from validation images and validation outliers."""
        from sklearn.linear_model import LogisticRegression

        for member in self.members:
            if member.needs_outliers:
                member.fit_outliers(inside.restricted_to(member.needs), outside.restricted_to(member.needs))
        if self.how == "logistic":
            rows = torch.cat([self._standard(self._scores(side)) for side in (inside, outside)], dim=1).T
            is_outside = [0] * len(inside) + [1] * len(outside)
            found = LogisticRegression(class_weight="balanced").fit(rows.cpu().numpy(), is_outside)
            self._weights = torch.from_numpy(found.coef_[0]).to(rows)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), float64."""
        weights, scores = self.fitted(self._weights), self._scores(outputs)
        return weights @ (self._ranks(scores) if self.how == "ranks" else self._standard(scores))

    def _scores(self, outputs: Outputs) -> Tensor:
        """Scores (members, N) in float64."""
        views = [(member, outputs.restricted_to(member.needs)) for member in self.members]
        return torch.stack([check_scores(member.score(view), len(view), member.name) for member, view in views])

    def _standard(self, scores: Tensor) -> Tensor:
        known = double(self.fitted(self._known))
        spread = known.std(dim=1, keepdim=True, correction=0)
        return (scores - known.mean(dim=1, keepdim=True)) / spread.masked_fill(spread <= 1e-12, 1.0)

    def _ranks(self, scores: Tensor) -> Tensor:
        known, scores = self.fitted(self._known), scores.contiguous()
        below, upto = (torch.searchsorted(known, scores, right=right) for right in (False, True))
        return double(below + upto) / (2 * known.shape[1])
