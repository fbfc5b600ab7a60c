"""A detector is fitted once a row and scores no set of images twice, whichever evaluators ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gauntlet.bench.runner import run_suite
from gauntlet.detectors.knn import KNN

from .conftest import small_suite


def test_three_evaluators_share_one_fit_and_one_score_of_each_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fits, scored = [], []
    fit, score = KNN.fit, KNN.score

    def counted_fit(self: KNN, *arguments: Any) -> None:
        fits.append(self)
        fit(self, *arguments)

    def counted_score(self: KNN, outputs: Any) -> Any:
        scored.append(outputs)
        return score(self, outputs)

    monkeypatch.setattr(KNN, "fit", counted_fit)
    monkeypatch.setattr(KNN, "score", counted_score)
    suite = small_suite(
        detectors=[{"knn": {"k": 5}}],
        attacks=["fgsm", {"name": "pgd", "steps": 3}],
        epsilons=[0.2],
        evaluators=["ood", "open-set", "adversarial-detection"],
    )
    outcome = run_suite(suite, out=tmp_path / "out")
    assert set(outcome.counts) == {"ok"}
    assert len(fits) == 1
    assert len(scored) == len({id(outputs) for outputs in scored})
    # The test and validation splits, both OOD sets, and what each attack was made of and made.
    assert len(scored) == 4 + 2 * 2
