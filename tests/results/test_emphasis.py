"""What stands out in a table: best and tied, footnotes, order; and the formats that show it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import Facts, Identity, PlannedCell, Table, ood_table, pivot, render
from gauntlet.results.emphasis import sort_rows
from gauntlet.results.presets import PRESETS
from gauntlet.results.table import Cell, Cells
from gauntlet.results.tabular import as_frame

Builder = Callable[..., pd.DataFrame]


def accuracies(make: SimpleNamespace, *values: float, half: float = 0.01) -> list[object]:
    return [
        make.cell(make.ok(make.measured("accuracy", value, half)), evaluator="accuracy", model=f"m{i}")
        for i, value in enumerate(values)
    ]


def test_what_is_not_significantly_worse_than_the_best_is_bold(make: SimpleNamespace, frame_of: Builder) -> None:
    """Unpaired, 0.0141 is half the interval of a difference: 0.013 has p = 0.07, and 0.020 Holm's 0.011."""
    table = pivot(frame_of(*accuracies(make, 0.90, 0.887, 0.880)), ["model"], [], "accuracy", best="column")
    assert table.bold == ((True,), (True,), (False,))
    assert table.notes[-2] == (
        "Bold: not significantly worse than the best of each column (95 %, Holm; unpaired, by "
        "their intervals, over images (this training taken as it is))."
    )
    # 2.80 standard deviations of a difference, each 0.01 / 1.96 * sqrt(2)
    assert table.notes[-1] == "A single comparison finds a difference in Accuracy of 2.02 points with 80 % power."


