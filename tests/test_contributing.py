"""Every example of CONTRIBUTING.md, run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from gauntlet.bench.runner import run_suite
from gauntlet.registry import REGISTRIES
from gauntlet.results.frame import load_results

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
EXAMPLE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.S)
SUITE = {
    "name": "contributing",
    "datasets": [{"digits": {"limit": 60}}],
    "models": [{"name": "linear", "label": "linear", "recipe": {"standard": {"epochs": 1, "batch_size": 30}}}],
    "evaluators": ["accuracy", "ood", "attack", "corruption", "decisiveness"],
    "attacks": ["one-step"],
    "epsilons": [0.1],
    "attack_images": 20,
    "detectors": ["margin"],
    "ood": ["checkerboards"],
    "corruptions": ["dusk"],
    "severities": [5],
}


def examples() -> dict[str, str]:
    """The files that the page holds, with their text."""
    return dict(EXAMPLE.findall(PAGE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The output folder of a run of all examples together, with the files under ``examples`` in it."""
    folder = tmp_path_factory.mktemp("contributing")
    for name, text in examples().items():
        (folder / name).write_text(text, encoding="utf-8")
    plugins = [str(folder / name) for name in examples()]
    try:
        assert run_suite(SUITE, out=folder, plugins=plugins).complete
        yield folder
    finally:
        for registry in REGISTRIES.values():
            for plugin in {entry.plugin for entry in registry if entry.plugin}:
                if str(folder) in plugin:
                    registry.remove_plugin(plugin)


def test_every_kind_of_the_map_has_its_example():
    assert len(examples()) == 7


@pytest.mark.parametrize(
    ("evaluator", "column", "value"),
    [
        ("ood", "detector", "margin"),
        ("ood", "ood_dataset", "checkerboards"),
        ("ood", "metric", "fpr99"),
        ("attack", "attack", "one-step"),
        ("corruption", "corruption", "dusk"),
        ("decisiveness", "metric", "decisiveness"),
        ("accuracy", "model", "linear"),
    ],
)
def test_each_example_has_its_rows(out: Path, evaluator: str, column: str, value: str):
    frame: pd.DataFrame = load_results(out)
    rows = frame[(frame["evaluator"] == evaluator) & (frame[column] == value)]
    assert len(rows)
    assert set(rows["status"]) == {"ok"}


def test_the_evaluators_table_is_written(out: Path):
    assert "Decisiveness on digits" in (out / "decisiveness.md").read_text(encoding="utf-8")


def test_the_map_names_folders_and_files_that_exist():
    """Every `folder/` and `file.py` of the map's table."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| `(\w+)/` \|", line):
            folder = PAGE.parent / match[1]
            for file in re.findall(r"`([\w/]+\.py)`", line):
                assert (folder / file).is_file(), file
