"""Rows of a table against each other, image by image where there are values of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import CellResult, Facts, Identity, Measurement, PlannedCell, Store, pivot, render
from gauntlet.results.comparison import Row, stand
from gauntlet.results.emphasis import sort_rows
from gauntlet.results.estimates import estimate
from gauntlet.results.frame import load_results
from gauntlet.results.samples import Scores

Builder = Callable[..., pd.DataFrame]


def row(key: str, value: float, half: float = 0.01, images: str = "digits") -> Row:
    return Row((images,), [key], [0], np.array([value]), np.array([half]))


def rights(*shares: float, n: int = 1000, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Whether each of n images is right, in rows that err on the same hard images."""
    hard = np.random.default_rng(seed).permutation(n)
    return {f"m{i}": {"success": hard < share * n, "label": np.arange(n) % 10} for i, share in enumerate(shares)}


def stood(cells: Mapping[str, Mapping[str, np.ndarray]], **options: object):
    rows = [row(key, cell["success"].mean(), 0.02) for key, cell in cells.items()]
    return stand("accuracy", rows, cells.__getitem__, **options)  # type: ignore[arg-type]


def test_rows_on_the_same_images_are_told_apart_by_mcnemar_where_intervals_overlap() -> None:
    cells = rights(0.80, 0.79, 0.797)
    paired, apart = stood(cells), stand("accuracy", [row(key, cells[key]["success"].mean(), 0.02) for key in cells])
    assert paired.tied.tolist() == [True, False, True]
    assert apart.tied.all()
    assert paired.how.startswith("McNemar's exact test, image by image, over images")
    assert apart.how.startswith("unpaired, by their intervals")
    assert paired.detectable < apart.detectable


