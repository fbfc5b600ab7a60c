"""What is declared of each metric is complete and true."""

from __future__ import annotations

import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import HEADLINE, METRICS, metric
from gauntlet.results.bootstrap import CALIBRATION_METRICS, OOD_METRICS

NAMES = (
    *("accuracy", "robust_accuracy", "attack_success_rate", "median_norm", "forwards", "backwards"),
    *("auroc", "aupr_in", "aupr_out", "fpr95", "fpr95_id", "detection_error"),
    *("aupr_in_trapezoid", "aupr_out_trapezoid", "autc", "oscr"),
    *("check_passed", "check_figure", "seconds"),
    *("probe_accuracy", "knn1_accuracy", "knn5_accuracy", "knn20_accuracy", "knn200_accuracy"),
    *("purity", "nmi", "ari", "hungarian_accuracy", "silhouette", "near_duplicates"),
    *("precision_at_1", "precision_at_5", "precision_at_10", "mean_average_precision"),
    *("alignment", "uniformity", "effective_rank", "embedding_std", "contrastive_top1", "contrastive_top5"),
    *("mean_confidence", "temperature", "ece", "rms", "mce", "signed_gap", "nll", "brier"),
    *("ece_scaled", "rms_scaled", "mce_scaled", "signed_gap_scaled", "nll_scaled", "brier_scaled"),
)


def test_the_metrics_are_those_of_the_evaluators() -> None:
    assert sorted(METRICS) == sorted(NAMES)
    assert all(name == known.name for name, known in METRICS.items())


def test_a_baseline_holds_the_four_headline_metrics() -> None:
    assert set(HEADLINE) == {"accuracy", "robust_accuracy", "auroc", "ece"}


@pytest.mark.parametrize("name", NAMES)
def test_each_is_described_and_has_a_range(name: str) -> None:
    known = metric(name)
    assert known.title
    assert known.description.endswith(".")
    assert known.low < known.high
    assert not known.percent or (known.low >= -1 and known.high <= 1)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("auroc", True),
        ("accuracy", True),
        ("fpr95", False),
        ("ece", False),
        ("brier_scaled", False),
        ("signed_gap", None),
    ],
)
def test_directions(name: str, better: bool | None) -> None:
    assert metric(name).higher_is_better is better


def test_what_the_bootstrap_computes_is_declared_so() -> None:
    declared = {name for name, known in METRICS.items() if known.interval == "bootstrap"}
    scaled = {f"{name}_scaled" for name in CALIBRATION_METRICS}
    assert declared == {*OOD_METRICS, *CALIBRATION_METRICS, *scaled}


def test_a_plug_ins_metric_has_only_its_name() -> None:
    known = metric("my-metric")
    assert (known.title, known.higher_is_better, known.percent, known.headline) == ("my-metric", None, False, False)
    with pytest.raises(GauntletError, match="must have a name"):
        metric("")
