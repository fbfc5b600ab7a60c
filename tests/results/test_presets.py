"""The tables of the field, from a frame with the usual gaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from gauntlet.bench.cli import main
from gauntlet.registry import GauntletError
from gauntlet.results import (
    CellResult,
    Metric,
    Store,
    attack_grid,
    calibration_table,
    load_results,
    ood_table,
    render,
    write_tables,
)
from gauntlet.results.declarations import EvaluatorDeclaration, TableSpec, as_json, from_json
from gauntlet.results.frame import empty_frame
from gauntlet.results.intervals import mean_interval
from gauntlet.results.page import build_page
from gauntlet.results.presets import PRESETS, TABLES, Preset

Builder = Callable[..., pd.DataFrame]


def test_the_attack_grid_starts_with_clean_accuracy(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(
        make.attacked(0.4, "pgd", 0.3, model="m5"),
        make.attacked(0.2, "pgd", 1.5, model="m5"),
        make.broken("failed", "x", evaluator="attack", attack="pgd", epsilon=0.3, model="cnn"),
        make.attacked(0.1, "deepfool", 0.3, model="cnn"),
        make.accuracy(0.99, model="cnn"),
        make.accuracy(0.98, model="m5"),
        make.detected(0.9, "msp", "glyphs"),
    )
    (table,) = attack_grid(frame)
    assert table.title == "Accuracy under attack on digits (%)"
    assert table.columns == (("cnn",), ("m5",)) or table.columns == (("m5",), ("cnn",))
    first = table.columns.index(("m5",))
    assert table.rows == (("(clean)", ""), ("pgd", "0.3"), ("pgd", "1.5"), ("deepfool", "0.3"))
    assert [row[first] for row in table.cells] == ["98.0 ± 1.0", "40.0 ± 1.0", "20.0 ± 1.0", "–"]
    assert [row[1 - first] for row in table.cells] == ["99.0 ± 1.0", "failed", "–", "10.0 ± 1.0"]


def test_the_safety_table_has_the_interval_over_seeds_that_other_tables_have(
    make: SimpleNamespace, frame_of: Builder
) -> None:
    frame = frame_of(
        *(make.accuracy(0.9 + seed / 100, seed=seed) for seed in (0, 1)),
        *(make.attacked(0.4 + seed / 10, "pgd", 0.3, seed=seed) for seed in (0, 1)),
        *(make.attacked(0.2 + seed / 10, "fgsm", 0.3, seed=seed) for seed in (0, 1)),
    )
    (safety,), (grid,) = PRESETS["safety"](frame), attack_grid(frame)
    assert safety.cells[0][0] == grid.cells[0][0]  # clean accuracy
    (safety,) = PRESETS["safety"](frame, over="seeds")
    means = [0.3, 0.4]
    low, high = mean_interval(means)
    assert safety.cells[0][1] == f"{100 * sum(means) / 2:.1f} ± {50 * (min(high, 1) - max(low, 0)):.1f}"


def test_adversarial_images_as_ood_have_attacks_down_and_detectors_across(
    make: SimpleNamespace, frame_of: Builder
) -> None:
    def cells(model: str) -> list[Any]:
        where = {"evaluator": "adversarial-detection", "attack": "pgd", "model": model}
        return [
            make.cell(make.ok(make.measured("auroc", 0.9)), epsilon=0.1, detector="msp", **where),
            make.cell(make.ok(make.measured("auroc", 0.8)), epsilon=0.3, detector="msp", **where),
            make.cell(make.ok(make.measured("auroc", 0.7)), epsilon=0.1, detector="knn", **where),
            make.broken("skipped", "x", epsilon=0.3, detector="knn", **where),
        ]

    (table,) = PRESETS["adversarial-detection"](frame_of(*cells("cnn"), make.detected(0.5, "msp", "glyphs")))
    assert table.title == "AUROC in % of adversarial images as OOD on digits"
    assert table.rows == (("pgd", "0.1"), ("pgd", "0.3"))
    assert table.columns == (("msp",), ("knn",))
    assert table.cells == (("90.0 ± 1.0", "70.0 ± 1.0"), ("80.0 ± 1.0", "skipped"))
    (both,) = PRESETS["adversarial-detection"](frame_of(*cells("cnn"), *cells("m5")))
    assert both.row_names == ("model", "attack", "epsilon")
    assert PRESETS["adversarial-detection"](frame_of(make.accuracy(0.9))) == []


def test_there_is_one_attack_grid_per_dataset(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(
        make.accuracy(0.99, dataset="mnist"),
        make.attacked(0.4, "pgd", 0.3, dataset="mnist"),
        make.attacked(0.3, "pgd", 0.3, dataset="digits"),
    )
    mnist, digits = attack_grid(frame)
    assert "mnist" in mnist.title
    assert len(mnist.rows) == 2
    assert digits.rows == (("pgd", "0.3"),)


def test_a_grid_of_failures_only_is_still_shown(make: SimpleNamespace, frame_of: Builder) -> None:
    (table,) = attack_grid(frame_of(make.broken("failed", "x", evaluator="attack", attack="pgd", epsilon=0.3)))
    assert table.cells == (("failed",),)


def test_the_ood_table_groups_near_and_far(make: SimpleNamespace, frame_of: Builder) -> None:
    sets = [("near", "glyphs"), ("far", "noise"), ("near", "held-out")]
    cells = [make.detected(0.9, d, o, g) for d in ("msp", "energy") for g, o in sets]
    (table,) = ood_table(frame_of(*cells))
    assert table.columns == (("near", "glyphs"), ("near", "held-out"), ("far", "noise"))
    assert table.row_names == ("detector",)
    assert table.rows == (("msp",), ("energy",))
    assert "near / glyphs" in render(table, "plain")


def test_the_ood_table_names_models_where_there_are_several(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(*(make.detected(v, "msp", "glyphs", model=m) for m, v in [("b", 0.8), ("a", 0.7)]))
    (table,) = ood_table(frame, metric="fpr95")
    assert table.row_names == ("model", "detector")
    assert (table.rows, table.columns) == ((("b", "msp"), ("a", "msp")), (("glyphs",),))
    assert table.cells == (("20.0 ± 1.0",), ("30.0 ± 1.0",))
    assert table.title == "FPR95 in % of OOD detection on digits"


def test_an_unknown_ood_metric_is_one_sentence(make: SimpleNamespace, frame_of: Builder) -> None:
    assert ood_table(frame_of(make.accuracy())) == []
    with pytest.raises(GauntletError, match="No result has the metric 'auroq'; did you mean 'auroc'"):
        ood_table(frame_of(make.detected(0.9, "msp", "glyphs")), metric="auroq")


def test_the_calibration_table_has_the_measured_metrics(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(make.calibrated(), make.broken("skipped", "no val split", evaluator="calibration", model="w"))
    (table,) = calibration_table(frame)
    assert [name for (name,) in table.columns] == ["ECE (%)", "ECE (scaled) (%)", "NLL", "Temperature"]
    assert table.cells[1] == ("skipped",) * 4


def test_the_calibration_table_says_why_there_is_no_temperature(make: SimpleNamespace, frame_of: Builder) -> None:
    result = replace(make.ok(make.measured("ece", 0.1), make.measured("nll", 0.2)), reason="It was left out. No error.")
    (table,) = calibration_table(frame_of(make.calibrated(), make.cell(result, evaluator="calibration", model="e")))
    assert table.cells[1][-1] == "–"
    assert "–: It was left out. No error." in table.notes


def test_tables_are_written_where_there_is_something_to_show(
    make: SimpleNamespace, frame_of: Builder, tmp_path: Path, hostile: str
) -> None:
    folder = tmp_path / "tables"
    every = frame_of(
        make.attacked(0.4, "pgd", 0.3, model=hostile),
        make.detected(0.9, hostile, "glyphs", hostile),
        make.calibrated(model=hostile),
    )
    names = ["attack-grid.md", "attack-grid.tex", "calibration.md", "calibration.tex", "ood.md", "ood.tex"]
    names += ["safety.md", "safety.tex"]
    assert sorted(path.name for path in write_tables(every, folder)) == names
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "ood.md").read_text(encoding="utf-8") == render(ood_table(every)[0], "github") + "\n"

    write_tables(frame_of(make.calibrated()), folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "calibration.md", "calibration.tex", "safety.md", "safety.tex",
    ]  # fmt: skip
    assert write_tables(empty_frame(), folder) == []


class TestClassesLeftOutInTurn:
    """Digits 0, 1 and 2, each with seeds 0 and 1 that are as far apart as can be without moving the class's mean."""

    VALUES = (0.5, 0.6, 0.85)

    def cells(self, make: SimpleNamespace, detector: str = "msp", seeds: tuple[int, ...] = (0,)) -> list[Any]:
        shifts = dict(zip(seeds, (-0.1, 0.1), strict=True)) if len(seeds) > 1 else {seeds[0]: 0.0}
        return [
            make.held_out(make.ok(make.measured("auroc", value + shift)), detector, digit, seed=seed)
            for digit, value in enumerate(self.VALUES)
            for seed, shift in shifts.items()
        ]

    def broken(self, make: SimpleNamespace, detector: str, digit: int) -> Any:
        return make.held_out(CellResult("failed", "no memory"), detector, digit)

    def test_share_a_table_whose_last_column_is_their_mean_with_its_t_interval(
        self, make: SimpleNamespace, frame_of: Builder
    ) -> None:
        (table,) = ood_table(frame_of(*self.cells(make)))
        assert table.title.endswith("digits, one class left out")
        assert table.columns == (("held-out", "0"), ("held-out", "1"), ("held-out", "2"), ("held-out", "mean"))
        low, high = mean_interval(self.VALUES)
        assert high < 1.2  # the interval is cut at 1
        half = 50 * (1 - low)
        assert table.cells == (("50.0 ± 1.0", "60.0 ± 1.0", "85.0 ± 1.0", f"65.0 ± {half:.1f}"),)

    def test_seeds_are_averaged_before_classes_are(self, make: SimpleNamespace, frame_of: Builder) -> None:
        one, two = (ood_table(frame_of(*self.cells(make, seeds=seeds)))[0] for seeds in ((0,), (0, 1)))
        assert two.cells[0][-1] == one.cells[0][-1]
        assert two.cells[0][0] != one.cells[0][0]

    def test_a_mean_lacks_no_class(self, make: SimpleNamespace, frame_of: Builder) -> None:
        knn = [*self.cells(make, "knn")[:2], self.broken(make, "knn", 2)]
        (table,) = ood_table(frame_of(*self.cells(make), *knn))
        means = dict(zip(table.rows, (row[-1] for row in table.cells), strict=True))
        assert means[("knn",)] == "failed"
        assert means[("msp",)].startswith("65.0 ± ")

    def test_an_unknown_metric_is_one_sentence(self, make: SimpleNamespace, frame_of: Builder) -> None:
        with pytest.raises(GauntletError, match="No result has the metric 'aupr_in'"):
            ood_table(frame_of(*self.cells(make)), metric="aupr_in")

    def test_are_one_column_among_the_means_of_groups(self, make: SimpleNamespace, frame_of: Builder) -> None:
        sets, groups = (ood_table(frame_of(*self.cells(make)), layout=layout)[0] for layout in ("sets", "groups"))
        assert groups.columns == (("held-out", "mean"),)
        assert groups.cells == ((sets.cells[0][-1],),)


