"""Budgets of attacks: norms, fractions, minimal, and what is refused; one bad cell leaves the others alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gauntlet.attacks import PerImageRNG, Victim
from gauntlet.attacks.known_models import exact_distances, linear, trained
from gauntlet.attacks.smallest_epsilon import largest_distance, smallest_epsilons
from gauntlet.bench.runner import run_suite
from gauntlet.registry import ATTACKS
from gauntlet.results import load_results
from gauntlet.results.store import Store

from .conftest import small_suite

ONLY_ATTACKS = {"detectors": None, "ood": None, "evaluators": ["attack"]}


def search(name: str, known, **parameters) -> torch.Tensor:
    with Victim(known.model) as victim:
        draws = PerImageRNG("k", torch.arange(len(known.images)))
        return smallest_epsilons(ATTACKS.create(name, **parameters), victim, known.images, known.labels, draws)


def test_bisection_finds_the_least_budget_that_succeeds_and_not_less() -> None:
    known = trained()
    found = search("fgsm", known)
    assert found.isfinite().float().mean() > 0.9
    with Victim(known.model) as victim:
        for i in found.isfinite().nonzero().flatten()[:8].tolist():
            image, label, draws = known.images[i : i + 1], known.labels[i : i + 1], PerImageRNG("k", torch.tensor([i]))
            at, below = (
                ATTACKS.create("fgsm").run(victim, image, label, [float(epsilon)], rng=draws)[0].success.item()
                for epsilon in (found[i], found[i] - 1 / 4096)
            )
            assert at
            assert not below


@pytest.mark.parametrize(("name", "norm", "parameters"), [("fgsm", "l2", {"norm": "l2"}), ("fgsm", "linf", {})])
def test_on_a_linear_model_no_budget_is_below_the_exact_distance(name, norm, parameters) -> None:
    known = linear()
    found, exact = search(name, known, **parameters), exact_distances(known, norm)
    assert (found >= exact * 0.9999).all()
    assert (found[found.isfinite()] / exact[found.isfinite()]).median() < 3


def test_a_minimum_norm_attack_needs_no_search() -> None:
    known = trained()
    with Victim(known.model) as victim:
        draws = PerImageRNG("k", torch.arange(len(known.images)))
        (result,) = ATTACKS.create("foolbox/l0/fmn").run(victim, known.images, known.labels, [1], rng=draws)
    assert torch.equal(search("foolbox/l0/fmn", known), result.smallest.double())


def test_the_search_is_as_wide_as_two_images_can_be_apart() -> None:
    images = torch.zeros(1, 3, 4, 5)
    assert [largest_distance(norm, images) for norm in ("linf", "l2", "l1", "l0")] == [
        1.0,
        pytest.approx(60**0.5),
        60.0,
        20.0,
    ]


def test_minimal_gives_the_median_over_all_images_with_errors_as_zero(tmp_path) -> None:
    attacks = [{"name": "fgsm", "epsilons": ["minimal", 0.1]}, {"name": "foolbox/l2/ddn", "epsilons": ["minimal", 1]}]
    run_suite(small_suite(attacks=attacks, epsilons=None, **ONLY_ATTACKS), out=tmp_path)
    frame = load_results(tmp_path)
    medians = frame[(frame["metric"] == "median_norm") & frame["epsilon"].isna()]
    assert list(medians["attack"]) == ["fgsm", "foolbox/l2/ddn"]
    assert (medians["n"] == 40).all()
    with Store.open(tmp_path / "store.sqlite") as store:
        for row in medians.itertuples():
            arrays = store.arrays(row.key)
            sizes = np.concatenate([arrays["smallest"], np.zeros(40 - len(arrays["smallest"]))])
            assert row.value == pytest.approx(np.median(sizes), rel=1e-6)
    ddn = frame[(frame["metric"] == "median_norm") & (frame["attack"] == "foolbox/l2/ddn")]
    assert ddn["value"].nunique() == 1  # one run serves every epsilon
    assert "fgsm" in (tmp_path / "minimal.md").read_text(encoding="utf-8")


def test_budgets_go_by_norm_and_an_l0_budget_that_is_no_number_of_pixels_is_one_skipped_cell(tmp_path) -> None:
    attacks = ["fgsm", "foolbox/l0/fmn", "foolbox/none/spatial", "foolbox/l2/binarization-refinement"]
    outcome = run_suite(small_suite(attacks=attacks, epsilons=["8/255", 2], **ONLY_ATTACKS), out=tmp_path)
    assert outcome.counts == {"ok": 4, "skipped": 3}
    assert outcome.complete
    frame = load_results(tmp_path)
    reasons = set(frame[frame["status"] == "skipped"]["reason"])
    assert "Attack 'foolbox/l0/fmn': an L0 epsilon must be a whole number of pixels, got 0.0313725." in reasons
    assert any("cannot work here" in reason for reason in reasons)
    spatial = frame[frame["attack"] == "foolbox/none/spatial"]
    assert spatial["epsilon"].isna().all()
    assert set(spatial["norm"]) == {"none"}


BAD = {
    "nan": ("logits * float('nan')", "gives logits that are not finite for"),
    "detached": ("self.inner(images.detach())", "No gradient of the model's loss reaches the images"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_model_that_cannot_be_attacked_is_one_sentence_and_the_others_go_on(tmp_path, write_plugin, what) -> None:
    returned, reason = BAD[what]
    plugin = write_plugin(
        f'''
        from gauntlet import model
        from gauntlet.models.cnn_small import CNNSmall
        from torch import nn

        @model("bad")
        class Bad(nn.Module):
            """Wrong."""

            def __init__(self, *, classes: int = 10) -> None:
                super().__init__()
                self.inner = CNNSmall(classes=classes)

            def forward(self, images):
                logits = self.inner(images)
                return {returned}
        '''
    )
    models = [{"name": name, "recipe": "none"} for name in ("bad", "cnn-small")]
    suite = small_suite(models=models, attacks=["fgsm", "foolbox/linf/uniform-noise"], epsilons=[0.1], **ONLY_ATTACKS)
    run_suite(suite, out=tmp_path, plugins=[plugin])
    frame = load_results(tmp_path)
    assert set(frame[frame["model"] == "cnn-small"]["status"]) == {"ok"}
    bad = frame[(frame["model"] == "bad") & (frame["attack"] == "fgsm")]
    assert set(bad["status"]) == {"failed"}
    assert reason in bad["reason"].iloc[0]
    assert bad["reason"].iloc[0].count(". ") == 0
    other = frame[(frame["model"] == "bad") & (frame["attack"] == "foolbox/linf/uniform-noise")]
    assert set(other["status"]) == ({"failed"} if what == "nan" else {"ok"})


def test_an_attack_that_leaves_its_ball_fails_alone_and_says_by_how_much(tmp_path, write_plugin) -> None:
    plugin = write_plugin(
        '''
        from gauntlet import attack
        from gauntlet.attacks.base import Attack, verified

        @attack("outside", norm="linf", kind="fixed", access="none", cost="fast")
        class Outside(Attack):
            """Goes twice as far as it may."""

            def attack(self, victim, images, labels, epsilons, rng):
                for epsilon in epsilons:
                    yield verified(victim, images, labels, (images + 2 * epsilon).clamp(0, 1), "linf", epsilon)
        '''
    )
    suite = small_suite(attacks=["fgsm"], epsilons=[0.1], checks="standard", detectors=None, ood=None)
    run_suite(suite, out=tmp_path, plugins=[plugin])
    frame = load_results(tmp_path)
    (failed,) = frame[(frame["attack"] == "outside")]["reason"].unique()
    assert "has linf norm 0.2, which leaves the ball of radius 0.1 by 0.1" in failed
    assert set(frame[frame["attack"] == "fgsm"]["status"]) == {"ok"}
    verdict = frame[(frame["attack"] == "valid-outputs") & (frame["metric"] == "check_passed")]
    assert verdict["value"].item() == 0
    assert verdict["reason"].item() == failed


def test_labels_that_the_model_has_no_class_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from gauntlet.bench.evaluators.attack_measures import find_targets
    from gauntlet.registry import GauntletError

    known = trained()
    outputs = SimpleNamespace(logits=known.model(known.images)[:, :7].detach(), labels=known.labels)
    bench = SimpleNamespace(images=lambda *_: known.images, outputs=lambda *_: outputs)
    row = SimpleNamespace(dataset=SimpleNamespace(name="d", label="d"), model=SimpleNamespace(label="M"))
    with pytest.raises(GauntletError, match=r"d has \d+ labels out of range .* 'M' has 7 classes, .* lie in 0 to 6"):
        find_targets(row, 10, bench)
