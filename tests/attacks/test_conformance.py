"""The conformance suite: what it says of sound attacks, and that it catches what is wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gauntlet.attacks import Attack, PerImageRNG, Victim
from gauntlet.attacks.base import verified
from gauntlet.attacks.conformance import Finding, assert_conforms, examine, few_steps, verify
from gauntlet.attacks.diagnostics import disagreement, lost_gradients, roughness
from gauntlet.attacks.known_models import Constant, Masked, Randomised, exact_distances, linear, trained
from gauntlet.registry import ATTACKS, GauntletError, NotAvailable

POSSIBLE = [entry for entry in ATTACKS if not entry.meta.get("unavailable")]
COMPILED = "brendel-bethge"  # numba compiles these for many seconds
QUICK = [entry.name for entry in POSSIBLE if COMPILED not in entry.name]


def by_model(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.model: finding for finding in findings}


@pytest.mark.parametrize("name", QUICK)
def test_every_registered_attack_conforms_with_few_steps(name) -> None:
    assert_conforms(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in POSSIBLE])
def test_every_registered_attack_conforms_at_its_own_settings(name) -> None:
    try:
        findings = verify(name, full=True)
    except NotAvailable as error:
        pytest.skip(str(error))
    assert [finding for finding in findings if not finding.passed] == []


def test_the_findings_on_pgd_say_what_the_mask_does() -> None:
    found = by_model(verify("pgd"))
    assert list(found) == ["linear", "constant", "masked", "randomised", "trained"]
    assert found["constant"].text == "Nothing succeeds, as it must be."
    assert "100% without the mask" in found["masked"].text
    assert "the mask deceives it" in found["masked"].text
    assert "flags the model: they are zero for 100%" in found["masked"].text
    assert "flags the model" in found["randomised"].text


def test_an_attack_by_decisions_is_not_deceived_by_the_mask() -> None:
    assert "the mask does not deceive it" in by_model(verify("foolbox/linf/hopskipjump"))["masked"].text


def test_deepfool_is_as_far_from_the_boundary_as_its_overshoot() -> None:
    text = by_model(verify("foolbox/l2/deepfool", full=True))["linear"].text
    assert "what it finds is 1.02 times as far (median)" in text


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_exact_distances_are_reached_and_not_undercut_by_the_closed_form_step(norm) -> None:
    """The step that the closed form describes changes the prediction, and 0.1 % (one pixel) less of it does not."""
    known, layer = linear(), linear().model[1]
    exact = exact_distances(known, norm)
    far_enough = (exact > exact.median() / 3).nonzero().flatten().tolist()  # of the others rounding decides
    assert len(far_enough) > 15
    for i in far_enough:
        image, label = known.images[i], known.labels[i]
        for share, crosses in ((1.001, True), (0.999, False)):
            budget = float(exact[i]) if norm == "l0" else float(exact[i]) * share
            budget = budget if crosses or norm != "l0" else budget - 1
            moved = torch.stack(
                [
                    image.flatten() + best_step(layer.weight[k] - layer.weight[label], image, norm, budget)
                    for k in range(10)
                    if k != label
                ]
            )
            with torch.no_grad():
                assert bool((layer(moved).argmax(dim=1) != label).any()) == crosses


def best_step(way: Tensor, image: Tensor, norm: str, budget: float) -> Tensor:
    way = way.detach()
    if norm == "linf":
        return budget * way.sign()
    if norm == "l2":
        return budget * way / way.norm()
    if norm == "l1":
        return budget * way.sign() * torch.nn.functional.one_hot(way.abs().argmax(), len(way))
    ends = (way > 0).float()
    gains = way * (ends - image.flatten())
    chosen = torch.zeros_like(way)
    chosen[gains.topk(int(budget)).indices] = 1
    return chosen * (ends - image.flatten())


class Liar(Attack):
    """Returns its images and claims what it is told to claim."""

    norm = "linf"

    def __init__(self, move: float = 0.0, claim: bool = False) -> None:
        self.move, self.claim = move, claim

    def attack(self, victim, images, labels, epsilons, rng):
        for epsilon in epsilons:
            result = verified(victim, images, labels, (images + self.move * epsilon).clamp(0, 1), self.norm, epsilon)
            if self.claim:
                object.__setattr__(result, "success", torch.ones_like(result.success))
            yield result


def test_an_attack_that_leaves_its_ball_is_caught_and_told_by_how_much() -> None:
    with pytest.raises(AssertionError, match=r"trained: It stopped: .*leaves the ball of radius 0.5 by 0\.\d+"):
        assert_conforms(Liar(move=1.5))


def test_an_attack_that_claims_what_it_has_not_done_is_caught_on_every_count() -> None:
    found = by_model(examine(Liar(claim=True)))
    assert not found["constant"].passed
    assert "claims success on 8 of 8 images" in found["constant"].text
    assert not found["linear"].passed
    assert "nearer than the exact distance" in found["linear"].text
    assert not found["trained"].passed


def test_an_honest_attack_without_any_effect_conforms() -> None:
    assert_conforms(Liar())


def test_few_steps_only_lowers() -> None:
    entry = ATTACKS.get("foolbox/l2/cw")
    few = few_steps(entry)
    assert few == {"steps": 20, "binary_search_steps": 3}
    assert few_steps(ATTACKS.get("foolbox/linf/bim")) == {}  # ten steps are few


@pytest.mark.parametrize(("scale", "lost"), [(1.0, 0.0), (1e4, 1.0)])
def test_saturated_logits_lose_the_gradient_of_the_cross_entropy_and_not_that_of_the_margin(scale, lost) -> None:
    known = trained()

    class Saturated(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return known.model(images) * scale

    with Victim(Saturated()) as victim:
        assert lost_gradients(victim, known.images, known.labels) == {"cross entropy": lost, "margin": 0.0}


def test_diagnostics_tell_the_known_models_apart() -> None:
    known = trained()
    with Victim(Masked(known.model)) as victim:
        assert set(lost_gradients(victim, known.images, known.labels).values()) == {1.0}
    with Victim(known.model) as victim:
        assert disagreement(victim, known.images) == (0.0, 0.0)
        smooth = roughness(victim, known.images, known.labels, directions=5)
    with Victim(Randomised(known.model, spread=5.0)) as victim:
        changed, largest = disagreement(victim, known.images)
        assert changed > 0.3
        assert largest > 1
        assert roughness(victim, known.images, known.labels, directions=5) > smooth
    with Victim(Constant()) as victim:
        assert roughness(victim, known.images, known.labels, directions=2) == 0


@pytest.mark.parametrize("epsilon", [0.5, 2.5, 1 / 3])
def test_an_l0_epsilon_must_be_a_whole_number_of_pixels(epsilon) -> None:
    known = trained()
    with (
        Victim(known.model) as victim,
        pytest.raises(GauntletError, match="L0 epsilon must be a whole number of pixels"),
    ):
        ATTACKS.create("foolbox/l0/fmn").run(
            victim, known.images, known.labels, [epsilon], rng=PerImageRNG("k", torch.arange(24))
        )


def test_labels_below_zero_are_refused() -> None:
    known = trained()
    with Victim(known.model) as victim, pytest.raises(GauntletError, match="Labels must be >= 0, got -100"):
        ATTACKS.create("fgsm").run(
            victim, known.images[:2], torch.tensor([3, -100]), [0.1], rng=PerImageRNG("k", torch.arange(2))
        )


def test_no_ample_budget_is_missing() -> None:
    from gauntlet.attacks.conformance import AMPLE

    assert {entry.meta["norm"] for entry in ATTACKS} <= set(AMPLE)
    assert all(math.isfinite(value) for value in AMPLE.values())
