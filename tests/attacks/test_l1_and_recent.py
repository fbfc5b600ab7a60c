"""L1 versions of AutoAttack's parts and attacks of 2018 to 2024, beside adversarial-library's and foolbox's."""

from __future__ import annotations

import foolbox
import pytest
import torch
from torch import Tensor, nn

from gauntlet.attacks import PerImageRNG, Victim, check_ball
from gauntlet.attacks.losses import probability_margin
from gauntlet.attacks.norms import perturbation_norms
from gauntlet.attacks.pdpgd import cut, shorten, shrink
from gauntlet.registry import ATTACKS, GauntletError


def attack(name: str, model: nn.Module, data, epsilon: float = 1.0, *, batch_size: int = 512, **parameters):
    images, labels = data
    with Victim(model, batch_size=batch_size, memory_format=torch.contiguous_format) as victim:
        rng = PerImageRNG("k", torch.arange(len(images)))
        (result,) = ATTACKS.create(name, **parameters).run(victim, images, labels, [epsilon], rng=rng)
        return result


def rate(result) -> float:
    return result.success.float().mean().item()


@pytest.fixture(scope="module")
def some(correct) -> tuple[Tensor, Tensor]:
    return correct[0][:80], correct[1][:80]


def theirs(module: str, function: str, model: nn.Module, data, **parameters) -> Tensor:
    """What adversarial-library makes of the images."""
    library = pytest.importorskip(f"adv_lib.attacks.{module}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(library, function)(model, *(part.clone() for part in data), **parameters).detach()


def sizes(model: nn.Module, data, found: Tensor, norm: str) -> Tensor:
    with torch.no_grad():
        fooled = model(found).argmax(dim=1) != data[1]
    return torch.where(fooled, perturbation_norms(found, data[0], norm), torch.inf)


class TestL1:
    @pytest.mark.parametrize("steps", [25, 50])
    def test_apgd_fools_as_many_as_adversarial_library(self, trained, correct, steps) -> None:
        settings = {"eps": 1.5, "norm": 1, "n_iter": steps, "loss_function": "ce", "use_large_reps": True}
        found = theirs("auto_pgd", "apgd", trained, correct, **settings)
        other = (trained(found).argmax(dim=1) != correct[1]).float().mean().item()
        ours = attack("apgd-ce", trained, correct, 1.5, norm="l1", steps=steps)
        assert 0.2 < other < 0.8
        assert rate(ours) >= other - 0.03  # one image in thirty: random starts and a few roundings apart

    @pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "pma", "malt", "square", "autoattack"])
    def test_what_is_found_lies_in_ball_and_box(self, trained, some, name) -> None:
        short = {"square": {"queries": 60}, "autoattack": {"steps": 10, "targets": 2, "queries": 50}}
        few = {"apgd-t": {"targets": 2}, "malt": {"targets": 2}}
        some = some[0][:40], some[1][:40]
        result = attack(name, trained, some, 1.5, norm="l1", **short.get(name, {"steps": 12}), **few.get(name, {}))
        check_ball(result.images, some[0], "l1", 1.5)
        with torch.no_grad():
            assert torch.equal(trained(result.images).argmax(dim=1) != some[1], result.success)
        assert rate(result) > 0.05

    def test_square_fools_more_with_more_queries(self, trained, some) -> None:
        data = some[0][:40], some[1][:40]
        few, many = (attack("square", trained, data, 2.5, norm="l1", queries=queries) for queries in (20, 200))
        assert rate(many) > rate(few)

    def test_the_cascade_has_the_starts_and_targets_of_the_authors(self) -> None:
        ce, targeted, fab, _ = ATTACKS.create("autoattack", norm="l1").parts(10)
        assert (ce.restarts, targeted.most_targets, fab.most_targets) == (5, 5, 9)
        ce, targeted, *_ = ATTACKS.create("autoattack").parts(10)
        assert (ce.restarts, targeted.most_targets) == (1, 9)

    def test_the_batch_size_changes_nothing_but_rounding(self, trained, some) -> None:
        data = some[0][:24], some[1][:24]
        one, other = (attack("apgd-ce", trained, data, 1.5, norm="l1", steps=15, batch_size=size) for size in (7, 64))
        assert (one.success == other.success).float().mean() >= 0.95


