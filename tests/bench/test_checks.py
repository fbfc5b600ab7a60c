"""The checks: an honest model passes them all, and each finds the model or the attack that it is there to find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gauntlet.attacks import build_attack
from gauntlet.attacks.known_models import Constant, Masked, Randomised, trained
from gauntlet.bench.evaluators import check_context
from gauntlet.bench.evaluators.check_context import AttackRun, CheckContext, CheckResult, NotApplicable
from gauntlet.bench.evaluators.checks import CHECKS, FULL
from gauntlet.bench.runner import run_suite
from gauntlet.datasets import ImageSet
from gauntlet.registry import ATTACKS
from gauntlet.results import load_results
from gauntlet.results.records import CellResult, Measurement
from gauntlet.results.store import Store

from .conftest import small_suite

EXAMPLES = Path(__file__).parent.parent / "examples"


class Bench:
    """A workbench with one model and the digits of the known models."""

    device, batch_size = torch.device("cpu"), 512

    def __init__(self, model: nn.Module, others: tuple[nn.Module, ...] = ()) -> None:
        self.model, self.others = model.eval(), others
        known = trained(count=50)
        classes = tuple(str(label) for label in range(10))
        self.set = ImageSet(known.images, known.labels, classes, torch.arange(50), "digits", "test")

    def module(self) -> nn.Module:
        return self.model

    def module_of(self, row: Any) -> nn.Module:
        return row.module

    def images(self, dataset: Any, split: str) -> ImageSet:
        return self.set

    def outputs(self, dataset: Any, split: str) -> SimpleNamespace:
        with torch.no_grad():
            return SimpleNamespace(logits=self.model(self.set.images), labels=self.set.labels)


class RootOfSquare(nn.Module):
    """The images themselves, with a NaN gradient where they are black."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images * images).sqrt()


def look(name: str, *given: Any, **more: Any) -> CheckResult:
    return CHECKS[name](evidence(*given, **more))


def evidence(
    model: nn.Module | None = None, runs: tuple[AttackRun, ...] = (), failures: Any = (), others: Any = ()
) -> CheckContext:
    row: Any = SimpleNamespace(
        seed=0,
        dataset=SimpleNamespace(name="digits", label="digits", classes=tuple("0123456789")),
        model=SimpleNamespace(label="M"),
    )
    bench: Any = Bench(model or trained().model)
    return CheckContext(row, bench, runs, failures, others)


def trial(attack: str, epsilon: float | None, robust: list[int], **changes: Any) -> AttackRun:
    """A trial of ten images of which these stay right."""
    entry = ATTACKS.get(attack)
    survives = np.isin(np.arange(10), robust)
    arrays = {
        "index": np.arange(10),
        "attacked": np.ones(10, bool),
        "success": ~survives,
        "claimed": ~survives,
        "distances": np.full((4, 10), 0.1),
        "smallest": np.where(survives, np.inf, 0.1),
    }
    passes = (Measurement("forwards", 5.0), Measurement("backwards", 5.0))
    result = CellResult(measurements=passes, arrays={**arrays, **changes})
    return AttackRun(attack, entry, str(entry.meta["norm"]), epsilon, result)


MODEL_CHECKS = [
    "deterministic", "logits", "varied-answers", "gradients", "finite-gradients", "chance-at-large-budget",
    "clean-at-zero", *sorted(FULL),
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in MODEL_CHECKS if name != "transfer-loses"])
def test_an_honest_model_passes(name) -> None:
    verdict = look(name)
    assert verdict.passed
    assert verdict.text.endswith(".")


