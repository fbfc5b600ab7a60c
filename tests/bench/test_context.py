"""Contexts: each row has its own, several live side by side, and a job takes its own to another process."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gauntlet.bench.context import Resources, RowContext
from gauntlet.bench.evaluators.attack_measures import AttackedTargets
from gauntlet.bench.execution import Execution
from gauntlet.bench.runner import prepare, run_suite
from gauntlet.registry import ATTACKS
from gauntlet.registry.folders import cache_folder
from gauntlet.results.frame import load_results
from gauntlet.results.records import CellResult
from gauntlet.results.store import Store

from .conftest import small_suite

MODELS = [
    {"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 3}}},
    {"name": "cnn-small", "label": "other", "recipe": {"standard": {"epochs": 1}}},
]
EVERYTHING = ["accuracy", "calibration", "ood", "attack", "adversarial-detection"]
EPSILONS = [0.1, 0.3]

Work = list[tuple[Any, RowContext]]
Results = dict[str, CellResult]


def contexts(resources: Resources, **changes: Any) -> list[Work]:
    """For each row, its jobs with the context that they share."""
    plan, _ = prepare(small_suite(models=MODELS, evaluators=EVERYTHING, epsilons=EPSILONS, **changes))
    rows = {id(job.row): job.row for job in plan.jobs}
    found = []
    for key, row in rows.items():
        jobs = [job for job in plan.jobs if id(job.row) == key]
        needs = {need for job in jobs for need in job.needs(job.cells)}
        context = RowContext(row, plan.suite, resources, needs)
        found.append([(job, context) for job in jobs])
    return found


def compute(work: Sequence[tuple[Any, RowContext]]) -> Results:
    """The results of jobs, one after the other, in their contexts."""
    return dict(result for job, context in work for result in job.run(job.cells, context))


def equal(first: Results, second: Results) -> bool:
    """Whether the same cells have the same measurements and arrays, bit for bit."""
    return first.keys() == second.keys() and all(
        one.measurements == second[key].measurements and same_arrays(one.arrays, second[key].arrays)
        for key, one in first.items()
    )


def same_arrays(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture
def resources() -> Resources:
    return Resources(torch.device("cpu"), cache_folder())


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    """Another process, which can import this file."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_two_rows_side_by_side_give_what_they_give_one_after_the_other(resources: Resources):
    first, second = contexts(resources)
    apart = {**compute(first), **compute(second)}
    first, second = contexts(resources)
    interleaved = compute([one for pair in zip(first, second, strict=True) for one in pair])
    assert {one.status for one in apart.values()} == {"ok"}
    assert equal(apart, interleaved)


def test_a_job_and_its_context_can_run_in_another_process(resources: Resources, elsewhere: Executor):
    work = contexts(resources)[0]
    here = compute(work)
    there = dict(result for part in work for result in elsewhere.submit(compute, [part]).result().items())
    assert equal(here, there)


def test_what_travels_holds_neither_weights_nor_images(resources: Resources):
    work = contexts(resources)[0]
    compute(work)
    assert len(pickle.dumps(work)) < 200_000  # the digits alone are 1.4 MB


def test_a_context_in_another_process_still_reads_what_is_stored(tmp_path: Path, elsewhere: Executor):
    run_suite(small_suite(worst_case=True, evaluators=["attack"]), out=tmp_path)
    plan, _ = prepare(small_suite(worst_case=True, evaluators=["attack"]))
    derived = plan.jobs[-1]
    with Store.open(tmp_path / "store.sqlite") as store:
        resources = Resources(torch.device("cpu"), cache_folder())
        context = RowContext(derived.row, plan.suite, resources, stored=store.result)
        here = compute([(derived, context)])
        there = elsewhere.submit(compute, [(derived, context)]).result()
    assert {one.status for one in here.values()} == {"ok"}
    assert equal(here, there)


