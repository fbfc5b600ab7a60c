"""Pivots of the tidy frame: order, text of a cell, seeds, and the sentence when one is not possible."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gauntlet.registry import GauntletError
from gauntlet.results import mean_interval, pivot, select
from gauntlet.results.frame import empty_frame

Builder = Callable[..., pd.DataFrame]


def test_rows_and_columns_stand_in_order_of_the_plan(make: SimpleNamespace, text_frame_of: Builder) -> None:
    """Also where the first model has not all of them, and equal outer headers stay together."""
    frame = text_frame_of(
        make.attacked(0.9, "z", 0.2, model="b"),
        make.attacked(0.8, "a", 0.3, model="b"),
        make.attacked(0.7, "z", 0.1, model="a"),
        make.attacked(0.6, "z", 0.2, model="a"),
    )
    table = pivot(frame, ["attack", "epsilon"], ["model"], "robust_accuracy")
    assert table.rows == (("z", "0.2"), ("z", "0.1"), ("a", "0.3"))
    assert table.columns == (("b",), ("a",))
    assert table.cells == (("90.0 ± 1.0", "60.0 ± 1.0"), ("–", "70.0 ± 1.0"), ("80.0 ± 1.0", "–"))
    assert (table.title, table.row_names) == ("Robust accuracy (%)", ("attack", "epsilon"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "12.3 ± 1.0"),
        ({"decimals": 2}, "12.35 ± 1.00"),
        ({"percent": False}, "0.123 ± 0.010"),
        ({"intervals": False}, "12.3"),
    ],
)
def test_a_value_is_percent_or_fraction_with_or_without_interval(
    make: SimpleNamespace, text_frame_of: Builder, options: dict[str, object], text: str
) -> None:
    table = pivot(text_frame_of(make.accuracy(0.12346)), ["model"], ["dataset"], "accuracy", **options)  # type: ignore[arg-type]
    assert table.cells == ((text,),)


@pytest.mark.parametrize(("value", "text"), [(float("inf"), "inf"), (float("nan"), "nan"), (-0.0001, "0.000")])
def test_odd_values_have_a_text(make: SimpleNamespace, text_frame_of: Builder, value: float, text: str) -> None:
    result = make.ok(make.measured("median_norm", value, half=float("nan")))
    table = pivot(text_frame_of(make.cell(result, evaluator="attack")), ["model"], [], "median_norm")
    assert table.cells == ((text,),)


def test_a_cell_that_is_not_ok_shows_its_status_and_a_note_its_reason(
    make: SimpleNamespace, text_frame_of: Builder
) -> None:
    table = pivot(
        text_frame_of(
            make.accuracy(),
            make.broken("failed", "out of luck", evaluator="accuracy", model="bad"),
            make.cell(None, evaluator="accuracy", model="late"),
            make.broken("skipped", "another evaluator's", evaluator="ood"),
        ),
        ["model"],
        [],
        "accuracy",
    )
    assert table.cells == (("98.0 ± 1.0",), ("failed",), ("missing",))
    assert table.notes[1:] == ("failed: out of luck", "missing: planned but not computed")


def test_only_the_first_reasons_are_spelled_out(make: SimpleNamespace, text_frame_of: Builder) -> None:
    bad = [make.broken("failed", f"reason {i}", evaluator="accuracy", model=str(i)) for i in range(9)]
    table = pivot(text_frame_of(make.accuracy(), *bad), ["model"], [], "accuracy")
    assert table.notes[-1] == "... and 3 more reasons; results.csv has them all."


def test_seeds_are_averaged_with_an_interval_over_images_and_trainings(
    make: SimpleNamespace, text_frame_of: Builder
) -> None:
    values = [0.90, 0.93, 0.91]
    frame = text_frame_of(*(make.accuracy(value, seed=seed) for seed, value in enumerate(values)))
    over = {name: pivot(frame, ["model"], [], "accuracy", decimals=6, over=name) for name in ("", "images", "seeds")}
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert half == pytest.approx((mean_interval(values)[1] - mean_interval(values)[0]) / 2)
    error, own = stats.sem(values), 0.01 / stats.norm.ppf(0.975)  # each seed has 0.01 over the images
    degrees = 2 * (1 + (own / error) ** 2) ** 2  # Satterthwaite's
    halves = {"": stats.t.ppf(0.975, degrees) * np.hypot(error, own), "images": 0.01, "seeds": half}
    for name, table in over.items():
        assert table.cells == ((f"{100 * sum(values) / 3:.6f} ± {100 * halves[name]:.6f}",),)
    start = "Mean over 3 seeds; ± is half the 95 % interval of that mean, over"
    assert over[""].notes == (f"{start} images and seeds.",)
    assert over["images"].notes == (f"{start} images (the trainings taken as they are).",)
    assert over["seeds"].notes == (f"{start} seeds (these images taken as they are).",)
    assert pivot(frame, ["model"], [], "accuracy", intervals=False).notes == ("Mean over 3 seeds.",)
    assert len(pivot(frame, ["model", "seed"], [], "accuracy").rows) == 3


def test_a_mean_over_fewer_seeds_than_planned_is_marked(make: SimpleNamespace, text_frame_of: Builder) -> None:
    table = pivot(
        text_frame_of(
            make.broken("failed", "no memory", evaluator="accuracy", seed=0),
            make.accuracy(0.5, seed=1),
            make.broken("failed", "x", evaluator="accuracy", seed=0, model="never"),
            make.broken("timeout", "x", evaluator="accuracy", seed=1, model="never"),
        ),
        ["model"],
        [],
        "accuracy",
    )
    assert table.cells == (("50.0 ± 1.0 (1/2)",), ("failed",))
    assert table.notes[0].startswith("Mean over up to 2 seeds; ")
    assert "failed: no memory" in table.notes


def test_classes_count_only_where_they_are_asked_for(make: SimpleNamespace, text_frame_of: Builder) -> None:
    frame = text_frame_of(make.accuracy(0.98))
    assert pivot(frame, ["model"], [], "accuracy").cells == (("98.0 ± 1.0",),)
    assert pivot(frame, ["class"], [], "accuracy").rows == (("",), ("1",))


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(8 / 255, "8/255"), (51 / 255, "0.2"), (0.3, "0.3"), (0.0313725, "0.0313725"), (1.0, "1"), (300 / 255, "1.17647")],
)
def test_an_epsilon_is_a_fraction_of_255_where_it_came_as_one(
    make: SimpleNamespace, text_frame_of: Builder, epsilon: float, text: str
) -> None:
    frame = text_frame_of(make.attacked(0.5, "pgd", epsilon), make.attacked(0.4, "pgd", 0.5))
    assert pivot(frame, ["epsilon"], ["model"], "robust_accuracy").rows == ((text,), ("0.5",))


def test_a_selection_takes_fractions(make: SimpleNamespace, text_frame_of: Builder) -> None:
    frame = text_frame_of(make.attacked(0.5, "pgd", 8 / 255), make.attacked(0.4, "pgd", 0.5))
    assert select(frame, {"epsilon": "8/255"})["epsilon"].unique() == [8 / 255]


def test_several_metrics_stand_side_by_side(make: SimpleNamespace, text_frame_of: Builder) -> None:
    table = pivot(text_frame_of(make.calibrated()), ["model"], ["metric"], ["ece", "nll"])
    assert table.columns == (("ECE (%)",), ("NLL",))
    assert table.cells == (("5.0 ± 1.0", "0.300 ± 0.010"),)


def test_a_pivot_that_is_not_unique_says_which_column_would_make_it_so(
    make: SimpleNamespace, text_frame_of: Builder
) -> None:
    frame = text_frame_of(*(make.attacked(e, a, e) for a in ("pgd", "fgsm") for e in (0.1, 0.3)))
    with pytest.raises(GauntletError, match=r"attack 'pgd'.*; add 'epsilon' to its rows or columns"):
        pivot(frame, ["attack"], ["model"], "robust_accuracy")
    with pytest.raises(GauntletError, match="add 'attack' and 'epsilon' to its rows"):
        pivot(frame, ["model"], [], "robust_accuracy")
    with pytest.raises(GauntletError, match="the only one"):
        pivot(frame, [], [], "robust_accuracy")


def test_unknown_names_and_an_empty_selection_name_the_nearest(make: SimpleNamespace, text_frame_of: Builder) -> None:
    frame = text_frame_of(make.accuracy())
    with pytest.raises(GauntletError, match="no column 'modle'; did you mean 'model'"):
        pivot(frame, ["modle"], [], "accuracy")
    with pytest.raises(GauntletError, match="metric 'acuracy'; did you mean 'accuracy'"):
        pivot(frame, ["model"], [], "acuracy")
    with pytest.raises(GauntletError, match="No result has the metric 'accuracy'"):
        pivot(empty_frame(), ["model"], [], "accuracy")


def test_a_selection_takes_values_patterns_and_numbers(make: SimpleNamespace, text_frame_of: Builder) -> None:
    frame = text_frame_of(*(make.attacked(e, "pgd", e, model=m) for m in ("cnn-a", "cnn-b", "[x]") for e in (0.1, 0.3)))
    assert set(select(frame, {"model": "cnn-*"})["model"]) == {"cnn-a", "cnn-b"}
    assert set(select(frame, {"model": "[x]"})["model"]) == {"[x]"}
    assert set(select(frame, {"model": "cnn-a", "epsilon": "0.30"})["epsilon"]) == {0.3}


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"model": "cn"}, "No result has model 'cn'; did you mean 'cnn'"),
        ({"epsilon": "0.2"}, "No result has epsilon '0.2'"),
        ({"epsilon": "1/0"}, "epsilon is a number, got '1/0'"),
        ({"model": ["cn", "x"]}, "No result has model 'cn' or 'x'; did you mean 'cnn'"),
        ({"model": ["cnn", "cn"]}, "No result has model 'cn'; did you mean 'cnn'"),
        ({"model": ["c*", "x*"]}, "No result has model 'x\\*'"),
        ({"epsilon": ["0.3", "3/10", "0.2"]}, "No result has epsilon '0.2'"),
        ({"epsilon": "big"}, "epsilon is a number, got 'big'"),
        ({"modle": "cnn"}, "no column 'modle'"),
    ],
)
def test_a_selected_value_without_rows_is_one_sentence_also_beside_others(
    make: SimpleNamespace, text_frame_of: Builder, conditions: dict[str, str], message: str
) -> None:
    with pytest.raises(GauntletError, match=message):
        select(text_frame_of(make.attacked(0.5, "pgd", 0.3)), conditions)
