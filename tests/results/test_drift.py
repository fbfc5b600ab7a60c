"""The drift check: quiet when nothing changed, red when something did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import (
    Report,
    auroc_interval,
    compare,
    make_baseline,
    read_baseline,
    render,
    write_baseline,
)
from gauntlet.results.drift import BASELINE_COLUMNS
from gauntlet.results.frame import empty_frame

Builder = Callable[..., pd.DataFrame]


@pytest.fixture
def frame(make: SimpleNamespace, frame_of: Builder) -> pd.DataFrame:
    return frame_of(
        make.attacked(0.4, "pgd", 8 / 255, model="zeta"),
        make.accuracy(0.98765432, model="zeta"),
        make.accuracy(0.97, model="alpha", severity=3),
        make.detected(0.9, "msp", "glyphs"),
        make.calibrated(),
    )


def changed(frame: pd.DataFrame, metric: str, **values: object) -> pd.DataFrame:
    frame = frame.copy()
    rows = (frame["metric"] == metric) & (frame["class"] == "")
    assert rows.any()
    for column, value in values.items():
        frame.loc[rows, column] = value
    return frame


def verdicts(report: Report) -> dict[str, str]:
    return dict(zip(report.rows["metric"], report.rows["verdict"], strict=True))


def test_a_baseline_holds_headline_metrics_of_all_classes_sorted(frame: pd.DataFrame) -> None:
    baseline = make_baseline(frame)
    assert list(baseline.columns) == list(BASELINE_COLUMNS)
    assert list(zip(baseline["evaluator"], baseline["model"], baseline["metric"], strict=True)) == [
        ("accuracy", "alpha", "accuracy"),
        ("accuracy", "zeta", "accuracy"),
        ("attack", "zeta", "robust_accuracy"),
        ("calibration", "cnn", "ece"),
        ("ood", "cnn", "auroc"),
    ]
    assert baseline.loc[1, "value"] == 0.987654


def test_a_baseline_of_chosen_metrics(frame: pd.DataFrame) -> None:
    assert list(make_baseline(frame, ["fpr95"])["metric"]) == ["fpr95"]
    with pytest.raises(GauntletError, match="metric 'fpr59'; did you mean 'fpr95'"):
        make_baseline(frame, ["fpr59"])
    with pytest.raises(GauntletError, match="nothing to freeze"):
        make_baseline(empty_frame())


def test_a_baseline_reads_back_and_results_do_not_drift_from_themselves(frame: pd.DataFrame, tmp_path: Path) -> None:
    baseline = read_baseline(write_baseline(make_baseline(frame), tmp_path / "b.csv"))
    report = compare(baseline, frame)
    assert set(report.rows["verdict"]) == {"same"}
    assert len(report.rows) == len(baseline) == 5
    assert report.exit_status == 0
    assert report.summary == "5 same, 0 drifted, 0 missing, 0 new."


def test_hostile_names_match_themselves(make: SimpleNamespace, frame_of: Builder, tmp_path: Path, hostile: str) -> None:
    frame = frame_of(make.accuracy(model=hostile), make.detected(0.9, hostile, "NA", model="null"))
    baseline = read_baseline(write_baseline(make_baseline(frame), tmp_path / "b.csv"))
    assert verdicts(compare(baseline, frame)) == {"accuracy": "same", "auroc": "same"}


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        *((0.0299, "cannot tell"), (-0.0299, "cannot tell"), (0.0301, "drifted"), (-0.0301, "drifted")),
        *((0.0182, "cannot tell"), (0.0180, "same"), (-0.0180, "same")),  # 0.03 less 1.645 standard errors, 0.0119
    ],
)
def test_the_tolerance_is_a_floor(frame: pd.DataFrame, difference: float, verdict: str) -> None:
    """Both intervals have half width 0.01 here, which allows 0.02: less than the tolerance."""
    now = changed(frame, "auroc", value=0.9 + difference)
    report = compare(make_baseline(frame), now)
    assert verdicts(report)["auroc"] == verdict
    row = report.rows[report.rows["metric"] == "auroc"].iloc[0]
    assert (row["baseline"], row["allowed"]) == (0.9, 0.03)
    assert row["difference"] == pytest.approx(difference)


@pytest.mark.parametrize(("difference", "verdict"), [(0.0899, "cannot tell"), (0.0901, "drifted")])
def test_wide_intervals_allow_half_of_both(frame: pd.DataFrame, difference: float, verdict: str) -> None:
    """Half widths 0.06 before and 0.03 now: 0.09."""
    before = changed(frame, "auroc", ci_low=0.84, ci_high=0.96)
    value = 0.9 - difference
    now = changed(frame, "auroc", value=value, ci_low=value - 0.03, ci_high=value + 0.03)
    assert verdicts(compare(make_baseline(before), now))["auroc"] == verdict


@pytest.mark.parametrize("auroc", [0.8, 0.95, 1.0])
def test_a_detector_whose_sign_was_flipped_turns_red(make: SimpleNamespace, frame_of: Builder, auroc: float) -> None:
    """With the intervals that the scores of a small test set give."""
    rng = np.random.default_rng(0)
    shift = {0.8: 1.19, 0.95: 2.33, 1.0: 50.0}[auroc]
    id_scores, ood_scores = rng.normal(0, 1, 200), rng.normal(shift, 1, 100)

    def result(sign: int) -> pd.DataFrame:
        low, high = auroc_interval(sign * id_scores, sign * ood_scores)
        value = (sign * ood_scores[:, None] > sign * id_scores).mean()
        measurement = make.measured("auroc", value)
        measurement = type(measurement)("auroc", value, low, high, 300)
        names = {"evaluator": "ood", "detector": "msp", "ood_dataset": "glyphs"}
        return frame_of(make.cell(make.ok(measurement), **names), make.accuracy())

    report = compare(make_baseline(result(1)), result(-1))
    assert report.exit_status == 1
    assert verdicts(report) == {"auroc": "drifted", "accuracy": "same"}
    text = render(report.table(), "plain")
    assert "msp" in text
    assert "drifted" in text
    assert "accuracy" not in text


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (float("inf"), float("inf"), "same"),
        (float("nan"), float("nan"), "same"),
        (1.0, float("nan"), "drifted"),
        (float("nan"), 1.0, "drifted"),
        (1.0, float("inf"), "drifted"),
    ],
)
def test_values_that_are_not_finite_equal_only_themselves(
    frame: pd.DataFrame, before: float, now: float, verdict: str
) -> None:
    report = compare(make_baseline(changed(frame, "auroc", value=before)), changed(frame, "auroc", value=now))
    assert verdicts(report)["auroc"] == verdict


def test_an_interval_without_end_does_not_allow_everything(frame: pd.DataFrame) -> None:
    wide = changed(frame, "auroc", ci_low=-np.inf, ci_high=np.inf)
    assert verdicts(compare(make_baseline(wide), changed(wide, "auroc", value=0.1)))["auroc"] == "drifted"


def test_a_cell_that_is_gone_or_not_ok_is_missing_and_says_why(
    make: SimpleNamespace, frame_of: Builder, frame: pd.DataFrame
) -> None:
    now = frame_of(
        make.broken("failed", "CUDA | error", evaluator="attack", attack="pgd", epsilon=8 / 255, model="zeta"),
        make.cell(None, evaluator="accuracy", model="zeta"),
        make.accuracy(0.97, model="alpha", severity=3),
        make.detected(0.9, "msp", "glyphs"),
        make.broken("failed", "not in the baseline", evaluator="ood", detector="new", ood_dataset="glyphs"),
    )
    report = compare(make_baseline(frame), now)
    missing = report.rows[report.rows["verdict"] == "missing"]
    assert dict(zip(missing["metric"], missing["reason"], strict=True)) == {
        "robust_accuracy": "failed: CUDA | error",
        "accuracy": "planned but not computed",
        "ece": "not planned",
    }
    assert report.exit_status == 2
    assert "missing (failed: CUDA | error)" in render(report.table(), "plain")
    assert compare(make_baseline(frame), changed(now, "auroc", value=0.1)).exit_status == 1


def test_new_measurements_are_listed_and_harmless(
    make: SimpleNamespace, frame_of: Builder, frame: pd.DataFrame
) -> None:
    baseline = make_baseline(frame).query("model != 'alpha'")
    report = compare(baseline, frame)
    assert report.exit_status == 0
    assert report.summary == "4 same, 0 drifted, 0 missing, 1 new."
    assert report.table().rows == ()
    assert len(report.table(only_bad=False).rows) == 5


def test_per_class_rows_and_other_metrics_do_not_count(frame: pd.DataFrame) -> None:
    now = frame.copy()
    now.loc[now["class"] != "", "value"] = 0.0
    now.loc[now["metric"] == "nll", "value"] = 99.0
    assert compare(make_baseline(frame), now).exit_status == 0


def test_epsilon_matches_however_it_was_computed(make: SimpleNamespace, frame_of: Builder) -> None:
    before, now = (frame_of(make.attacked(0.4, "pgd", epsilon)) for epsilon in (0.1 + 0.2, 0.3))
    assert compare(make_baseline(before), now).exit_status == 0


def test_results_of_another_suite_are_suspected(make: SimpleNamespace, frame_of: Builder, frame: pd.DataFrame) -> None:
    report = compare(make_baseline(frame), frame_of(make.accuracy(model="another")))
    assert report.exit_status == 2
    assert report.summary.endswith("are they of the same suite?")


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_an_impossible_tolerance_is_refused(frame: pd.DataFrame, tolerance: float) -> None:
    with pytest.raises(GauntletError, match="tolerance must be a number >= 0"):
        compare(make_baseline(frame), frame, tolerance=tolerance)


HEADER = ",".join(BASELINE_COLUMNS)
ROW = "accuracy,cnn,digits,0,,,,,,,measured,accuracy,0.9,0.8,0.95,100"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,value\ncnn,1\n", "lacks the column 'evaluator'"),
        (HEADER + "\n", "holds no rows; `gauntlet baseline` writes one"),
        (f"{HEADER}\n{ROW}\n{ROW}\n", "holds row 3 twice"),
        (f"{HEADER}\n{ROW.replace('0.9,', 'high,')}\n", "row 2: value must be a number or empty, got 'high'"),
        (f"{HEADER}\n{ROW.replace('100', '1.5')}\n", "row 2: n must be a whole number or empty, got '1.5'"),
        (f'{HEADER}\n{ROW},"\n', "cannot be read as CSV"),
    ],
)
def test_what_is_not_a_baseline_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "baseline.csv"
    path.write_text(text)
    with pytest.raises(GauntletError, match=message):
        read_baseline(path)


def test_an_absent_baseline_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GauntletError, match=r"no file .*absent.csv"):
        read_baseline(tmp_path / "absent.csv")


class TestCannotTell:
    """Neither shown to differ by more than is allowed nor shown not to."""

    def test_it_never_changes_the_exit_status_and_says_why(self, frame: pd.DataFrame) -> None:
        report = compare(make_baseline(frame), changed(frame, "auroc", value=0.92))
        assert verdicts(report)["auroc"] == "cannot tell"
        assert report.exit_status == 0
        assert report.summary == "4 same, 1 cannot tell, 0 drifted, 0 missing, 0 new."
        assert "cannot tell (too few images)" in render(report.table(only_bad=False), "plain")
        assert report.sentences == []

    def test_equal_values_of_as_many_images_are_the_same_however_few(self, frame: pd.DataFrame) -> None:
        wide = changed(frame, "auroc", ci_low=0.5, ci_high=1.0)
        assert verdicts(compare(make_baseline(wide), wide))["auroc"] == "same"
        assert verdicts(compare(make_baseline(wide), changed(wide, "auroc", n=50)))["auroc"] == "cannot tell"

    def test_the_pairing_tells_what_two_intervals_cannot(self, frame: pd.DataFrame) -> None:
        """Half an interval of 0 for results that are equal image by image, a narrow one for those that nearly are."""
        now = changed(frame, "auroc", value=0.92)
        before = make_baseline(frame)
        for half, verdict in ((0.0, "same"), (0.005, "same"), (0.02, "cannot tell")):
            report = compare(before, now, noise=lambda row, half=half: half if row["metric"] == "auroc" else None)
            assert verdicts(report)["auroc"] == verdict

    def test_a_metric_without_an_interval_is_compared_by_its_value(self, frame: pd.DataFrame) -> None:
        bare = changed(frame, "auroc", ci_low=np.nan, ci_high=np.nan)
        assert verdicts(compare(make_baseline(bare), changed(bare, "auroc", value=0.92)))["auroc"] == "same"
