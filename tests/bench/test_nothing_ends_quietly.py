"""A component that ends its program ends its own cells only; what labels hold never reaches a terminal as it is."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from gauntlet.bench import cli
from gauntlet.bench.runner import prepare, run_suite
from gauntlet.registry import GauntletError, harmless
from gauntlet.results.frame import load_results

EXITING = """
import sys
from gauntlet import attack, calibrator, corruption, dataset, detector, evaluator, metric, model, recipe
from gauntlet.bench.evaluators import Evaluator, Job
from torch import nn

@model("exits-model", trained=True)
def a_model():
    sys.exit(0)

@recipe("exits-recipe")
class ARecipe:
    def __init__(self):
        sys.exit(0)

@attack("exits-attack", norm="linf")
def an_attack(images, epsilon):
    sys.exit(0)

@detector("exits-detector")
def a_detector(logits):
    sys.exit(0)

@corruption("exits-corruption")
def a_corruption(images, severity):
    sys.exit(0)

@calibrator("exits-calibrator")
class ACalibrator:
    def __init__(self):
        sys.exit(0)

@metric("exits-metric")
def a_metric(ranking):
    sys.exit(0)

@dataset("exits-dataset", splits=("test",))
def a_dataset(split):
    sys.exit(0)

class ThatExits(Job):
    def run(self, cells, context):
        sys.exit(0)
        yield

@evaluator("exits-evaluator", title="Exits")
class AnEvaluator(Evaluator):
    def plan(self, suite, row, out_sets):
        return [ThatExits(evaluator=self.name, row=row, label=self.name, cells=(self.cell(row),))]

@evaluator("exits-planning", title="Exits")
class APlanner(Evaluator):
    def plan(self, suite, row, out_sets):
        sys.exit(0)
"""
NET = {"name": "cnn-small", "recipe": "none"}
SUITES: dict[str, dict[str, Any]] = {
    "model": {"models": ["exits-model"]},
    "recipe": {"models": [{"name": "cnn-small", "recipe": "exits-recipe"}]},
    "calibrator": {"models": [{**NET, "calibrator": "exits-calibrator"}]},
    "attack": {"attacks": ["exits-attack"], "epsilons": [0.1], "evaluators": ["attack"]},
    "detector": {"detectors": ["exits-detector"], "ood": ["uniform-noise"], "evaluators": ["ood"]},
    "corruption": {"corruptions": ["exits-corruption"], "severities": [1], "evaluators": ["corruption"]},
    "dataset": {"detectors": ["msp"], "ood": ["exits-dataset"], "evaluators": ["ood"]},
    "evaluator": {"evaluators": ["exits-evaluator"]},
    "metric": {"detectors": ["msp"], "ood": ["uniform-noise"], "evaluators": ["ood"]},
}


@pytest.mark.parametrize("kind", SUITES)
def test_a_component_that_ends_its_program_fails_its_cells(tmp_path: Path, write_plugin: Any, kind: str) -> None:
    suite = {"datasets": [{"digits": {"limit": 40}}], "models": [NET], "evaluators": ["accuracy"], **SUITES[kind]}
    without = "" if kind == "metric" else '@metric("exits-metric")'  # it joins every evaluator of scores
    plugin = write_plugin(EXITING.replace(without, ""))
    outcome = run_suite(suite, out=tmp_path / "out", plugins=[plugin])
    frame = load_results(tmp_path / "out")
    failed = frame[frame["status"] == "failed"]
    assert not outcome.complete
    assert len(failed)
    assert failed["reason"].str.contains("SystemExit").all(), failed["reason"].tolist()


def test_an_evaluator_that_ends_its_program_while_it_plans_is_one_sentence(write_plugin: Any) -> None:
    suite = {"datasets": ["digits"], "models": [NET], "evaluators": ["exits-planning"]}
    with pytest.raises(GauntletError, match=r"Evaluator 'exits-planning' .* cannot plan: SystemExit: 0"):
        prepare(suite, plugins=[write_plugin(EXITING)])


HOSTILE = "\x1b]0;pwned\x07 \x1b[2J\x9b31m\r\u202egnp\u2066"
LETTERS = re.compile(r"\\x1b\]0;pwned")
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def test_harmless_leaves_everything_else_as_it_is() -> None:
    assert harmless("naïve\tε ≥ 8/255\n日本語 🙂") == "naïve\tε ≥ 8/255\n日本語 🙂"
    assert not UNSEEN.search(harmless("".join(map(chr, range(0x3000)))))
    assert harmless(harmless(HOSTILE)) == harmless(HOSTILE)


def test_messages_of_errors_are_harmless() -> None:
    assert not UNSEEN.search(str(GauntletError(HOSTILE)))


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of a run whose model, dataset and attack have hostile labels."""
    import yaml

    monkeypatch.chdir(tmp_path)
    attack = {"name": "fgsm", "label": f"attack {HOSTILE}"}
    broken = {"name": "fgsm", "label": f"broken {HOSTILE}", "epsilons": ["minimal"]}
    suite = {
        "name": f"suite {HOSTILE}",
        "datasets": [{"name": "digits", "limit": 40, "label": f"data {HOSTILE}"}],
        "models": [{**NET, "label": f"model {HOSTILE}"}],
        "attacks": [attack, broken],
        "epsilons": [0.1, 2],
        "seeds": 3,
    }
    Path("suite.yaml").write_text(yaml.safe_dump(suite))
    return tmp_path


COMMANDS = [
    ["plan", "suite.yaml"],
    ["plan", "suite.yaml", "--json"],
    ["run", "suite.yaml", "--explain-cache"],
    ["run", "suite.yaml", "--explain-cache"],
    ["train", "suite.yaml"],
    ["table"],
    ["table", "--format", "markdown"],
    ["table", "--where", f"model={HOSTILE}"],
    ["baseline"],
    ["check", "--all"],
    ["log"],
    ["run", f"{HOSTILE}.yaml"],
    ["plan", "suite.yaml", "--plugin", f"{HOSTILE}.py"],
    ["list", HOSTILE],
    [f"--{HOSTILE}"],
]


def test_no_command_writes_what_labels_hold_to_the_terminal(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen = 0
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            cli.main(command)
        written = capfd.readouterr()
        for text in (written.out, written.err):
            assert not UNSEEN.search(text), (command, UNSEEN.search(text), text)
            seen += bool(LETTERS.search(text))
    assert seen > len(COMMANDS) // 2


def test_warnings_that_commands_show_are_harmless(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def warn(*_: Any, **__: Any) -> None:
        print(warnings.formatwarning(f"class {HOSTILE}", UserWarning, "x.py", 1), file=sys.stderr)

    before = warnings.formatwarning
    monkeypatch.setattr(cli.cli, "main", warn)
    with pytest.raises(SystemExit):
        cli.main(["list"])
    text = capsys.readouterr().err
    assert LETTERS.search(text)
    assert not UNSEEN.search(text)
    assert warnings.formatwarning is before