class TestTablesOfAnEvaluatorThatIsAbsent:
    """What a plug-in's evaluator declared stands in the store; its file need not be there to read the results."""

    SPEC = TableSpec("sharpness", "{metric} on {dataset}", "sharpness", ("sharp",), ("detector",), ("model",))
    DECLARED = EvaluatorDeclaration("sharpness", "How sharp it is", 200, (Metric("sharp", "Sharpness", ""),), (SPEC,))

    @pytest.fixture
    def out(self, make: SimpleNamespace, tmp_path: Path) -> Path:
        planned, result = make.cell(make.ok(make.measured("sharp", 0.5)), evaluator="sharpness", detector="edge")
        with Store.open(tmp_path / "store.sqlite") as store:
            store.declare(make.fill(store, [(planned, result)]), [self.DECLARED])
        return tmp_path

    def test_are_read_as_they_were_written(self, out: Path) -> None:
        with Store.open(out, create=False) as store:
            assert store.declarations() == {"sharpness": self.DECLARED}
            assert store.declarations(["another run"]) == {}

    def test_are_made_like_ours(self, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["table", "sharpness", "--out", str(out)])
        assert "Sharpness on digits" in (text := capsys.readouterr().out)
        assert "edge" in text

    def test_are_written_beside_ours(self, out: Path) -> None:
        with Store.open(out, create=False) as store:
            declared = store.declarations().values()
        assert (out / "tables" / "sharpness.md") in write_tables(load_results(out), out / "tables", declared)

    def test_an_unknown_one_is_one_sentence_with_the_nearest(
        self, out: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="3"):
            main(["table", "sharpnes", "--out", str(out)])
        assert "There is no table 'sharpnes'; did you mean 'sharpness'?" in capsys.readouterr().err

    def test_title_the_board_of_the_page(self, out: Path) -> None:
        with Store.open(out, create=False) as store:
            assert "How sharp it is" in build_page(load_results(out), store)


def test_a_record_whose_title_or_transform_is_unknown_is_one_sentence(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(make.accuracy())
    spec = TableSpec("mine", "{data}", "accuracy", ("accuracy",), ("model",), ("dataset",))
    with pytest.raises(GauntletError, match=r"The title of the table 'mine' may hold \{dataset\}"):
        Preset((spec,))(frame)
    with pytest.raises(GauntletError, match="The table 'mine' has no transform 'cheks'; did you mean 'checks'"):
        Preset((replace(spec, transform="cheks"),))(frame)


def test_presets_are_plain_data() -> None:
    made = EvaluatorDeclaration("all", "All", tables=TABLES)
    assert from_json(as_json([made])) == [made]