def test_of_an_error_the_lowest_is_best(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(make.calibrated(0.05, model="a"), make.calibrated(0.20, model="b"))
    assert pivot(frame, ["model"], [], "ece", best="column").bold == ((True,), (False,))


def test_of_a_metric_without_direction_nothing_is_best(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(make.calibrated(model="a"), make.calibrated(model="b"))
    assert pivot(frame, ["model"], [], "temperature", best="column").bold == ((False,), (False,))


def test_a_failed_cell_is_never_best_and_one_value_alone_neither(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(make.accuracy(0.5, model="a"), make.broken("failed", "x", evaluator="accuracy", model="b"))
    assert pivot(frame, ["model"], [], "accuracy", best="column").bold == ((False,), (False,))


def test_best_is_of_each_row_or_column_only(make: SimpleNamespace, frame_of: Builder) -> None:
    with pytest.raises(GauntletError, match="got 'diagonal'"):
        pivot(frame_of(make.accuracy()), ["model"], [], "accuracy", best="diagonal")


def test_both_ends_of_the_interval_can_be_shown(make: SimpleNamespace, frame_of: Builder) -> None:
    table = pivot(frame_of(make.accuracy(0.98)), ["model"], [], "accuracy", intervals="range")
    assert table.cells == (("98.0 (97.0, 99.0)",),)
    assert table.notes == ("In brackets the ends of the 95 % interval.",)


def stand_in(make: SimpleNamespace, value: float, detector: str, name: str) -> object:
    planned, result = make.detected(value, detector, name, "near")
    params = {"ood": {"name": name, **({"stand_in": "notMNIST"} if name == "glyphs" else {})}}
    return PlannedCell(planned.identity, planned.key, Facts(ood_group="near"), params), result


def test_stand_in_data_has_a_footnote_at_its_header(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(*(stand_in(make, 0.9, d, o) for d in ("msp", "knn") for o in ("glyphs", "noise")))
    (table,) = ood_table(frame)
    assert table.column_marks == ("a", "")
    assert table.notes[-1] == "a: glyphs is a stand-in for notMNIST."
    assert "near / glyphs<sup>a</sup>" in render(table, "github")
    (turned,) = ood_table(frame, layout="models")
    assert turned.row_marks == ("a", "a", "", "")


def test_a_value_tuned_on_test_data_is_marked_in_its_cell(make: SimpleNamespace, frame_of: Builder) -> None:
    planned, result = make.detected(0.9, "odin", "glyphs")
    tuned = PlannedCell(planned.identity, planned.key, Facts(), {"tune": {"outliers": "glyphs", "oracle": True}})
    frame = frame_of((tuned, result), make.detected(0.8, "odin", "noise"), make.detected(0.8, "msp", "glyphs"))
    table = pivot(frame, ["detector"], ["ood_dataset"], "auroc")
    assert table.marks[0] == ("a", "")
    assert "optimistic" in table.notes[-1]


def test_rows_sort_by_a_header_or_a_row_name(make: SimpleNamespace, frame_of: Builder) -> None:
    table = pivot(frame_of(*accuracies(make, 0.8, 0.9, 0.7)), ["model"], ["dataset"], "accuracy", best="column")
    assert [row for (row,) in sort_rows(table, "-digits").rows] == ["m1", "m0", "m2"]
    assert sort_rows(table, "-digits").bold == ((True,), (False,), (False,))
    assert [row for (row,) in sort_rows(table, "-model").rows] == ["m2", "m1", "m0"]
    with pytest.raises(GauntletError, match=r"cannot be sorted by 'colour'; .* model, digits"):
        sort_rows(table, "colour")


def test_group_means_are_of_the_sets_that_all_rows_have(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(
        make.detected(0.8, "msp", "a", "near"),
        make.detected(0.9, "msp", "b", "near"),
        make.detected(0.8, "knn", "a", "near"),
        make.broken(
            "failed",
            "x",
            evaluator="ood",
            detector="knn",
            ood_dataset="b",
        ),
    )
    frame.loc[frame["status"] == "failed", "ood_group"] = "near"
    (table,) = ood_table(frame, layout="groups")
    assert table.columns == (("near", "mean of 1 of 2"),)
    assert table.cells == (("80.0 ± 1.0",), ("80.0 ± 1.0",))
    assert "a: Mean over OOD set a; not over OOD set b, which not all have." in table.notes


def test_the_safety_table_puts_one_model_in_a_row(make: SimpleNamespace, frame_of: Builder) -> None:
    frame = frame_of(
        make.accuracy(0.99), make.calibrated(0.02), make.attacked(0.4, "pgd", 0.1), make.attacked(0.2, "pgd", 0.3),
        make.detected(0.9, "msp", "a", "near"), make.accuracy(0.5, model="b"),
    )  # fmt: skip
    (table,) = PRESETS["safety"](frame)
    assert [name for (name,) in table.columns] == [
        "Accuracy (%)", "ECE (%)", "Accuracy under attack, mean (%)", "AUROC near, mean (%)",
    ]  # fmt: skip
    assert table.cells == (("99.0 ± 1.0", "2.0 ± 1.0", "30.0 ± 1.0", "90.0 ± 1.0"), ("50.0 ± 1.0", "–", "–", "–"))


def about(value: float, half: float) -> Cell:
    return Cell(value, value - half, value + half, digits=1)


def emphasised(cells: Cells, bold: Sequence[Sequence[bool]], letters: Sequence[Sequence[str]]) -> Cells:
    return replace(cells, bold=np.array(bold), letters=np.array(letters, dtype=object))


BODY = Cells.of([
    [about(1.0, 0.5), about(12.0, 10.5), "–"],
    ["failed", Cell(2.0, digits=1), about(-3.5, 0.1)],
    [Cell(float("inf")), about(1.0, 0.5), about(7.0, 0.2)],
])  # fmt: skip
RICH = Table(
    "Rich", ("group", "model"), (("a", "x"), ("a", "y"), ("b", "x")), (("near", "u"), ("near", "v"), ("far", "w")),
    emphasised(BODY, ((True, False, False), (False, True, False), (False, False, True)),
               (("a", "", ""), ("", "", ""), ("", "", ""))),
    ("a: a note.",), row_marks=("", "a", ""), column_marks=("", "", "a"),
)  # fmt: skip


def test_latex_headers_span_their_columns_and_repeated_names_stand_once() -> None:
    text = render(RICH, "latex")
    assert r"\multicolumn{2}{c}{near} & far" in text
    assert r"\cmidrule(lr){3-4}" in text
    assert text.count("a & x") == 1
    assert " & y" in text
    assert r"\textbf{1.0 $\pm$ 0.5}\textsuperscript{a}" in text


def test_the_formats_show_bold_and_marks() -> None:
    assert "**1.0 ± 0.5**<sup>a</sup>" in render(RICH, "github")
    assert "<strong>1.0 ± 0.5</strong><sup>a</sup>" in render(RICH, "html")
    assert "1.0 ± 0.5* [a]" in render(RICH, "plain")
    assert "1.0 ± 0.5," in render(RICH, "csv")


def _compiles(folder: Path, packages: str, body: str) -> None:
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{chr(10)}{body}{chr(10)}\end{{document}}"
    (folder / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    _compiles(tmp_path, r"\usepackage{booktabs}", render(RICH, "latex"))


def _has_siunitx() -> bool:
    if shutil.which("kpsewhich") is None:
        return False
    return bool(subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True, check=False).stdout.strip())


@pytest.mark.skipif(not _has_siunitx(), reason="no siunitx here")
def test_latex_with_siunitx_compiles(tmp_path: Path, hostile: str) -> None:
    named = replace(RICH, rows=(("a", hostile), ("a", "y"), ("b", "x")))
    ranged = replace(named, body=replace(named.body, intervals="range"))
    both = "\n\n".join(render(table, "latex-siunitx") for table in (named, ranged))
    _compiles(tmp_path, r"\usepackage{booktabs,siunitx}", both)


def test_siunitx_gets_numbers_and_what_follows_them(make: SimpleNamespace, frame_of: Builder) -> None:
    cells = [
        *(make.accuracy(0.9, seed=seed) for seed in (0, 1)),
        make.broken("failed", "x", evaluator="accuracy", seed=2),
    ]
    table = pivot(frame_of(*cells), ["model"], [], "accuracy")
    assert table.cells == (("90.0 ± 1.0 (2/3)",),)
    assert "90.0 & 1.0 {(2/3)}" in render(table, "latex-siunitx")


def test_restructured_text_means_what_it_says(hostile: str) -> None:
    """docutils reads it without a warning, and finds the names as they are."""
    core = pytest.importorskip("docutils.core")
    body = emphasised(Cells.of([[about(1.0, 0.5)]]), [[True]], [["a"]])
    table = Table(hostile, ("n",), ((hostile,),), ((hostile,),), body, (hostile,))
    settings = {"halt_level": 2, "report_level": 5, "file_insertion_enabled": False, "raw_enabled": False}
    tree = core.publish_doctree(render(table, "rst"), settings_overrides=settings)
    assert tree.astext().count(" ".join(hostile.split())) == 4
    assert [node.astext() for node in tree.findall() if node.tagname == "superscript"] == ["a"]


def test_a_table_becomes_a_frame_of_numbers() -> None:
    frame = as_frame(RICH)
    assert list(frame.columns) == ["group", "model", "near / u", "near / v", "far / w"]
    assert frame["near / v"].tolist() == [12.0, 2.0, 1.0]
    assert frame["far / w"].isna().tolist() == [True, False, False]


def test_identity_is_untouched_by_emphasis(make: SimpleNamespace, frame_of: Builder) -> None:
    """The same cells with and without bold, so that a diff of two tables shows numbers only."""
    frame = frame_of(*accuracies(make, 0.9, 0.8))
    plain, bold = (pivot(frame, ["model"], [], "accuracy", best=best) for best in ("", "column"))
    assert plain.cells == bold.cells
    assert re.sub(r"\*\*", "", render(bold, "github")).split("\n- ")[0].count("±") == 2
    assert Identity("accuracy", "m0", "digits").seed == 0
