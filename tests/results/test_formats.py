"""Tables as text: whatever the names hold shows as text, in every format."""

from __future__ import annotations

import csv
import html.parser
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gauntlet.registry import GauntletError
from gauntlet.results import Table, render
from gauntlet.results.table import Cells


def table(name: str = "cnn", cell: str = "-1.0 ± 0.5") -> Table:
    return Table(f"Title {name}", ("model", "epsilon"), ((name, "-0.1"), ("b", "")), ((name,), ("near", "x")),
                 Cells.of(((cell, "–"), ("failed", cell))), ("A note.", f"failed: {name}"))  # fmt: skip


def one_line(name: str) -> str:
    return " ".join(name.split())


def test_plain_text_is_for_the_terminal() -> None:
    assert render(table(), "plain") == (
        "Title cnn\n"
        "model    epsilon           cnn    near / x\n"
        "-------  ---------  ----------  ----------\n"
        "cnn      -0.1       -1.0 ± 0.5           –\n"
        "b                       failed  -1.0 ± 0.5\n"
        "A note.\n"
        "failed: cnn"
    )


def test_github_markdown() -> None:
    assert render(table(), "github") == (
        "**Title cnn**\n\n"
        "| model   | epsilon   |        cnn |   near / x |\n"
        "|:--------|:----------|-----------:|-----------:|\n"
        "| cnn     | -0.1      | -1.0 ± 0.5 |          – |\n"
        "| b       |           |     failed | -1.0 ± 0.5 |\n\n"
        "- A note.\n"
        "- failed: cnn"
    )


def test_a_terminal_gets_no_control_characters() -> None:
    text = render(table("\x1b[31mred\x07\x9b0m\r\u2028x"), "plain")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", text)


def test_markdown_rows_keep_their_number_of_cells(hostile: str) -> None:
    lines = [line for line in render(table(hostile), "github").splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 5 for line in lines)


def test_markdown_shows_names_as_text(hostile: str) -> None:
    """What Markdown and HTML unescape gives the name back, and no tag is left."""
    text = render(table(hostile), "github")
    assert "<script" not in text
    shown = html.unescape(re.sub(r"\\([^A-Za-z0-9 ])", r"\1", text))
    assert one_line(hostile) in shown


@pytest.mark.parametrize("name", ["*a*", "_a_", "`a`", "[a](javascript:b)", "~~a~~", "$a$", "<b>", "&lt;", "\\"])
def test_markdown_markup_is_escaped(name: str) -> None:
    row = render(Table("", ("n",), ((name,),), (), Cells.of([()])), "github").splitlines()[-1]
    assert not re.search(r"(?<!\\)[*`\[\]~$<>]|&(?!amp;|lt;|gt;)|(?<![\\])_", row.replace("\\\\", ""))


def test_underscores_inside_a_word_stay_readable() -> None:
    assert "ens_oe" in render(table("ens_oe"), "github")


class Texts(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


def test_html_shows_names_as_text(hostile: str) -> None:
    parser = Texts()
    parser.feed(render(table(hostile), "html"))
    assert parser.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    texts = [text.strip() for text in parser.texts]
    assert texts.count(one_line(hostile)) == 2
    assert f"Title {one_line(hostile)}" in texts
    assert f"failed: {one_line(hostile)}" in texts


def test_csv_names_cannot_be_formulas(hostile: str) -> None:
    rows = list(csv.reader(io.StringIO(render(table(hostile), "csv"))))
    shown = f"'{hostile}" if hostile.startswith("=") else one_line(hostile)
    assert rows == [
        ["model", "epsilon", shown, "near / x"],
        [shown, "-0.1", "-1.0 ± 0.5", "–"],
        ["b", "", "failed", "-1.0 ± 0.5"],
    ]


@pytest.mark.parametrize("name", ["=1+1", "+1+1", "-cmd", "@sum", "\t=1", "\r=1", " =1"])
def test_every_start_of_a_formula_is_disarmed(name: str) -> None:
    for row in csv.reader(io.StringIO(render(Table("", (name,), ((name,),), ((name,),), Cells.of([["1"]])), "csv"))):
        assert all(text == "1" or text.startswith("'") for text in row)


LATEX_SPECIAL = r"& % $ # _ { } ~ ^ \ < > |"


def test_latex_escapes_every_special_character() -> None:
    text = render(table(LATEX_SPECIAL, "1.0 ± 0.5"), "latex")
    escaped = r"\& \% \$ \# \_ \{ \} \textasciitilde{} \^{} \textbackslash{} \ensuremath{<} \ensuremath{>} \textbar{}"
    assert text.count(escaped) == 2
    assert text.count(r"1.0 $\pm$ 0.5") == 2
    assert "±" not in "".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"\begin{tabular}{llrr}" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_a_latex_row_cannot_start_with_an_argument_of_the_line_before() -> None:
    """``\\\\`` takes a following ``[`` or ``*`` as its own."""
    for name in ("[3cm]", "*"):
        assert f" {{}}{name} " in render(table(name), "latex")


def test_latex_comments_stay_on_their_line(hostile: str) -> None:
    lines = render(table(hostile), "latex").splitlines()
    body = lines[lines.index(r"\begin{tabular}{llrr}") : lines.index(r"\end{tabular}") + 1]
    assert all(line.startswith("%") for line in lines if line not in body)
    assert not re.search(r"\\input\b", "\n".join(body))
    assert sum(line.rstrip().endswith(r"\\") for line in body) == 4  # two header rows


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path, hostile: str) -> None:
    tables = "\n\n".join(render(table(name), "latex") for name in (hostile, LATEX_SPECIAL, "[x]", "*"))
    document = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{chr(10)}{tables}{chr(10)}\end{{document}}"
    )
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("fmt", ["github", "plain", "latex", "html", "csv"])
def test_a_table_without_rows_is_still_a_table(fmt: str) -> None:
    assert "model" in render(Table("t", ("model",), (), (("a",),), Cells.of([])), fmt)


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(GauntletError, match="no table format 'gihub'; did you mean 'github'"):
        render(table(), "gihub")
