"""The order that attacks are known to have on an adversarially trained MNIST model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gauntlet.bench.runner import run_suite
from gauntlet.results import load_results

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
SUITE = Path(__file__).parents[1] / "examples" / "mnist-robust.yaml"
ORDER = ["FGSM", "PGD-100", "PGD-100 x 10", "AutoAttack"]


@pytest.mark.skipif("GAUNTLET_DATA" not in os.environ, reason="needs MNIST under GAUNTLET_DATA")
def test_each_attack_is_stronger_than_the_one_before(tmp_path) -> None:
    """Madry's network: 96.4, 92.5, 89.6 and 88.5 % (Madry et al. 2017; Croce, Hein 2020)."""
    outcome = run_suite(SUITE, out=tmp_path)
    assert outcome.complete
    frame = load_results(tmp_path)
    robust = frame[(frame["evaluator"] == "attack") & (frame["metric"] == "robust_accuracy")].set_index("attack")
    figures = [robust.loc[label, "value"] for label in ORDER]
    assert figures == sorted(figures, reverse=True)
    fgsm, single, restarts, strongest = figures
    assert fgsm > single >= restarts >= strongest
    assert fgsm - strongest > 0.02
    assert strongest > 0.5  # a robust model, not a broken one
    assert robust.loc["worst-case linf", "value"] >= strongest - 0.01  # nothing else finds much more