def test_paired_delong_finds_what_two_intervals_call_tied() -> None:
    """Scores correlated at 0.97, a true gap of 0.89 points on 5,000 + 5,000 images: 40 of 40 draws, not 11."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(10):
        common = rng.normal(size=5000), rng.normal(size=5000)
        cells = {}
        for name, shift in (("a", 1.40), ("b", 1.36)):
            sides = [np.sqrt(0.97) * side + np.sqrt(0.03) * rng.normal(size=5000) for side in common]
            cells[name] = {"id_score": sides[0], "ood_score": sides[1] + shift}
        known = [estimate(["auroc"], Scores(cell["id_score"], cell["ood_score"]))["auroc"] for cell in cells.values()]
        rows = [row(key, one.value, (one.high - one.low) / 2) for key, one in zip(cells, known, strict=True)]  # type: ignore[operator]
        found += stand("auroc", rows, cells.__getitem__).tied.sum() == 1
    assert found == 10


def test_rows_on_other_images_are_compared_unpaired_and_it_is_said() -> None:
    cells = rights(0.80, 0.78)
    other = {**cells, "m1": {**cells["m1"], "label": 1 + cells["m1"]["label"]}}
    assert stood(cells).how.startswith("McNemar")
    assert stood(other).how.startswith("unpaired")
    rows = [row(key, cells[key]["success"].mean(), images=name) for key, name in zip(cells, "ab", strict=True)]
    assert stand("accuracy", rows, cells.__getitem__).how.startswith("unpaired")


def test_a_row_without_values_of_images_stands_beside_rows_with() -> None:
    cells = rights(0.80, 0.79)
    rows = [*(row(key, cells[key]["success"].mean()) for key in cells), row("reported", 0.81, 0.03)]
    found = stand("accuracy", rows, {**cells, "reported": {}}.__getitem__, ranks=True)
    assert found.tied.tolist() == [True, True, True]
    assert "rows without values of these images unpaired" in found.how
    assert (found.low[0], found.high[1]) == (1, 3)


def test_a_row_without_an_interval_gets_no_rank_set() -> None:
    rows = [row("a", 0.9), row("b", 0.5), row("c", 0.95, np.nan), row("d", 0.7, np.nan)]
    found = stand("accuracy", rows, ranks=True)
    assert found.low.tolist() == [1, 2, 0, 0]
    assert found.tied.tolist() == [False, False, True, False]


def test_values_that_are_not_of_all_images_are_not_paired() -> None:
    """Such as the accuracy on one class, whose cell holds the outcomes of all images."""
    cells = rights(0.80, 0.70)
    rows = [row(key, 0.5 + 0.1 * i) for i, key in enumerate(cells)]
    assert stand("accuracy", rows, cells.__getitem__).how.startswith("unpaired")


def test_an_image_whose_logits_broke_is_not_robust() -> None:
    n = 100
    attacked = {"attacked": np.ones(n, dtype=bool), "index": np.arange(n), "success": np.arange(n) < 20}
    cells = {"m0": attacked, "m1": {**attacked, "broken": np.arange(n) >= 60}}
    found = stand("robust_accuracy", [row("m0", 0.8), row("m1", 0.4)], cells.__getitem__)
    assert found.how.startswith("McNemar")
    assert found.tied.tolist() == [True, False]


def test_the_lowest_is_best_of_an_error_and_bootstrapped_metrics_share_their_weights() -> None:
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.6, 1, 500), rng.random(500) < 0.8
    cells = {"a": {"confidence": confidence, "correct": right}, "b": {"confidence": confidence**3, "correct": right}}
    values = [0.0, 0.0]
    from gauntlet.results.estimates import values as computed
    from gauntlet.results.samples import Confidences

    values = [computed(["ece"], Confidences(*cell.values()).statistics)["ece"] for cell in cells.values()]
    found = stand("ece", [row(key, value) for key, value in zip(cells, values, strict=True)], cells.__getitem__)
    assert found.tied.tolist() == [values[0] < values[1], values[1] < values[0]]
    assert found.how.startswith("joint bootstrap of the images")


class TestSeeds:
    @staticmethod
    def seeded(shares: Sequence[float], seeds: int, spread: float, n: int = 2000):
        """Rows of several trainings, each a little better or worse, on the same images."""
        rng = np.random.default_rng(3)
        cells, rows = {}, []
        for i, share in enumerate(shares):
            own = np.clip(share + spread * rng.normal(size=seeds), 0, 1)
            keys = [f"m{i}/{seed}" for seed in range(seeds)]
            for key, value in zip(keys, own, strict=True):
                cells[key] = {"success": np.arange(n) < value * n}
            values = np.array([cells[key]["success"].mean() for key in keys])
            rows.append(Row(("digits",), keys, list(range(seeds)), values, np.full(seeds, 0.01)))
        return rows, cells.__getitem__

    def test_a_gap_that_holds_for_these_trainings_may_not_for_others(self) -> None:
        rows, arrays = self.seeded([0.9, 0.89], 3, 0.02)
        images, both = (stand("accuracy", rows, arrays, over=over) for over in ("images", "both"))
        assert images.tied.sum() == 1
        assert both.tied.all()
        assert "the trainings taken as they are" in images.how
        assert "over images and seeds (Student's t, the seeds paired)" in both.how
        assert stand("accuracy", rows, arrays).how == both.how

    def test_over_seeds_alone_the_images_do_not_count(self) -> None:
        rows, arrays = self.seeded([0.9, 0.8], 3, 0.0)
        assert stand("accuracy", rows, arrays, over="seeds").tied.tolist() == [True, False]

    def test_one_seed_of_a_row_leaves_only_the_images(self) -> None:
        rows, arrays = self.seeded([0.9, 0.8], 3, 0.0)
        single = row("m0/0", rows[0].values[0])
        assert "over images" in stand("accuracy", [single, rows[1]], arrays).how
        with pytest.raises(GauntletError, match="needs several seeds of every row; choose --over images"):
            stand("accuracy", [single, rows[1]], arrays, over="seeds")
        with pytest.raises(GauntletError, match="over images, seeds or both, got 'worlds'"):
            stand("accuracy", rows, arrays, over="worlds")


def test_a_table_shows_ranks_and_groups_and_sorts_by_them(tmp_path: Path) -> None:
    cells = rights(0.80, 0.95, 0.795)
    with Store.open(tmp_path / "store.sqlite") as store:
        run = store.begin_run("s", "", {})
        for key, arrays in cells.items():
            store.plan(run, [PlannedCell(Identity("accuracy", key, "digits"), key, Facts(), {})])
            value = float(arrays["success"].mean())
            measured = Measurement("accuracy", value, value - 0.02, value + 0.02, 1000)
            store.put(run, key, CellResult(measurements=(measured,), arrays=arrays))
        frame = load_results(tmp_path)
        table = pivot(frame, ["model"], ["metric"], "accuracy", ranks=True, arrays=store.arrays)
    assert [cell for (cell,) in table.cells] == [
        "80.0 ± 2.0 #2 to #3 B", "95.0 ± 2.0 #1 A", "79.5 ± 2.0 #2 to #3 B",
    ]  # fmt: skip
    assert [name for (name,) in sort_rows(table, "rank").rows] == ["m1", "m0", "m2"]
    assert "#1 to #3: between these ranks of the column" in table.notes[-1]
    assert r"\#2 to \#3 B" in render(table, "latex")
    assert r"{\#2 to \#3 B}" in render(table, "latex-siunitx")


def test_one_row_has_nothing_to_be_compared_with(make: SimpleNamespace, frame_of: Builder) -> None:
    table = pivot(frame_of(make.accuracy(0.9)), ["model"], [], "accuracy", ranks=True)
    assert table.cells == (("90.0 ± 1.0",),)
    assert table.bold == ((False,),)


def test_a_metric_without_direction_has_no_ranks(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(make.calibrated(model="a"), make.calibrated(model="b"))
    assert not any("#" in cell for (cell,) in pivot(frame, ["model"], [], "temperature", ranks=True).cells)