class TestTargetsAndLosses:
    def test_the_probability_margin_by_hand(self) -> None:
        logits = torch.tensor([[0.5, 0.2, 0.3]]).log()
        assert probability_margin(logits, torch.tensor([0])).item() == pytest.approx(-0.2)
        assert probability_margin(logits, torch.tensor([1])).item() == pytest.approx(0.3)

    @pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.6)])
    def test_pma_is_as_strong_as_apgd_on_the_cross_entropy(self, trained, some, norm, epsilon) -> None:
        found = [rate(attack(name, trained, some, epsilon, norm=norm, steps=30)) for name in ("pma", "apgd-ce")]
        assert 0.1 < found[1] < 0.95
        assert found[0] >= found[1] - 0.07  # of a confident network probabilities saturate
        assert rate(attack("pgd", trained, some, epsilon, norm=norm, loss="probability-margin")) > 0.5 * found[1]

    @pytest.mark.parametrize(("norm", "dual"), [("linf", 1.0), ("l2", 2.0), ("l1", torch.inf)])
    def test_malt_aims_first_at_the_class_that_is_nearest_on_a_linear_model(self, linear, norm, dual) -> None:
        model, images, labels = linear
        weight, logits = model[1].weight.detach(), model(images).detach()
        gaps = logits.gather(1, labels[:, None]) - logits
        lengths = torch.stack([torch.linalg.vector_norm(weight - weight[one], ord=dual, dim=1) for one in labels])
        nearest = (gaps / lengths).scatter(1, labels[:, None], torch.inf).argmin(dim=1)
        aimed: list[Tensor] = []
        made = ATTACKS.create("malt", norm=norm, steps=1, targets=1)
        original = made.targets

        def watched(*arguments):
            aimed.append(original(*arguments))
            return aimed[-1]

        made.targets = watched
        with Victim(model) as victim:
            made.run(victim, images, labels, [1e-4], rng=PerImageRNG("k", torch.arange(len(images))))
        assert torch.equal(aimed[0], nearest)
        likeliest = logits.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
        assert not torch.equal(nearest, likeliest)

    def test_malt_with_one_target_beats_apgd_t_with_one(self, trained, correct) -> None:
        one = {"steps": 20, "targets": 1}
        assert rate(attack("malt", trained, correct, 0.1, **one)) >= rate(
            attack("apgd-t", trained, correct, 0.1, **one)
        )


NEAREST = [
    ("superdeepfool", {}, ("superdeepfool", "sdf", {}), "l2"),
    ("tr", {"norm": "l2"}, ("trust_region", "tr", {"p": 2, "adaptive": True, "iter": 1000}), "l2"),
    ("tr", {"norm": "linf"}, ("trust_region", "tr", {"p": torch.inf, "adaptive": True, "iter": 1000}), "linf"),
    *(
        (
            "pdpgd",
            {"norm": norm, "steps": 60},
            ("primal_dual_gradient_descent", "pdpgd", {"norm": order, "num_steps": 60}),
            norm,
        )
        for norm, order in (("l2", 2), ("linf", torch.inf), ("l1", 1))
    ),
    *(
        (
            "alma",
            {"norm": norm, "steps": 100},
            ("augmented_lagrangian", "alma", {"distance": norm, "num_steps": 100, "init_lr_distance": first}),
            norm,
        )
        for norm, first in (("l2", 0.1), ("l1", 0.5))
    ),
]


@pytest.mark.parametrize(("name", "parameters", "peer", "norm"), NEAREST)
def test_distances_are_adversarial_librarys(trained, some, name, parameters, peer, norm) -> None:
    module, function, settings = peer
    other = sizes(trained, some, theirs(module, function, trained, some, **settings), norm)
    ours = attack(name, trained, some, **parameters).smallest
    assert other.isfinite().float().mean() > 0.9
    assert ours.median().item() == pytest.approx(other.median().item(), rel=0.02)