def test_the_context_of_a_finished_row_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[weakref.ref[RowContext]] = []
    alive: list[int] = []
    original = Execution._context

    def noted(self: Execution, *given: Any) -> RowContext:
        gc.collect()
        alive.append(sum(context() is not None for context in made))
        context = original(self, *given)
        made.append(weakref.ref(context))
        return context

    monkeypatch.setattr(Execution, "_context", noted)
    assert run_suite(small_suite(models=MODELS), out=tmp_path).complete
    assert alive == [0, 0]


# -- an attack runs once --------------------------------------------------------------------------------------

COUNTED = '''
    from gauntlet import attack

    CALLS = []

    @attack("counted", norm="linf", access="gradient")
    def counted(victim, images, labels, epsilon):
        """One step along the sign of the gradient."""
        CALLS.append(float(epsilon))
        gradient, _ = victim.gradient(images, labels)
        return (images + FAR * epsilon * gradient.sign()).clamp(0, 1)
'''
BOTH = ["attack", "adversarial-detection"]


def calls() -> list[float]:
    """Budgets at which the plug-in's attack was asked, in order."""
    return ATTACKS.get("counted").factory.__globals__["CALLS"]


def test_evaluators_share_what_an_attack_made(tmp_path: Path, write_plugin: Any):
    plugin = write_plugin(COUNTED.replace("FAR", "1"))
    suite = small_suite(evaluators=BOTH, attacks=["counted"], epsilons=[0.1, 0.3], examples=None)
    assert run_suite(suite, out=tmp_path / "both", plugins=[plugin]).complete
    assert calls() == [0.1, 0.3]
    for name in BOTH:
        run_suite({**suite, "evaluators": [name]}, out=tmp_path / "apart", plugins=[plugin])
    with Store.open(tmp_path / "both") as both, Store.open(tmp_path / "apart") as apart:
        found = load_results(tmp_path / "both")
        assert set(found["evaluator"]) == set(BOTH)
        assert all(same_arrays(both.arrays(key), apart.arrays(key)) for key in found["key"])


def test_a_later_evaluator_makes_only_the_budgets_that_are_absent(tmp_path: Path, write_plugin: Any):
    plugin = write_plugin(COUNTED.replace("FAR", "1"))
    suite = small_suite(evaluators=["attack"], attacks=["counted"], epsilons=[0.1])
    run_suite(suite, out=tmp_path, plugins=[plugin])
    run_suite({**suite, "evaluators": BOTH, "epsilons": [0.1, 0.3]}, out=tmp_path, plugins=[plugin])
    assert calls() == [0.1, 0.3, 0.1]  # the image of 0.1 is gone with the first run, its cell is not


def test_an_attack_that_breaks_its_promise_is_not_tried_again(tmp_path: Path, write_plugin: Any):
    plugin = write_plugin(COUNTED.replace("FAR", "(1 if epsilon < 0.2 else 2)"))
    suite = small_suite(evaluators=BOTH, attacks=["counted"], epsilons=[0.1, 0.3])
    outcome = run_suite(suite, out=tmp_path, plugins=[plugin])
    assert not outcome.complete
    assert calls() == [0.1, 0.3]
    frame = load_results(tmp_path).drop_duplicates("key").set_index(["evaluator", "epsilon"])
    frame = frame.sort_index()
    assert set(frame.loc[[("attack", 0.1)], "status"]) == {"ok"}
    for name in BOTH:
        bad = frame.loc[[(name, 0.3)]]
        assert set(bad["status"]) == {"failed"}
        assert bad["reason"].str.contains("Attack 'counted' at epsilon 0.3: .*leaves the ball").all()


def test_images_of_an_attack_are_forgotten_before_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: weakref.WeakSet[AttackedTargets] = weakref.WeakSet()
    kept: list[int] = []
    original = AttackedTargets.at

    def noted(self: AttackedTargets, epsilons: Sequence[float]) -> Any:
        made.add(self)
        gc.collect()
        kept.append(len(made))
        return original(self, epsilons)

    monkeypatch.setattr(AttackedTargets, "at", noted)
    assert run_suite(small_suite(evaluators=BOTH, epsilons=[0.3]), out=tmp_path).complete
    assert kept == [1] * 4  # two attacks, two evaluators