class Probabilities(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return trained().model(images).softmax(dim=1)


class Detached(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return trained().model(images.detach())


class Saturated(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return trained().model(images) * 1e4


class Purifying(nn.Module):
    """Takes a gradient step of its own before it predicts."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            (step,) = torch.autograd.grad(trained().model(leaf).max(dim=1).values.sum(), leaf)
        return trained().model((images + 0.01 * step.sign()).clamp(0, 1))


@pytest.mark.parametrize(
    ("name", "model", "words"),
    [
        ("deterministic", Randomised(trained().model), "The model is random"),
        ("logits", Probabilities(), "probabilities"),
        ("logits", nn.Sequential(trained().model, nn.Sigmoid()), "values in [0, 1], as independent sigmoids do"),
        ("finite-gradients", nn.Sequential(RootOfSquare(), trained().model), "NaN or infinite at"),
        ("varied-answers", Constant(), "answers '3' to 100% of the clean images: it has learned nothing"),
        ("gradients", Masked(trained().model), "vanishes"),
        ("gradients", Saturated(), "cross entropy for 100%, of the margin for 0%"),
        ("gradients", Detached(), "No gradient of the model's loss reaches the images"),
        ("chance-at-large-budget", Masked(trained().model), "does not see the way"),
        ("noise-loses", Masked(trained().model), "random draws leave"),
        ("intact-graph", Purifying(), "calls torch.autograd.grad"),
        ("intact-graph", Detached(), "No gradient"),
        ("clean-at-zero", Randomised(trained().model, spread=5.0), "predictions differ"),
        ("smooth-loss", Randomised(trained().model, spread=5.0), "loss changes"),
    ],
)
def test_each_check_of_the_model_finds_what_it_is_for(name, model, words) -> None:
    verdict = look(name, model, runs=(trial("fgsm", 0.3, []),))
    assert verdict.passed is False
    assert words in verdict.text


def test_images_made_on_another_model_beat_a_mask() -> None:
    other = SimpleNamespace(module=trained().model, model=SimpleNamespace(label="open"))
    trials = (trial("fgsm", 0.3, []),)
    masked = look("transfer-loses", Masked(trained().model), trials, others=(other,))
    assert masked.passed is False
    assert "made on open and carried over" in masked.text
    assert look("transfer-loses", runs=trials, others=(other,)).passed
    with pytest.raises(NotApplicable):
        look("transfer-loses")


def test_valid_outputs_tells_by_how_much_an_attack_left_its_ball_and_who_claims_too_much() -> None:
    reason = "Attack 'x' at epsilon 0.1: A perturbation has linf norm 0.2, which leaves the ball of radius 0.1 by 0.1."
    failed = replace(trial("fgsm", 0.1, []), result=CellResult("failed", reason, error="InvalidAdversarial"))
    assert look("valid-outputs", failures=(failed,), runs=(trial("fgsm", 0.3, []),)).text == reason
    other = replace(failed, result=CellResult("failed", reason, error="GauntletError"))  # its words decide nothing
    assert look("valid-outputs", failures=(other,), runs=(trial("fgsm", 0.3, []),)).passed
    liar = trial("fgsm", 0.1, list(range(10)), claimed=np.ones(10, bool))
    assert "claims 10 successes" in look("valid-outputs", runs=(liar,)).text
    assert look("valid-outputs", runs=(trial("fgsm", 0.1, [1]),)).passed


def test_checks_of_one_model_share_the_attacks_that_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(check_context, "build_attack", lambda *given: built.append(given) or build_attack(*given))
    context = evidence(runs=(trial("fgsm", 0.3, []),))
    for name in ("converged", "best-iterate", "noise-loses"):
        CHECKS[name](context)
    own = [{"steps": 100, "rel_stepsize": 0.1, "restarts": 3}, {"stop_when_fooled": False}]
    noise = "foolbox/linf/repeated-uniform-noise"
    assert built == [("pgd", {}), ("pgd", own[0]), ("pgd", own[1]), (noise, {})]


def test_valid_outputs_reads_from_the_store_why_an_attack_failed(tmp_path: Path, write_plugin: Any) -> None:
    plugin = write_plugin(
        '''
        from gauntlet import attack

        @attack("far", norm="linf", access="gradient")
        def far(victim, images, labels, epsilon):
            """Twice as far as it may go."""
            return (images + 2 * epsilon).clamp(0, 1)
        '''
    )
    suite = small_suite(attacks=["far", "fgsm"], epsilons=[0.1], evaluators=["attack", "checks"], checks="standard")
    run_suite(suite, out=tmp_path, plugins=[plugin])
    frame = load_results(tmp_path)
    reason = frame[frame["attack"] == "far"]["reason"].item()
    assert "leaves the ball" in reason
    verdict = frame[frame["attack"] == "valid-outputs"]
    assert verdict["metric"].tolist() == ["check_passed"]
    assert verdict["value"].tolist() == [0]
    assert verdict["reason"].tolist() == [reason]


def test_work_done_finds_attacks_that_do_nothing() -> None:
    idle = trial("fgsm", 0.1, list(range(10)))
    unasked = replace(idle, result=replace(idle.result, measurements=()))
    assert "asked the model for nothing" in look("work-done", runs=(unasked,)).text
    still = trial("fgsm", 0.1, list(range(10)), distances=np.zeros((4, 10)))
    assert "left 100% of the images" in look("work-done", runs=(still,)).text
    assert look("work-done", runs=(idle,)).passed
    noise = trial("foolbox/linf/repeated-uniform-noise", 0.1, list(range(10)), distances=np.zeros((4, 10)))
    assert look("work-done", runs=(noise,)).passed  # it returns the original where no draw fools


def test_a_larger_budget_must_not_help() -> None:
    falling = (trial("pgd", 0.1, [1, 2, 3]), trial("pgd", 0.3, [1]))
    rising = (trial("pgd", 0.1, [1]), trial("pgd", 0.3, [1, 2, 3]))
    assert look("monotone", runs=falling).passed
    assert look("monotone", runs=rising).text == (
        "A larger budget helps the model: pgd at 0.3: 30.0% robust, and 10.0% at 0.1."
    )
    single = (trial("fgsm", 0.1, [1]), trial("fgsm", 0.3, [1, 2, 3]))
    with pytest.raises(NotApplicable):  # a single step may overshoot
        look("monotone", runs=single)


@pytest.mark.parametrize(
    ("name", "weaker"), [("iterative-wins", "fgsm"), ("black-box-loses", "foolbox/linf/hopskipjump")]
)
def test_what_should_lose_must_not_win(name, weaker) -> None:
    assert look(name, runs=(trial(weaker, 0.3, [1, 2]), trial("pgd", 0.3, [1]))).passed
    lost = look(name, runs=(trial(weaker, 0.3, [1]), trial("pgd", 0.3, [1, 2, 3])))
    assert lost.passed is False
    assert f"{weaker} leaves 10.0%, the others 30.0% (linf 0.3)" in lost.text
    with pytest.raises(NotApplicable):
        look(name, runs=(trial(weaker, 0.1, [1]), trial("pgd", 0.3, [1])))


def test_the_worst_case_is_taken_image_by_image() -> None:
    text = look("worst-case", runs=(trial("fgsm", 0.3, [1, 2]), trial("pgd", 0.3, [2, 3, 4]))).text
    assert text == "linf 0.3: 10.0% survive all 2 attacks, 20.0% the strongest (fgsm)."


def test_attacks_on_fewer_images_are_compared_on_the_images_they_share() -> None:
    few = trial("foolbox/linf/hopskipjump", 0.3, [])
    arrays = {name: values[..., :2] for name, values in few.result.arrays.items()}
    few = replace(few, result=replace(few.result, arrays=arrays))
    assert "leaves 0.0%, the others 50.0%" in look("black-box-loses", runs=(few, trial("pgd", 0.3, [1, 5, 6]))).text


def test_a_model_that_no_minimum_norm_attack_fools_is_in_doubt_and_a_constant_one_is_not() -> None:
    verdict = look("chance-at-large-budget", Constant(), runs=())
    assert verdict.passed  # it is at chance, whatever an attack does
    never = trial("foolbox/l2/deepfool", 1.0, list(range(10)))
    assert "ever fools 100%" in look("chance-at-large-budget", runs=(never,)).text


# -- in a run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checks") / "out"
    suite = {
        "name": "two",
        "datasets": ["digits"],
        "models": [
            {"name": "cnn-small", "label": "honest", "recipe": {"standard": {"epochs": 12}}},
            {"name": "masked-cnn", "label": "masked", "recipe": {"standard": {"epochs": 12}}},
        ],
        "attacks": ["fgsm", "pgd", "foolbox/l2/ddn", {"name": "foolbox/linf/hopskipjump", "steps": 3}],
        "epsilons": {"linf": [0.1, 0.2], "l2": [1, "minimal"]},
        "attack_images": {"fast": 40, "full": 8},
        "evaluators": ["accuracy", "attack", "checks"],
        "worst_case": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUNTLET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        run_suite(suite, out=out, plugins=[str(EXAMPLES / "masked_cnn.py")])
    return out


def test_the_masked_model_fails_and_the_honest_one_does_not(two_models) -> None:
    frame = load_results(two_models)
    checks = frame[(frame["metric"] == "check_passed")]
    failed = {model: set(part[part["value"] == 0]["attack"]) for model, part in checks.groupby("model")}
    assert failed["honest"] == set()
    assert {"gradients", "chance-at-large-budget", "work-done"} <= failed["masked"]
    assert (checks["reason"].str.len() > 10).all()
    assert set(frame[frame["evaluator"] == "checks"]["status"]) == {"ok"}
    assert not set(checks["attack"]) & FULL


def test_the_tables_mark_the_robust_figures_of_the_masked_model_only(two_models) -> None:
    grid = (two_models / "attack-grid.md").read_text(encoding="utf-8")
    header, *rows = [line.split("|") for line in grid.splitlines() if line.startswith("|")]
    honest, masked = ([title.strip() for title in header].index(name) for name in ("honest", "masked"))
    figures = [row for row in rows[1:] if "clean" not in row[1]]
    assert len(figures) == 7
    assert all("†" in row[masked] and "†" not in row[honest] for row in figures)
    assert "†" not in rows[1][masked]  # clean accuracy is no robust figure
    assert "† masked on digits fails the checks" in grid
    for name in ("checks.md", "checks.tex", "minimal.md"):
        assert "masked" in (two_models / name).read_text(encoding="utf-8")
    assert "textdagger" in (two_models / "attack-grid.tex").read_text(encoding="utf-8")


def test_every_attack_records_passes_and_four_distances(two_models) -> None:
    frame = load_results(two_models)
    cells = frame[(frame["evaluator"] == "attack") & (frame["metric"] == "robust_accuracy")]
    with Store.open(two_models / "store.sqlite") as store:
        for row in cells.itertuples():
            arrays = store.arrays(row.key)
            attacked = int(arrays["attacked"].sum())
            assert len(arrays["index"]) == row.n == (8 if "hopskipjump" in row.attack else 40)
            assert arrays["distances"].shape == (4, attacked)
            linf, l2, l1, l0 = arrays["distances"]
            assert (linf <= l2 + 1e-5).all()
            assert (l2 <= l1 + 1e-5).all()
            assert (l1 <= l0 + 1e-3).all()  # pixels span [0, 1]
            assert np.allclose(arrays["norm"], {"linf": linf, "l2": l2}[row.norm], atol=1e-6)
            assert ("smallest" in arrays) == ("ddn" in row.attack or "hopskipjump" in row.attack)


def test_a_second_run_has_everything_in_the_store(two_models) -> None:
    suite_text = None
    with Store.open(two_models / "store.sqlite") as store:
        suite_text = store.runs()[-1].suite_text
    path = two_models.parent / "two.yaml"
    path.write_text(suite_text, encoding="utf-8")
    outcome = run_suite(path, out=two_models, plugins=[str(EXAMPLES / "masked_cnn.py")])
    assert set(outcome.counts) == {"cached"}


def test_checks_wait_for_attacks_that_failed_and_look_again(
    tmp_path, write_plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = '''
        import os
        from gauntlet import attack
        from gauntlet.attacks.base import Attack, verified

        @attack("moody", norm="linf", kind="fixed", access="none", cost="fast")
        class Moody(Attack):
            """Fails in a mood."""

            def attack(self, victim, images, labels, epsilons, rng):
                if "MOOD" in os.environ:
                    raise ValueError("not today")
                return [verified(victim, images, labels, images, "linf", epsilon) for epsilon in epsilons]
    '''
    suite = small_suite(attacks=["fgsm"], checks="standard", epsilons=[0.1], detectors=None, ood=None)
    run = lambda: run_suite(suite, out=tmp_path, plugins=[write_plugin(code)])  # noqa: E731
    monkeypatch.setenv("MOOD", "bad")
    first = run()
    assert first.counts["failed"] == 1
    frame = load_results(tmp_path)
    waiting = frame[(frame["evaluator"] == "checks") & (frame["status"] == "skipped")]
    assert len(waiting)
    assert waiting["reason"].str.startswith("Cannot be judged: 1 attack cell failed; so far: ").all()
    judged = frame[(frame["evaluator"] == "checks") & (frame["status"] == "ok")]
    assert set(judged["attack"]) == {"deterministic", "logits", "varied-answers", "gradients", "finite-gradients"}
    monkeypatch.delenv("MOOD")
    assert set(run().counts) == {"cached", "ok"}
