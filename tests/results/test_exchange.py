"""Export and import without loss, and published numbers beside ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import pivot, render
from gauntlet.results.exchange import export_frame, import_frame
from gauntlet.results.reported import read_reported, with_reported

Builder = Callable[..., pd.DataFrame]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_frame_comes_back_as_it_was(
    make: SimpleNamespace, text_frame_of: Builder, tmp_path: Path, suffix: str, hostile: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    frame = text_frame_of(
        make.accuracy(1 / 3, model=hostile),
        make.attacked(0.1 + 0.2, hostile, 8 / 255),
        make.broken("failed", hostile, evaluator="ood", detector=hostile),
        make.cell(make.ok(make.measured("median_norm", float("inf"))), evaluator="attack", attack="x"),
    )
    pd.testing.assert_frame_equal(import_frame(export_frame(frame, tmp_path / f"out{suffix}")), frame)


def test_another_suffix_is_refused(make: SimpleNamespace, text_frame_of: Builder, tmp_path: Path) -> None:
    with pytest.raises(GauntletError, match=r"\.csv or \.parquet, got '\.xlsx'"):
        export_frame(text_frame_of(make.accuracy()), tmp_path / "out.xlsx")


@pytest.mark.parametrize("content", [b"", b"not parquet"])
def test_what_is_not_parquet_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(GauntletError, match="cannot be read as Parquet"):
        import_frame(tmp_path / "x.parquet")


PUBLISHED = (
    "source,evaluator,model,dataset,detector,ood_dataset,metric,value\nR2,ood,Ens,digits,msp,glyphs,auroc,0.977\n"
)


def test_published_numbers_stand_beside_ours_and_say_so(
    make: SimpleNamespace, text_frame_of: Builder, tmp_path: Path
) -> None:
    path = tmp_path / "r2.csv"
    path.write_text(PUBLISHED, encoding="utf-8")
    frame = with_reported(text_frame_of(make.detected(0.95, "msp", "glyphs")), [path])
    table = pivot(frame, ["detector"], ["model"], "auroc", best="row")
    assert table.columns == (("cnn",), ("Ens (R2)",))
    assert table.cells == (("95.0 ± 1.0", "97.7"),)
    assert table.column_marks == ("", "a")
    assert "a: As reported by R2; not measured here." in render(table, "plain")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,evaluator,model,dataset,metric\n", "lacks the column 'value'"),
        (PUBLISHED.replace("R2,", ","), "row 2: every reported number needs a source"),
        (PUBLISHED.replace("0.977", "high"), "row 2: value must be a number"),
        (PUBLISHED.replace("detector", "detectr"), "unknown column 'detectr'; did you mean 'detector'"),
    ],
)
def test_a_wrong_file_of_published_numbers_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r2.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(GauntletError, match=message):
        read_reported(path)
