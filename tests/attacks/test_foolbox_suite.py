"""The foolbox adapters against foolbox called directly."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import foolbox
import numpy as np
import pytest
import torch

from gauntlet.attacks import PerImageRNG, Victim, check_ball
from gauntlet.attacks.foolbox_row import HIDDEN
from gauntlet.attacks.foolbox_rows import ROWS
from gauntlet.datasets.per_image_rng import seeded
from gauntlet.registry import ATTACKS, GauntletError, source_fingerprint

EPSILONS = [0.1, 0.5, 2.0]
R2_ROWS = [row for row in ROWS if "r2" in row.tags]
SHORT = {"SAPNA": {"steps": 50}}
R2 = {
    "LinFGA": ("foolbox/linf/fgsm", "linf", "fixed"),
    "LinPGDA": ("foolbox/linf/pgd", "linf", "fixed"),
    "L2FGA": ("foolbox/l2/fgm", "l2", "fixed"),
    "L2BIA": ("foolbox/l2/bim", "l2", "fixed"),
    "L2DFA": ("foolbox/l2/deepfool", "l2", "minimum-norm"),
    "L2AGNA": ("foolbox/l2/gaussian-noise", "l2", "fixed"),
    "SAPNA": ("foolbox/l2/salt-and-pepper", "l2", "minimum-norm"),
}


def run(name: str, model, data, epsilons, **parameters):
    images, labels = data
    with Victim(model, memory_format=torch.contiguous_format) as victim:
        rng = PerImageRNG("k", torch.arange(len(images)))
        return ATTACKS.create(name, **parameters).run(victim, images, labels, epsilons, rng=rng)


@pytest.fixture
def some(correct):
    return correct[0][:60], correct[1][:60]


def test_the_seven_attacks_of_the_report_are_there_under_its_names() -> None:
    found = {
        entry.aliases[0]: (entry.name, entry.meta["norm"], entry.meta["kind"]) for entry in ATTACKS.match("tag:r2")
    }
    assert found == R2


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_parameters_and_defaults_are_foolboxes_and_the_chunk(row) -> None:
    entry = ATTACKS.get(row.name)
    original = getattr(foolbox.attacks, row.source)
    theirs = {} if original.__init__ is object.__init__ else inspect.signature(original).parameters
    expected = {name: parameter.default for name, parameter in theirs.items() if name not in HIDDEN}
    ours = {"norm": "l2"} if "distance" in entry.meta["inputs"] and row.norm == "l2" else {}
    assert entry.defaults() == {**expected, **row.given, **ours, "chunk": row.chunk}
    for parameter in entry.parameters:
        assert parameter.check(parameter.default, "") == parameter.default
        assert parameter.type_name != "any"


@pytest.mark.parametrize("row", R2_ROWS, ids=lambda row: row.name)
def test_images_and_success_are_foolboxes(trained, some, row) -> None:
    parameters = SHORT.get(row.alias, {})
    results = run(row.name, trained, some, EPSILONS, **parameters)
    seed = PerImageRNG("k", torch.arange(60)).seed(row.name)
    for level, (result, epsilon) in enumerate(zip(results, EPSILONS, strict=True)):
        check_ball(result.images, some[0], row.norm, epsilon)
        asked = EPSILONS if result.smallest is not None else [epsilon]
        with seeded(seed, torch.device("cpu")):
            attack = getattr(foolbox.attacks, row.source)(**parameters)
            raw, clipped, success = attack(foolbox.PyTorchModel(trained, (0, 1), device="cpu"), *some, epsilons=asked)
        at = level if result.smallest is not None else 0
        torch.testing.assert_close(result.images, clipped[at], rtol=0, atol=1e-6)
        assert (result.success == success[at]).float().mean() >= 59 / 60  # scaled to the boundary: rounding decides
        if result.smallest is not None:
            torch.testing.assert_close(result.smallest, (raw[0] - some[0]).flatten(1).norm(dim=1))


def test_gaussian_noise_has_the_size_of_the_budget_where_nothing_is_clipped(trained, some) -> None:
    images, labels = some
    (result,) = run("L2AGNA", trained, (images / 4 + 0.375, labels), [0.5])
    torch.testing.assert_close(result.norms, torch.full((60,), 0.5), rtol=1e-5, atol=0)


def test_noise_lost_to_clipping_makes_the_perturbation_smaller(trained, some) -> None:
    (result,) = run("L2AGNA", trained, some, [3.0])
    assert (result.norms < 2.7).all()


def test_a_minimum_norm_attack_runs_once_for_all_epsilons(trained, some) -> None:
    one = run("SAPNA", trained, some, [1.5], steps=50)[0]
    three = run("SAPNA", trained, some, [0.3, 1.5, 10.0], steps=50)[1]
    assert torch.equal(one.images, three.images)
    assert torch.equal(one.smallest, three.smallest)
    assert one.forwards == three.forwards == (1 + 50 + 1 + 1) * 60


@pytest.mark.parametrize(("name", "passes"), [("LinFGA", (2, 1)), ("LinPGDA", (41, 40)), ("L2AGNA", (1, 0))])
def test_passes_inside_foolbox_are_counted(trained, some, name, passes) -> None:
    for result in run(name, trained, some, [0.1, 0.2]):
        assert (result.forwards / 60, result.backwards / 60) == passes


def test_draws_repeat_and_depend_on_the_chunk(trained, some) -> None:
    once, again, other = (run("L2AGNA", trained, some, [1.0], chunk=chunk)[0] for chunk in (16, 16, 60))
    assert torch.equal(once.images, again.images)
    assert not torch.equal(once.images, other.images)


def test_attacks_without_draws_do_not_depend_on_the_chunk(trained, some) -> None:
    one, other = (run("L2DFA", trained, some, [0.5], chunk=chunk)[0] for chunk in (16, 60))
    torch.testing.assert_close(one.images, other.images, rtol=0, atol=1e-5)


def test_the_global_generators_are_left_alone(trained, some) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    run("LinPGDA", trained, some, [0.1])
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_attacks_run_under_no_grad(trained, some) -> None:
    with torch.no_grad():
        assert run("LinFGA", trained, some, [0.3])[0].success.any()


def test_what_foolbox_cannot_do_is_one_sentence_that_names_the_attack(trained, some) -> None:
    with pytest.raises(
        GauntletError, match="foolbox/l2/deepfool: foolbox raised ValueError: expected the model output"
    ):
        run("L2DFA", trained, some, [0.5], candidates=1)
    with pytest.raises(GauntletError, match="chunk >= 1"):
        run("L2DFA", trained, some, [0.5], chunk=0)


def test_each_row_has_a_fingerprint_of_its_own() -> None:
    prints = {source_fingerprint(entry) for entry in ATTACKS}
    assert len(prints) == len(ATTACKS)


def test_foolbox_loads_where_there_is_no_git_program() -> None:
    """GitPython, which foolbox imports, raises without git on the PATH."""
    env = {key: value for key, value in os.environ.items() if key not in ("PATH", "GIT_PYTHON_REFRESH")}
    code = "import gauntlet.attacks.foolbox_suite as suite; print(len(suite.ROWS))"
    done = subprocess.run([sys.executable, "-c", code], env={**env, "PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(len(ROWS))
