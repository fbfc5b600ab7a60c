"""The notebooks of examples/ run as they stand, and the README's first example does."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from gauntlet.results.results import Results, Tables

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def executed(text: str, space: dict[str, object]) -> object:
    """Run a cell; returns the value of its last expression."""
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), space)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), space)


def sources(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_it_stands(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / "cache"))
    text = "\n".join(sources(path))
    for library in {"timm", "torchattacks"}:
        if library in text:
            pytest.importorskip(library)
    space: dict[str, object] = {"__name__": "__main__"}
    shown = [executed(cell, space) for cell in sources(path)]
    results = next(value for value in shown if isinstance(value, Results))
    assert set(results["status"]) <= {"ok", "skipped"}
    assert all("<table>" in value._repr_html_() for value in shown if isinstance(value, (Results, Tables)))


def test_notebooks_hold_what_their_cells_gave():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert any("text/html" in output["data"] for cell in cells for output in cell.get("outputs", ())), path.stem


@pytest.mark.slow
def test_the_first_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path))
    (text,) = re.findall(r"<!-- evaluate -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    executed(text, {})
    assert "Accuracy under attack on digits" in capsys.readouterr().out
