"""Every registered attack on models of which the right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim, check_ball
from gauntlet.attacks.conformance import few_steps
from gauntlet.registry import ATTACKS, GauntletError

POSSIBLE = [entry for entry in ATTACKS if not entry.meta.get("unavailable")]
every_attack = pytest.mark.parametrize("entry", POSSIBLE, ids=lambda entry: entry.name)
# numba compiles each of foolbox's Brendel-Bethge attacks for many seconds, as soon as it has an image to start from.
attacks_at_work = pytest.mark.parametrize(
    "entry",
    [pytest.param(entry, marks=[pytest.mark.slow] if "brendel-bethge" in entry.name else []) for entry in POSSIBLE],
    ids=lambda entry: entry.name,
)


def run(
    entry,
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilons: list[float],
    surrogate: nn.Module | None = None,
):
    for package in entry.meta.get("extras", ()):
        pytest.importorskip(package)
    attack = ATTACKS.create(entry.name, **few_steps(entry))
    with Victim(model, surrogate=Victim(surrogate or model)) as victim:
        return attack, attack.run(victim, images, labels, epsilons, rng=PerImageRNG("k", torch.arange(len(images))))


@every_attack
def test_nothing_succeeds_on_a_constant_model(entry, constant) -> None:
    images, labels = torch.rand(8, 1, 8, 8), torch.full((8,), 3)
    attack, results = run(entry, constant, images, labels, [0.3, 10.0] if entry.meta["norm"] != "l0" else [3, 10])
    for result in results:
        assert not result.success.any()
        check_ball(result.images, images, attack.norm, result.epsilon)
        if result.smallest is not None:
            assert result.smallest.isinf().all()


@every_attack
def test_nan_never_counts_as_success(entry, not_a_number) -> None:
    images, labels = torch.full((8, 1, 8, 8), 0.5), torch.full((8,), 3)
    epsilon = 3 if entry.meta["norm"] == "l0" else 0.3
    attack, results = run(entry, not_a_number, images, labels, [epsilon])
    assert not results[0].success.any()
    check_ball(results[0].images, images, attack.norm, epsilon)


@attacks_at_work
def test_a_budget_of_zero_returns_the_images_bit_for_bit(entry, trained, correct) -> None:
    images, labels = correct[0][:20], correct[1][:20]
    _, (zero, some) = run(entry, trained, images, labels, [0, 1])
    assert torch.equal(zero.images, images)
    assert not zero.success.any()
    assert (zero.norms == 0).all()
    assert (zero.smallest is None) == (some.smallest is None)


@attacks_at_work
def test_results_describe_themselves(entry, trained, correct) -> None:
    images, labels = correct[0][:20], correct[1][:20]
    attack, results = run(entry, trained, images, labels, [3, 1])
    assert [result.epsilon for result in results] == [3, 1]
    assert (attack.norm, attack.kind) == (entry.meta["norm"], entry.meta["kind"])
    for result in results:
        assert result.images.shape == images.shape
        assert result.success.dtype == torch.bool
        assert result.norms.shape == result.success.shape == (20,)
        assert result.forwards >= 20
        assert (result.backwards > 0) == (entry.meta["access"] == "gradient")
        assert (result.smallest is not None) == (attack.kind == "minimum-norm")


@every_attack
def test_no_images_is_no_work(entry, trained) -> None:
    _, (result,) = run(entry, trained, torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64), [1])
    assert result.images.shape == (0, 1, 8, 8)
    assert result.success.shape == (0,)
    assert result.epsilon == 1


@every_attack
@pytest.mark.parametrize("epsilon", [-0.1, float("nan"), float("inf")])
def test_an_epsilon_that_is_no_budget_is_refused(entry, trained, correct, epsilon) -> None:
    with pytest.raises(GauntletError, match="finite number >= 0"):
        run(entry, trained, correct[0][:2], correct[1][:2], [1, epsilon])


@attacks_at_work
def test_a_model_without_gradient_is_one_sentence_or_no_matter(entry) -> None:
    class Detached(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.detach().flatten(1)

    images = torch.rand(3, 1, 2, 2)
    labels = images.flatten(1).argmax(dim=1)
    if entry.meta["access"] == "gradient":
        with pytest.raises(GauntletError, match="No gradient of the model's loss"):
            run(entry, Detached(), images, labels, [1])
    else:
        run(entry, Detached(), images, labels, [1], surrogate=nn.Flatten())


def exact_distances(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, order: float) -> torch.Tensor:
    """Closed form: the least of |f_k| / ||w_k||_q over the other classes k, q dual to the norm."""
    weight, logits = model[1].weight.detach(), model(images).detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    sizes = torch.stack([torch.linalg.vector_norm(weight - weight[label], ord=order, dim=1) for label in labels])
    ratios = (gaps / sizes).scatter(1, labels[:, None], torch.inf)
    return ratios.amin(dim=1)


def test_deepfool_finds_the_nearest_boundary_of_a_linear_model_but_for_its_overshoot(linear) -> None:
    model, images, labels = linear
    exact = exact_distances(model, images, labels, 2)
    _, (result,) = run(ATTACKS.get("foolbox/l2/deepfool"), model, images, labels, [10.0])
    torch.testing.assert_close(result.smallest, 1.02 * (exact + 1e-4), rtol=1e-3, atol=0)
    assert result.success.all()


def test_a_minimum_norm_attack_succeeds_exactly_where_the_budget_covers_what_it_found(linear) -> None:
    model, images, labels = linear
    exact = exact_distances(model, images, labels, 2)
    budgets = exact.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    _, results = run(ATTACKS.get("foolbox/l2/deepfool"), model, images, labels, budgets)
    for result in results:
        assert result.success[result.smallest <= result.epsilon].all()
        assert not result.success[exact > result.epsilon * 1.00001].any()
    assert 0 < results[0].success.sum() < results[2].success.sum() < len(images)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1.0), ("l2", 2.0)])
@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_on_two_linear_classes_success_begins_at_the_exact_distance(linear, name, norm, dual) -> None:
    model, images, _ = linear
    layer = nn.Linear(64, 2)
    with torch.no_grad():
        layer.weight.copy_(model[1].weight[:2])
        layer.bias.copy_(model[1].bias[:2])
    binary = nn.Sequential(nn.Flatten(), layer).eval()
    with torch.no_grad():
        labels = binary(images).argmax(dim=1)
    exact = exact_distances(binary, images, labels, dual)
    epsilon = exact.median().item() * 1.001
    with Victim(binary) as victim:
        # From a random start, 40 steps of eps / 30 do not reach every corner.
        attack = ATTACKS.create(name, norm=norm, **({"random_start": False} if name == "pgd" else {}))
        (result,) = attack.run(victim, images, labels, [epsilon], rng=PerImageRNG("k", torch.arange(len(images))))
    assert result.success[exact < epsilon * 0.99999].all()
    assert not result.success[exact > epsilon * 1.00001].any()
