"""What a new detector costs once the leaderboard is there: no forward pass, and seconds of the process below 2."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gauntlet.bench.runner import run_suite
from gauntlet.results.frame import load_results

pytestmark = pytest.mark.benchmark_suite

SUITE: dict[str, Any] = {
    "name": "leaderboard",
    "datasets": ["digits"],
    "models": [{"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 10}}}],
    "evaluators": ["accuracy", "ood"],
    "detectors": ["tag:logits", "tag:features"],
    "ood": {"near": ["glyphs"], "far": ["patches", "gaussian-noise", "uniform-noise", "fake"]},
}
PLUGIN = """from gauntlet import detector
@detector("neg-margin", needs="logits")
def neg_margin(logits):
    \"\"\"Negative gap between the two largest logits.\"\"\"
    top = logits.topk(2).values
    return top[:, 1] - top[:, 0]
"""


def test_adding_a_logit_detector_to_a_finished_leaderboard_takes_less_than_two_seconds(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / "cache"))
    assert run_suite(SUITE, out=tmp_path).complete
    plugin = tmp_path / "neg_margin.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    started = time.process_time()
    outcome = run_suite(SUITE, out=tmp_path, plugins=[str(plugin)])
    taken = time.process_time() - started
    print(f"\none detector more on {len(load_results(tmp_path))} rows: {taken:.2f} s")
    assert outcome.counts["ok"] == 6  # five sets and a mean
    assert taken < 2