@pytest.mark.slow
def test_cw_linf_finds_adversarial_librarys_distances(trained, correct) -> None:
    data = correct[0][:30], correct[1][:30]
    found = theirs("carlini_wagner.linf", "carlini_wagner_linf", trained, data, max_iterations=100)
    ours = attack("cw-linf", trained, data, steps=100).smallest
    assert ours.median().item() <= 1.03 * sizes(trained, data, found, "linf").median().item()


def test_ead_is_nearer_than_foolboxes(trained, some) -> None:
    data = some[0][:15], some[1][:15]
    peer = foolbox.attacks.EADAttack(binary_search_steps=5, steps=100)
    _, found, _ = peer(foolbox.PyTorchModel(trained, (0, 1), device="cpu"), *data, epsilons=None)
    ours = attack("ead", trained, data, trials=5, steps=100).smallest
    assert ours.isfinite().all()
    assert ours.median() <= 1.02 * sizes(trained, data, found, "l1").median()


@pytest.mark.parametrize(
    ("name", "norm", "parameters", "highest"),
    [
        ("superdeepfool", "l2", {}, 1.01),
        ("tr", "l2", {}, 1.03),
        ("tr", "linf", {}, 1.06),
        ("alma", "l2", {"steps": 200}, 1.05),
        ("pdpgd", "l2", {"steps": 200}, 1.1),
    ],
)
def test_distances_on_a_linear_model(linear, name, norm, parameters, highest) -> None:
    """The least of |f_k| / ||w_k||_q over the other classes is known."""
    model, images, labels = linear
    weight, logits = model[1].weight.detach(), model(images).detach()
    gaps, dual = logits.gather(1, labels[:, None]) - logits, {"l2": 2.0, "linf": 1.0}[norm]
    lengths = torch.stack([torch.linalg.vector_norm(weight - weight[one], ord=dual, dim=1) for one in labels])
    exact = (gaps / lengths).scatter(1, labels[:, None], torch.inf).amin(dim=1)
    far = exact > exact.median() / 4  # nearer ones are swamped by constants such as deepfool's 1e-4
    extra = {} if name == "superdeepfool" else {"norm": norm}
    ratio = (attack(name, model, (images, labels), **extra, **parameters).smallest / exact)[far]
    assert ratio.min() >= 0.9999
    assert ratio.median() <= highest


@pytest.mark.parametrize(("operator", "order"), [(shrink, 1.0), (shorten, 2.0), (cut, torch.inf)])
def test_proximal_operators_are_where_distance_and_way_are_least(operator, order) -> None:
    """No point nearby, and none of many at random, is better."""
    generator = torch.Generator().manual_seed(0)
    offset, weight = torch.randn(1, 1, 2, 3, generator=generator).double(), torch.tensor([0.7]).double()

    def cost(point: Tensor) -> Tensor:
        way = (point - offset).flatten(1).square().sum(dim=1) / 2
        return way + weight * torch.linalg.vector_norm(point.flatten(1), ord=order, dim=1)

    found = operator(offset, weight)
    others = (
        found
        + torch.randn(4000, 1, 2, 3, generator=generator).double() * torch.logspace(-4, 0, 4000)[:, None, None, None]
    )
    assert cost(found) <= cost(others).min() + 1e-12
    assert torch.equal(operator(offset, weight * 100), torch.zeros_like(offset))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("malt", {"candidates": 0}, "candidates >= 1"),
        ("superdeepfool", {"candidates": 1}, "candidates >= 2"),
        ("tr", {"radius": 0.0}, "radius > 0"),
        ("cw-linf", {"fall": 1.0}, "0 < fall < 1"),
        ("ead", {"regularization": -1.0}, "regularization >= 0"),
        ("pdpgd", {"steps": 1}, "steps >= 2"),
        ("alma", {"first": 0.0}, "first > 0"),
    ],
)
def test_bad_parameters_are_one_sentence(name, parameters, message) -> None:
    with pytest.raises(GauntletError, match=message):
        ATTACKS.create(name, **parameters)
