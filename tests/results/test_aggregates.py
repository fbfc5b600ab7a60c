"""Means say over what, are over the same cells in every row of a table, and lose no column to one that failed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet.registry import GauntletError
from gauntlet.results import Facts
from gauntlet.results.aggregates import means
from gauntlet.results.formats import render
from gauntlet.results.page.build import cards
from gauntlet.results.presets import PRESETS

Builder = Callable[..., pd.DataFrame]
FAR = Facts(ood_group="far")


@pytest.fixture
def scored(make: SimpleNamespace) -> Callable[..., Any]:
    """A cell of a detector on a far OOD set; a text instead of a value is a status."""

    def cell(value: float | str, detector: str, on: str = "noise", /, model: str = "A", **params: Any) -> Any:
        where = {"evaluator": "ood", "detector": detector, "ood_dataset": on, "model": model}
        params = {"detector": {"name": detector}, **params}
        if isinstance(value, str):
            return make.broken(value, f"{detector} broke", facts=FAR, params=params, **where)
        return make.cell(make.ok(make.measured("auroc", value)), facts=FAR, params=params, **where)

    return cell


def test_means_of_two_models_are_over_what_both_have(scored: Callable[..., Any], frame_of: Builder) -> None:
    frame = frame_of(
        scored(0.1, "msp"), scored(0.3, "react"), scored(0.1, "msp", model="B"), scored("skipped", "react", model="B")
    )
    (table,) = PRESETS["safety"](frame)
    assert table.body.value[:, 0].tolist() == [0.1, 0.1]
    assert "a: Mean over detector msp; not over detector react, which not all have." in table.notes


def test_or_each_over_its_own_and_marked(scored: Callable[..., Any], frame_of: Builder) -> None:
    frame = frame_of(
        scored(0.1, "msp"), scored(0.3, "react"), scored(0.1, "msp", model="B"), scored("skipped", "react", model="B")
    )
    (table,) = PRESETS["safety"](frame, means="own")
    assert table.body.value[:, 0].tolist() == pytest.approx([0.2, 0.1])
    assert {"a: Mean over detector msp, react.", "b: Mean over detector msp; not over detector react."} <= {
        *table.notes
    }
    assert "".join(table.row_marks) == "ab"


def test_what_was_never_planned_for_a_model_counts_as_lacking(scored: Callable[..., Any], frame_of: Builder) -> None:
    frame = frame_of(scored(0.1, "msp"), scored(0.3, "react"), scored(0.5, "msp", model="B"))
    (table,) = PRESETS["safety"](frame)
    assert table.body.value[:, 0].tolist() == [0.1, 0.5]


def test_where_nothing_is_common_each_mean_is_over_its_own(scored: Callable[..., Any], frame_of: Builder) -> None:
    frame = frame_of(scored(0.1, "msp"), scored(0.3, "react", model="B"))
    (table,) = PRESETS["safety"](frame)
    assert table.body.value[:, 0].tolist() == [0.1, 0.3]
    assert len([note for note in table.notes if "Mean over detector" in note]) == 2


@pytest.mark.parametrize("status", ["failed", "timeout", "skipped", "out-of-memory"])
@pytest.mark.parametrize("preset", ["safety", "ood", "corruptions"])
def test_a_plug_in_that_fails_for_all_empties_no_column(
    preset: str, status: str, make: SimpleNamespace, scored: Callable[..., Any], frame_of: Builder
) -> None:
    """A detector, an attack, an OOD set and a corruption, each broken; other figures are means over the rest."""
    cells = []
    for model in ("A", "B"):
        at = {"model": model}
        cells += [
            make.attacked(0.4, "pgd", 0.3, **at), make.attacked(0.6, "fgsm", 0.3, **at),
            make.broken(status, "x", evaluator="attack", attack="bad", epsilon=0.3, **at),
            scored(0.5, "msp", **at), scored(0.7, "msp", "glyphs", **at), scored(status, "msp", "bad set", **at),
            scored(status, "bad", **at), scored(status, "bad", "glyphs", **at), scored(status, "bad", "bad set", **at),
            make.broken("skipped", "x", facts=FAR, params={"ood": []}, evaluator="ood", detector="msp",
                        ood_dataset="far mean", role="mean", **at),
            *(make.cell(make.ok(make.measured("accuracy", value)), evaluator="corruption", corruption=name,
                        severity=1, **at) for name, value in (("fog", 0.8), ("stripe", 0.6))),
            make.broken(status, "x", evaluator="corruption", corruption="bad", severity=1, **at),
            make.broken("skipped", "x", params={"mean": ["fog", "stripe", "bad"]}, evaluator="corruption",
                        corruption="mean", role="mean", **at),
        ]  # fmt: skip
    table = PRESETS[preset](frame_of(*cells))[0]
    by_name = {names[-1]: table.body.value[:, place] for place, names in enumerate(table.columns)}
    if preset == "safety":
        assert table.body.value == pytest.approx(np.array([[0.5, 0.6, 0.7]] * 2))
        assert "–" not in render(table)
    elif preset == "ood":
        assert by_name["far mean"][[0, 2]] == pytest.approx([0.6, 0.6])
    else:
        assert table.body.value[[row == ("mean",) for row in table.rows]] == pytest.approx(np.array([[0.7, 0.7]]))


def test_means_over_groups_are_over_sets_that_every_detector_has(scored: Callable[..., Any], frame_of: Builder) -> None:
    frame = frame_of(
        scored(0.5, "msp", "a"), scored(0.7, "msp", "b"), scored(0.9, "knn", "a"), scored("failed", "knn", "b")
    )
    (table,) = PRESETS["ood"](frame, layout="groups")
    assert table.columns == (("far", "mean of 1 of 2"),)
    assert table.body.value[:, 0].tolist() == [0.5, 0.9]
    (table,) = PRESETS["ood"](frame, layout="groups", means="own")
    assert table.body.value[:, 0].tolist() == pytest.approx([0.6, 0.9])


def test_detectors_that_see_nothing_are_in_no_mean(scored: Callable[..., Any], frame_of: Builder) -> None:
    """Under whatever label; alone they are all there is."""
    blind = [scored(0.5, name, detector={"name": name}) for name in ("random", "constant")]
    (table,) = PRESETS["safety"](frame_of(scored(0.9, "msp"), *blind))
    assert table.body.value[0, 0] == 0.9
    assert "Means over detectors leave out random, constant: they see nothing." in table.notes
    hidden = scored(0.5, "a name", detector={"name": "random"})
    (table,) = PRESETS["safety"](frame_of(scored(0.9, "random", detector={"name": "msp"}), hidden))
    assert table.body.value[0, 0] == 0.9
    (table,) = PRESETS["safety"](frame_of(*blind))
    assert table.body.value[0, 0] == 0.5


def test_a_mean_bears_the_footnotes_of_all_its_parts(scored: Callable[..., Any], frame_of: Builder) -> None:
    stand_in = {"name": "tiles", "stand_in": "Textures"}
    frame = frame_of(
        scored(0.5, "msp", "a"), scored(0.7, "msp", "tiles", ood=stand_in),
        scored(0.7, "ash", "a", tune={"oracle": True}), scored(0.7, "ash", "tiles", ood=stand_in),
    )  # fmt: skip
    text = render(PRESETS["safety"](frame)[0])
    assert "tiles is a stand-in for Textures." in text
    assert "Hyper-parameters were tuned on the test data" in text


def test_the_page_and_the_safety_table_agree_on_the_best(
    make: SimpleNamespace, scored: Callable[..., Any], frame_of: Builder
) -> None:
    """Also where a worst case stands among the attacks, and one model lacks an attack."""
    worst = [
        make.cell(make.ok(make.measured("robust_accuracy", value)), evaluator="attack", attack="union", epsilon=0.3,
                  role="worst-case", model=model) for model, value in (("A", 0.1), ("B", 0.5))
    ]  # fmt: skip
    frame = frame_of(
        make.attacked(0.8, "pgd", 0.3, model="A"), make.attacked(0.4, "fgsm", 0.3, model="A"),
        make.attacked(0.7, "pgd", 0.3, model="B"), make.broken("failed", "x", evaluator="attack", attack="fgsm",
                                                              epsilon=0.3, model="B"), *worst,
    )  # fmt: skip
    (table,) = PRESETS["safety"](frame)
    assert table.body.value[:, 0].tolist() == [0.8, 0.7]
    (card,) = (card for card in cards(frame) if card["title"].startswith("Best"))
    assert (card["title"], card["value"], card["text"]) == ("Best Accuracy under attack, mean", "80.0 %", "A")


def test_there_are_no_other_means(scored: Callable[..., Any], frame_of: Builder) -> None:
    with pytest.raises(GauntletError, match="did you mean 'own'"):
        PRESETS["safety"](frame_of(scored(0.5, "msp")), means="owm")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([None, 0.1, 0.5, 0.9]), min_size=3, max_size=3), min_size=1, max_size=4))
def test_every_mean_is_that_of_the_common_cells(grid: list[list[float | None]]) -> None:
    """Against the mean by hand over the columns that every row with anything has."""
    rows = [
        {"model": f"m{i}", "detector": f"d{j}", "status": "failed" if value is None else "ok", "params": "{}",
         "value": np.nan if value is None else value, "ci_low": np.nan, "ci_high": np.nan}
        for i, line in enumerate(grid) for j, value in enumerate(line)
    ]  # fmt: skip
    found = means(pd.DataFrame(rows), ["model"], ["detector"])
    there = [line for line in grid if any(value is not None for value in line)]
    common = [j for j in range(3) if all(line[j] is not None for line in there)]
    for line, value, status in zip(grid, found["value"], found["status"], strict=True):
        own = [line[j] for j in common or range(3) if line[j] is not None]
        assert status == ("ok" if own else "failed")
        assert value == pytest.approx(np.mean(own)) if own else np.isnan(value)
