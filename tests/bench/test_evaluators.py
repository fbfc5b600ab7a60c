"""Evaluators: one file adds one, with its metric, table and section of the page; what a suite says is used or noted."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gauntlet.bench.evaluators import build_evaluator
from gauntlet.bench.evaluators.ood import OODTask, Scorer
from gauntlet.bench.jobs import OODSet
from gauntlet.bench.listing import listing, showing
from gauntlet.bench.plan import Plan, make_plan
from gauntlet.bench.runner import prepare, run_suite
from gauntlet.bench.suite import parse_suite
from gauntlet.datasets import DataSource
from gauntlet.registry import EVALUATORS, GauntletError
from gauntlet.results.frame import load_results
from gauntlet.results.metrics import METRICS
from gauntlet.results.page import build_page
from gauntlet.results.plots import kinds
from gauntlet.results.store import Store

from .conftest import small_suite

SHARPNESS = '''
    """How certain a model is: an evaluator in one file."""

    from gauntlet import evaluator, metric
    from gauntlet.bench.evaluators import Evaluator, Job
    from gauntlet.results.declarations import TableSpec
    from gauntlet.results.estimates import estimate
    from gauntlet.results.metrics.outcomes import mean
    from gauntlet.results.records import CellResult, Measurement
    from gauntlet.results.samples import Values

    TITLE = "How sharp models are on {dataset}"
    TABLE = TableSpec("sharpness", TITLE, "sharpness", ("sharpness",), ("model",), ("metric",))


    @metric("sharpness", title="Sharpness", evaluators=("sharpness",))
    def sharpness(values):
        """Mean squared largest probability."""
        return mean(values)


    @evaluator("sharpness", title="Sharp answers", needs="logits", metrics=("sharpness",), tables=(TABLE,))
    class Sharpness(Evaluator):
        """How sharp the softmax of a model is."""

        def plan(self, suite, row, out_sets):
            return [SharpnessJob(evaluator=self.name, row=row, label=self.name, cells=(self.cell(row),))]


    class SharpnessJob(Job):
        """One pass over the test split."""

        def run(self, cells, context):
            logits = context.outputs(self.row.dataset, "test").logits
            largest = logits.softmax(1).amax(1).cpu().numpy()
            found = estimate(["sharpness"], Values(largest**2))["sharpness"]
            yield cells[0].key, CellResult(measurements=(Measurement("sharpness", *found, len(largest)),))
'''
NO_AXES = {"attacks": None, "epsilons": None, "detectors": None, "ood": None}


@pytest.fixture
def sharpness(write_plugin: Any) -> str:
    return write_plugin(SHARPNESS, "sharpness.py")


def test_one_plug_in_file_adds_an_evaluator_with_metric_table_and_section_of_the_page(tmp_path: Path, sharpness: str):
    suite = small_suite(evaluators=["accuracy", "sharpness"], **NO_AXES)
    out = tmp_path / "out"
    assert run_suite(suite, out=out, plugins=[sharpness]).complete
    (row,) = load_results(out).query("evaluator == 'sharpness'").itertuples()
    assert row.metric == "sharpness"
    assert 0.01 < row.ci_low < row.value < row.ci_high <= 1
    assert "How sharp models are on digits" in (out / "sharpness.md").read_text(encoding="utf-8")
    with Store.open(out) as store:
        page = build_page(load_results(out), store)
    assert "Sharp answers" in page
    text, problems = listing(["evaluators"], [sharpness])
    assert "sharpness" in text
    assert "Sharp answers" in showing("evaluator", "sharpness", [sharpness])[0]
    assert not problems


def test_its_table_stands_where_the_plug_in_is_absent(tmp_path: Path, sharpness: str):
    run_suite(small_suite(evaluators=["sharpness"], **NO_AXES), out=tmp_path, plugins=[sharpness])
    code = "import gauntlet.__main__ as main, sys; sys.argv[0] = 'gauntlet'; main.main()"
    command = [sys.executable, "-c", code, "table", "sharpness", "--out", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "How sharp models are on digits" in answer.stdout
    assert "Sharpness" in answer.stdout


def test_a_suite_that_names_no_evaluators_has_those_whose_keys_it_gives(tmp_path: Path, write_plugin: Any):
    prepare(small_suite(), plugins=[write_plugin(SHARPNESS.replace("needs=", 'default_with=("detectors",), needs='))])
    text = "datasets: digits\nmodels: cnn-small\n"
    assert parse_suite(text, where="x").evaluators == ("accuracy", "calibration")
    given = parse_suite(f"{text}detectors: msp\nood: glyphs\n", where="x")
    assert given.evaluators == ("accuracy", "calibration", "ood", "sharpness")


def test_an_evaluator_is_named_where_there_is_none_of_that_name(sharpness: str):
    with pytest.raises(GauntletError, match=r"unknown evaluator 'sharpnes'; did you mean 'sharpness'\?"):
        prepare(small_suite(evaluators=["sharpnes"]), plugins=[sharpness])


@pytest.mark.parametrize("name", [entry.name for entry in EVALUATORS])
def test_what_an_evaluator_declares_exists(name: str):
    declared = build_evaluator(name).declaration
    assert declared.title
    assert {metric.name for metric in declared.metrics} <= set(METRICS)
    assert set(declared.plots) <= set(kinds())
    assert {table.evaluator for table in declared.tables} <= {name}


def test_evaluators_measure_what_they_declare(tmp_path: Path):
    names = ["accuracy", "calibration", "ood", "open-set", "attack", "adversarial-detection", "checks", "corruption"]
    suite = small_suite(evaluators=names, epsilons=[0.3], checks="standard", corruptions=["gaussian-noise"])
    run_suite(suite, out=tmp_path)
    for name, rows in load_results(tmp_path).query("status == 'ok'").groupby("evaluator"):
        declared = {metric.name for metric in build_evaluator(str(name)).declaration.metrics}
        assert set(rows["metric"]) - {""} <= declared  # a check without a figure has none


def test_jobs_travel_to_other_processes():
    plan, _ = prepare(small_suite(evaluators=[*("ood", "attack", "adversarial-detection", "checks", "open-set")]))
    for job in plan.jobs:
        again = pickle.loads(pickle.dumps(job))
        assert [cell.key for cell in again.cells] == [cell.key for cell in job.cells]
        assert type(again) is type(job)


# -- planning says what it drops ------------------------------------------------------------------------------

HEAD = "datasets: digits\nmodels: autoencoder\n"


def planned(text: str, tmp_path: Path) -> Plan:
    return make_plan(parse_suite(text, where="my.yaml"), DataSource(root=tmp_path, cache=tmp_path))


def test_every_evaluator_that_reads_ood_sets_gets_them(tmp_path: Path):
    plan = planned(f"{HEAD}ood: glyphs\nevaluators: reconstruction\n", tmp_path)
    assert [cell.identity.ood_dataset for cell in plan.cells] == ["", "glyphs"]
    assert plan.notes == ()


CNN = "datasets: digits\nmodels: cnn-small\nattacks: fgsm\n"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            f"{HEAD}detectors: msp\nood: glyphs\nevaluators: reconstruction\n",
            "my.yaml:3:1: nothing .* uses 'detectors'",
        ),
        (
            f"{CNN}evaluators: accuracy\n",
            "my.yaml:3:1: nothing in this suite uses 'attacks'; .*: adversarial-detection",
        ),
        (f"{CNN}false_alarm_rates: 0.1\n", "my.yaml:4:1: nothing in this suite uses 'false_alarm_rates'; .*: open-set"),
        (f"{CNN}severities: 3\n", "my.yaml:4:1: nothing in this suite uses 'severities'; .*: corruption"),
        (f"{CNN}shifted: glyphs\n", "my.yaml:4:1: nothing in this suite uses 'shifted'"),
        (f"{CNN}epsilons: {{linf: [0.1], l2: [1]}}\n", "my.yaml:4:25: no attack of this suite .* l2 epsilons"),
        (f"{CNN}attack_images: {{fast: 10, full: 5}}\n", "my.yaml:4:27: no attack of this suite is full"),
        (
            f"{CNN}detectors: msp\nood: glyphs\ntune: true\n",
            "my.yaml:6:1: no detector of this suite has .* left to tune",
        ),
    ],
)
def test_what_nothing_uses_is_noted_with_its_place(tmp_path: Path, text: str, note: str):
    (only,) = planned(text, tmp_path).notes
    assert re.match(note, only), only


def test_what_is_used_is_not_noted(tmp_path: Path):
    attacks = "epsilons: {linf: [0.1]}\nattack_images: {fast: 10}\nworst_case: false\n"
    text = f"{CNN}{attacks}detectors: ash\nood: glyphs\ntune: true\n"
    assert planned(text, tmp_path).notes == ()


def test_a_detector_that_fits_no_model_is_left_out_whoever_asks(tmp_path: Path):
    detectors = "[msp, {name: discriminator, label: open-set}]"
    text = f"{CNN}detectors: {detectors}\nood: glyphs\nevaluators: [open-set, ood, attack]\n"
    plan = planned(text, tmp_path)
    (left,) = plan.left_out
    assert left.what == "open-set of cnn-small on digits"
    assert {cell.identity.evaluator for cell in plan.cells} == {
        "open-set",
        "ood",
        "attack",
    }


# -- mutations that were not seen -----------------------------------------------------------------------------


def test_shifted_images_of_another_dataset_are_other_images():
    sizes = {"digits": 4, "other": 3}
    dataset = {name: SimpleNamespace(name=name, classes=()) for name in sizes}
    context: Any = SimpleNamespace(
        images=lambda one, _: SimpleNamespace(indices=torch.arange(sizes[one.name])),
        outputs=lambda *_: SimpleNamespace(labels=torch.zeros(4)),
    )
    shifted = tuple(OODSet("", dataset[name], shifted=True) for name in ("digits", "other"))
    task = OODTask(SimpleNamespace(), "", "", (OODSet("", dataset["other"]),), shifted)
    inside, outside = Scorer(SimpleNamespace(dataset=dataset["digits"]), context)._numbers(task, 3)
    clean, turned, other = inside[:4], inside[4:8], inside[8:]
    assert clean.tolist() == turned.tolist()
    groups = [set(clean.tolist()), set(other.tolist()), set(outside.tolist())]
    assert len(set().union(*groups)) == sum(map(len, groups)) == 4 + 3 + 3


def test_of_equal_hyper_parameters_the_first_is_taken(tmp_path: Path, write_plugin: Any):
    plugin = write_plugin('''
        from gauntlet import detector

        @detector("scaled", needs="logits", grid={"by": [2.0, 1.0, 4.0]})
        def scaled(logits, *, by: float = 1.0):
            """Not a score that a factor changes."""
            return -by * logits.amax(1)
    ''')
    run_suite(small_suite(evaluators=["ood"], detectors=["scaled"], tune=True), out=tmp_path, plugins=[plugin])
    assert set(load_results(tmp_path).query("metric == 'tuned_by'")["value"]) == {2.0}


def test_attacks_get_a_thousand_images_unless_told_otherwise():
    suite = parse_suite(CNN, where="x")
    assert {suite.images_for(cost) for cost in ("fast", "standard", "full")} == {1000}
