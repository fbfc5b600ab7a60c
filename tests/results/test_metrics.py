"""What is declared of each metric is complete and true."""

from __future__ import annotations

import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import METRICS, headline_metrics, metric_named
from gauntlet.results.metrics.calibration import BINNED
from gauntlet.results.metrics.detection import DETECTION
from gauntlet.results.metrics.robust_ood import ADAPTIVE
from gauntlet.results.metrics.selective import SELECTIVE


def test_metrics_are_found_by_their_name() -> None:
    assert all(name == known.name for name, known in METRICS.items())


def test_a_baseline_holds_the_four_headline_metrics() -> None:
    assert set(headline_metrics()) == {"accuracy", "robust_accuracy", "auroc", "ece"}


@pytest.mark.parametrize("name", METRICS)
def test_each_is_described_and_has_a_range(name: str) -> None:
    known = metric_named(name)
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
    assert metric_named(name).higher_is_better is better


def test_what_the_bootstrap_computes_is_declared_so() -> None:
    declared = {name for name, known in METRICS.items() if known.interval.startswith("bootstrap")}
    binned = {*BINNED, *(f"{name}_scaled" for name in BINNED)}
    others = {name for name in binned if name.startswith(("ece_corrected", "signed_gap"))}
    selective = {*SELECTIVE, *ADAPTIVE, "scod_aurc", "aupr_error", "aupr_success"}
    assert declared == {*DETECTION, *binned, *selective} - {"auroc", "autc", *others}


def test_a_plug_ins_metric_has_only_its_name() -> None:
    known = metric_named("my-metric")
    assert (known.title, known.higher_is_better, known.percent, known.headline) == ("my-metric", None, False, False)
    with pytest.raises(GauntletError, match="must have a name"):
        metric_named("")
