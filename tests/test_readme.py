"""The README: its blocks run as they stand, it is short, and what it claims of Gauntlet is so."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gauntlet.bench.runner import run_suite
from gauntlet.bench.suite import load_suite
from gauntlet.registry import CORRUPTIONS, DETECTORS, EVALUATORS, RECIPES, REGISTRIES
from gauntlet.results.frame import load_results

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = TEXT.partition("## Add your own")[2].partition("\n## ")[0]
SUITE = {
    "name": "readme",
    "datasets": [{"digits": {"limit": 60}}],
    "models": [{"name": "my-net", "recipe": {"standard": {"epochs": 1, "batch_size": 30}}}],
    "attacks": ["my-sign"],
    "epsilons": [0.1],
    "checks": "none",
    "detectors": ["neg-margin"],
    "ood": ["my-stripes"],
}


def test_it_is_read_in_one_go():
    assert len(TEXT.splitlines()) <= 150


def test_each_block_to_add_something_runs(tmp_path: Path):
    blocks = re.findall(r"```python\n(.*?)```", OWN, re.S)
    plugins = [tmp_path / f"block_{number}.py" for number in range(len(blocks))]
    for path, block in zip(plugins, blocks, strict=True):
        path.write_text(block, encoding="utf-8")
    try:
        assert run_suite(SUITE, out=tmp_path, plugins=[str(path) for path in plugins]).complete
        frame = load_results(tmp_path)
    finally:
        for registry in REGISTRIES.values():
            for path in plugins:
                registry.remove_plugin(str(path))
    assert len(blocks) == 4
    assert set(frame["status"]) == {"ok"}
    assert {"my-net"} == set(frame["model"])
    assert {"my-sign"} <= set(frame["attack"])
    assert {("neg-margin", "my-stripes")} <= set(zip(frame["detector"], frame["ood_dataset"], strict=True))


def test_the_suite_that_it_shows_is_one():
    (block,) = re.findall(r"```yaml\n(.*?)```", OWN, re.S)
    assert len(load_suite(yaml.safe_load(block)).attacks) > 5


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_column_of_gauntlet_says_what_it_has():
    rows = re.findall(r"^\| ([^|]+) \| (✓?) *\|", TEXT.partition("## Beside other tools")[2], re.M)
    has = {
        "OOD detectors": len(DETECTORS) > 40,
        "adversarial attacks": bool(load_suite("attacks-full").attacks),
        "corruptions": len(CORRUPTIONS) > 30,
        "calibration and error detection": {"calibration", "misclassification"} <= {one.name for one in EVALUATORS},
        "trains models": len(RECIPES) > 5,
        "downloads trained models of papers": False,
        "interval of every number, paired ranks": hasattr(__import__("gauntlet.results.multiple"), "results"),
        "checks for hidden gradients": "checks" in {one.name for one in EVALUATORS},
        "drift check for CI": hasattr(__import__("gauntlet.results.drift"), "results"),
        "defences, certification, poisoning": False,
    }
    assert {name.strip(): bool(tick) for name, tick in rows if name.strip() in has} == has
