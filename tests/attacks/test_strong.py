"""apgd, fab-t, square and autoattack: properties, and success rates next to torchattacks'."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim, check_ball
from gauntlet.attacks.losses import dlr, margin, targeted_dlr
from gauntlet.registry import ATTACKS, GauntletError

RADII = {"linf": 0.1, "l2": 0.6, "l1": 1.5}
SHORT = {
    "apgd-ce": {"steps": 20},
    "apgd-dlr": {"steps": 20},
    "apgd-t": {"steps": 10, "targets": 3},
    "fab-t": {"steps": 10, "targets": 3},
    "square": {"queries": 100},
    "autoattack": {"steps": 10, "targets": 2, "queries": 50},
}
each = pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in SHORT for norm in ("linf", "l2")][:-1])


def attack(name: str, model: nn.Module, data, epsilons, *, batch_size: int = 512, **parameters):
    images, labels = data
    with Victim(model, batch_size=batch_size, memory_format=torch.contiguous_format) as victim:
        results = ATTACKS.create(name, **parameters).run(
            victim, images, labels, epsilons, rng=PerImageRNG("k", torch.arange(len(images)))
        )
        return results, victim


def rate(result) -> float:
    return result.success.float().mean().item()


@pytest.fixture(scope="module")
def some(correct):
    return correct[0][:100], correct[1][:100]


@each
def test_results_stay_in_their_ball_and_are_verified(trained, some, name, norm) -> None:
    radius = RADII[norm]
    results, victim = attack(name, trained, some, [radius / 4, radius], norm=norm, **SHORT[name])
    for result in results:
        check_ball(result.images, some[0], norm, result.epsilon)
        with torch.no_grad():
            # A minimum-norm image lies on the boundary itself, where another batch may round it to the other side.
            agree = (trained(result.images).argmax(dim=1) != some[1]) == result.success
        assert agree.float().mean() >= (0.98 if name == "fab-t" else 1)
    assert rate(results[0]) < rate(results[1])
    if name != "fab-t":
        assert victim.forwards == sum(result.forwards for result in results)
        assert victim.backwards == sum(result.backwards for result in results)


@each
def test_the_batch_size_changes_nothing_but_rounding(trained, some, name, norm) -> None:
    data = some[0][:24], some[1][:24]
    (one,), _ = attack(name, trained, data, [RADII[norm]], norm=norm, batch_size=7, **SHORT[name])
    (other,), _ = attack(name, trained, data, [RADII[norm]], norm=norm, **SHORT[name])
    same = (one.images - other.images).flatten(1).abs().amax(dim=1) < 1e-4
    assert same.float().mean() >= 0.9
    assert (one.success == other.success).float().mean() >= 0.95


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "square", "fab-t"])
def test_more_steps_are_never_worse(trained, some, name, norm) -> None:
    """The best iterate is kept; a search of twice the length has another schedule, so it is compared in number."""
    word = "queries" if name == "square" else "steps"
    short, long = ((50, 400) if name == "square" else (10, 60)) if name != "fab-t" else (5, 20)
    few, many = (rate(attack(name, trained, some, [RADII[norm]], norm=norm, **{word: n})[0][0]) for n in (short, long))
    assert many >= few


def test_restarts_only_add_successes(trained, some) -> None:
    for name, parameters in (("apgd-ce", {"steps": 1}), ("square", {"queries": 30})):
        (once,), _ = attack(name, trained, some, [0.08], **parameters)
        (often,), _ = attack(name, trained, some, [0.08], restarts=4, **parameters)
        assert not (once.success & ~often.success).any()
        assert often.success.sum() > once.success.sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_autoattack_is_never_above_any_of_its_parts(trained, some, norm) -> None:
    short = {"steps": 10, "targets": 3, "queries": 100}
    cascade = ATTACKS.create("autoattack", norm=norm, **short)
    (whole,), _ = attack("autoattack", trained, some, [RADII[norm]], norm=norm, **short)
    with Victim(trained, memory_format=torch.contiguous_format) as victim:
        for part in cascade.parts(10):
            (result,) = part.run(victim, *some, [RADII[norm]], rng=PerImageRNG("k", torch.arange(100)))
            lost = result.success & ~whole.success
            assert lost.float().mean() <= 0.01  # an image on the boundary itself may round to the other side


def test_autoattack_asks_later_parts_about_survivors_only(trained, some) -> None:
    (result,), _ = attack("autoattack", trained, some, [0.3], version="fast")
    assert rate(result) == 1
    assert result.forwards < 30 * 100  # the thousand queries of square were never needed


@pytest.mark.parametrize(("classes", "kinds"), [(2, 3), (3, 4), (4, 4), (10, 4)])
def test_autoattack_fits_its_parts_to_the_number_of_classes(classes, kinds) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()
    images = torch.rand(6, 1, 4, 4)
    labels = model(images).argmax(dim=1)
    assert len(ATTACKS.create("autoattack").parts(classes)) == kinds
    (result,), _ = attack("autoattack", model, (images, labels), [0.5], version="fast")
    check_ball(result.images, images, "linf", 0.5)


def test_fast_is_the_same_cascade_shortened() -> None:
    apgd, targeted, fab, square = ATTACKS.create("autoattack", version="fast").parts(10)
    assert (apgd.steps, targeted.steps, fab.steps) == (25, 25, 25)
    assert (targeted.most_targets, fab.most_targets, square.queries) == (3, 3, 1000)


def test_rand_averages_over_passes_of_a_random_model(trained, some) -> None:
    class Shaky(nn.Module):
        def forward(self, images):
            return trained(images + 0.05 * torch.randn_like(images))

    data = some[0][:10], some[1][:10]
    torch.manual_seed(0)
    (result,), victim = attack("apgd-ce", Shaky(), data, [0.15], steps=10, eot=5)
    assert victim.backwards % 5 == 0
    assert victim.forwards == victim.backwards + len(data[0])
    assert rate(result) > 0.5
    assert [part.eot for part in ATTACKS.create("autoattack", version="rand").parts(10)] == [20, 20]


def test_losses_by_hand() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0, 0.0, 3.0]])
    label, target = torch.tensor([4]), torch.tensor([2])
    assert margin(logits, label).item() == 1
    assert dlr(logits, label).item() == pytest.approx(1 / 2)
    assert targeted_dlr(logits, label, target).item() == pytest.approx(-1 / (4 - 1.5))


@pytest.mark.parametrize("loss", ["margin", "dlr"])
def test_pgd_on_other_losses_gets_past_saturated_logits(trained, some, loss) -> None:
    """Where the cross entropy of huge logits has no gradient left, the other losses have."""

    class Loud(nn.Module):
        def forward(self, images):
            return 1e4 * trained(images)

    plain, _ = attack("pgd", Loud(), some, [0.1])
    other, _ = attack("pgd", Loud(), some, [0.1], loss=loss)
    honest, _ = attack("pgd", trained, some, [0.1], loss=loss)
    assert rate(plain[0]) < 0.75 * rate(other[0])
    assert rate(other[0]) == pytest.approx(rate(honest[0]), abs=0.03)


@pytest.mark.parametrize(("name", "classes", "least"), [("apgd-dlr", 2, 3), ("apgd-t", 3, 4)])
def test_too_few_classes_are_one_sentence(name, classes, least) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()
    images = torch.rand(2, 1, 4, 4)
    with pytest.raises(GauntletError, match=f"at least {least} classes"):
        attack(name, model, (images, model(images).argmax(dim=1)), [0.01])


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("apgd-ce", {"steps": 0}, "apgd needs steps"),
        ("apgd-t", {"targets": 0}, "targets >= 1"),
        ("square", {"queries": 0}, "queries >= 1"),
        ("square", {"initial_share": 0.0}, "initial_share"),
        ("fab-t", {"restarts": 0}, "restarts >= 1"),
        ("autoattack", {"version": "plus"}, "must be one of standard, fast, rand"),
    ],
)
def test_bad_parameters_are_one_sentence(name, parameters, message) -> None:
    with pytest.raises(GauntletError, match=message):
        ATTACKS.create(name, **parameters)


def peers():
    return pytest.importorskip("torchattacks")


def theirs(model: nn.Module, data, build) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adversarial = build(peers())(*data)
    return (model(adversarial).argmax(dim=1) != data[1]).float().mean().item()


@pytest.mark.parametrize(
    ("name", "parameters", "build", "slack"),
    [
        ("apgd-t", {"steps": 15}, lambda t, m: t.APGDT(m, eps=0.1, steps=15), 0.02),
        (
            "fab-t",
            {"steps": 15},
            lambda t, m: t.FAB(m, eps=0.1, steps=15, multi_targeted=True, n_classes=10),
            0.03,
        ),
        (
            "fab-t",
            {"steps": 15, "norm": "l2"},
            lambda t, m: t.FAB(m, norm="L2", eps=0.6, steps=15, multi_targeted=True, n_classes=10),
            0.03,
        ),
        ("square", {"queries": 300}, lambda t, m: t.Square(m, eps=0.1, n_queries=300), 0.06),
        ("square", {"queries": 300, "norm": "l2"}, lambda t, m: t.Square(m, norm="L2", eps=0.6, n_queries=300), 0.06),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_success_rates_are_at_least_torchattacks(trained, correct, name, parameters, build, slack) -> None:
    data = correct[0][:150], correct[1][:150]
    other = theirs(trained, data, lambda library: build(library, trained))
    (result,), _ = attack(name, trained, data, [0.6 if "norm" in parameters else 0.1], **parameters)
    assert 0.1 < other < 0.95
    assert rate(result) >= other - slack


@pytest.mark.parametrize(
    ("loss", "norm", "epsilon"), [("ce", "linf", 0.1), ("ce", "linf", 0.14), ("dlr", "linf", 0.14), ("ce", "l2", 0.6)]
)
def test_from_equal_starts_apgd_fools_the_images_that_torchattacks_fools(
    trained, some, monkeypatch, loss, norm, epsilon
) -> None:
    """Equal schedules, momentum and returns to the best image; rounding lets a few paths part."""
    draws, shape = PerImageRNG("k", torch.arange(len(some[0]))), some[0].shape[1:]
    name, start = {"linf": ("rand", draws.uniform(shape, purpose="start"))}.get(
        norm, ("randn", draws.normal(shape, purpose="start direction"))
    )
    library = peers()
    monkeypatch.setattr(torch, name, lambda *sizes: start)
    adversarial = library.APGD(trained, norm=norm.capitalize(), eps=epsilon, steps=40, loss=loss)(*some)
    monkeypatch.undo()
    other = trained(adversarial).argmax(dim=1) != some[1]
    (result,), _ = attack(f"apgd-{loss}", trained, some, [epsilon], steps=40, norm=norm)
    assert 0.1 < other.float().mean() < 0.95
    assert (result.success != other).float().mean() <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "theirs_norm", "epsilon"), [("linf", "Linf", 0.06), ("l2", "L2", 0.4)])
def test_the_whole_of_autoattack_is_torchattacks(trained, correct, norm, theirs_norm, epsilon) -> None:
    other = theirs(trained, correct, lambda t: t.AutoAttack(trained, norm=theirs_norm, eps=epsilon, n_classes=10))
    (result,), _ = attack("autoattack", trained, correct, [epsilon], norm=norm)
    assert rate(result) == pytest.approx(other, abs=0.01)
