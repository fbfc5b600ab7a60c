"""The native fgsm and pgd: agreement with foolbox, the active set, restarts, bad parameters."""

from __future__ import annotations

import foolbox
import pytest
import torch
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim, check_ball
from gauntlet.registry import ATTACKS, GauntletError

EPSILONS = [0.02, 0.1, 0.3]
FULL_PATH = {"random_start": False, "stop_when_fooled": False}
TWINS = [
    ("fgsm", {}, foolbox.attacks.LinfFastGradientAttack()),
    ("fgsm", {"norm": "l2"}, foolbox.attacks.L2FastGradientAttack()),
    ("pgd", {"steps": 10, "rel_stepsize": 0.2, **FULL_PATH}, foolbox.attacks.LinfBasicIterativeAttack()),
    ("pgd", {"steps": 10, "rel_stepsize": 0.2, "norm": "l2", **FULL_PATH}, foolbox.attacks.L2BasicIterativeAttack()),
    ("pgd", {"rel_stepsize": 1 / 30, **FULL_PATH}, foolbox.attacks.LinfPGD(random_start=False)),
    (
        "pgd",
        {"norm": "l2", "steps": 50, "rel_stepsize": 0.05, **FULL_PATH},
        foolbox.attacks.L2PGD(steps=50, rel_stepsize=0.05, random_start=False),
    ),
]
names = [f"{name} {values.get('norm', 'linf')} {values.get('steps', '')}" for name, values, _ in TWINS]


def attack(name: str, model: nn.Module, data, epsilons, *, key: str = "k", batch_size: int = 512, **parameters):
    images, labels = data
    with Victim(model, batch_size=batch_size, memory_format=torch.contiguous_format) as victim:
        rng = PerImageRNG(key, torch.arange(len(images)))
        return ATTACKS.create(name, **parameters).run(victim, images, labels, epsilons, rng=rng)


@pytest.mark.parametrize(("name", "parameters", "twin"), TWINS, ids=names)
def test_equal_gradient_steps_give_foolboxes_images(trained, correct, name, parameters, twin) -> None:
    images, labels = correct
    results = attack(name, trained, correct, EPSILONS, **parameters)
    _, theirs, success = twin(foolbox.PyTorchModel(trained, (0, 1), device="cpu"), images, labels, epsilons=EPSILONS)
    for result, expected, fooled in zip(results, theirs, success, strict=True):
        torch.testing.assert_close(result.images, expected, rtol=0, atol=1e-7)
        assert torch.equal(result.success, fooled)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.6)])
def test_random_starts_succeed_as_often_as_foolboxes(trained, correct, norm, epsilon) -> None:
    images, labels = correct
    twin = {
        "linf": foolbox.attacks.LinfPGD(),
        "l2": foolbox.attacks.L2PGD(rel_stepsize=0.05),
    }[norm]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = foolbox.PyTorchModel(trained, (0, 1), device="cpu")
        theirs = twin(model, images, labels, epsilons=epsilon)[2].float().mean().item()
    (result,) = attack("pgd", trained, correct, [epsilon], norm=norm, stop_when_fooled=False)
    ours = result.success.float().mean().item()
    assert 0.1 < theirs < 0.95
    assert ours == pytest.approx(theirs, abs=3 * (theirs * (1 - theirs) / len(images)) ** 0.5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fgsm", {}),
        ("fgsm", {"norm": "l2", "random_start": True}),
        ("pgd", {}),
        ("pgd", {"norm": "l2"}),
        ("pgd", {"restarts": 2, "steps": 3}),
        ("pgd", {"stop_when_fooled": False, "steps": 3}),
    ],
)
def test_results_are_verified_and_stay_in_their_ball(trained, correct, name, parameters) -> None:
    images, labels = correct
    for result in attack(name, trained, correct, [0.05, 0.5, 10.0], **parameters):
        check_ball(result.images, images, parameters.get("norm", "linf"), result.epsilon)
        with torch.no_grad():
            assert torch.equal(result.success, trained(result.images).argmax(dim=1) != labels)


def test_stopping_keeps_the_full_path_of_those_that_never_leave(trained, correct) -> None:
    (stopped,) = attack("pgd", trained, correct, [0.05])
    (full,) = attack("pgd", trained, correct, [0.05], stop_when_fooled=False)
    resisted = ~stopped.success
    assert 10 < resisted.sum() < len(resisted) - 10
    torch.testing.assert_close(stopped.images[resisted], full.images[resisted], rtol=0, atol=1e-6)
    assert not (full.success & resisted).any()  # whoever is fooled at the end was fooled on the way


def test_the_active_set_saves_passes_more_so_at_larger_budgets(trained, correct) -> None:
    small, large = attack("pgd", trained, correct, [0.02, 0.3])
    count = len(correct[0])
    assert large.success.all()
    assert large.forwards < small.forwards / 3
    assert small.forwards < 41 * count


def test_counts_of_a_model_that_is_never_fooled_are_foolboxes(constant) -> None:
    images, labels = torch.rand(6, 1, 8, 8), torch.full((6,), 3)
    with Victim(constant) as victim:
        rng = PerImageRNG("k", torch.arange(6))
        (pgd,) = ATTACKS.create("pgd").run(victim, images, labels, [0.3], rng=rng)
        assert (victim.forwards, victim.backwards) == (pgd.forwards, pgd.backwards) == (41 * 6, 40 * 6)
        victim.reset_counts()
        (twice,) = ATTACKS.create("pgd", restarts=2, steps=5).run(victim, images, labels, [0.3], rng=rng)
        assert (victim.forwards, victim.backwards) == (twice.forwards, twice.backwards) == (12 * 6, 10 * 6)


def test_counted_passes_add_up(trained, correct) -> None:
    images, labels = correct
    with Victim(trained, batch_size=64) as victim:
        rng = PerImageRNG("k", torch.arange(len(images)))
        results = ATTACKS.create("pgd", restarts=2).run(victim, images, labels, [0.05, 0.2], rng=rng)
        assert victim.forwards == sum(result.forwards for result in results)
        assert victim.backwards == sum(result.backwards for result in results)


def test_fgsm_takes_one_gradient_for_all_epsilons(trained, correct) -> None:
    images, labels = correct
    with Victim(trained) as victim:
        ATTACKS.create("fgsm").run(victim, images, labels, EPSILONS, rng=PerImageRNG("k", torch.arange(len(images))))
        assert victim.backwards == len(images)
        assert victim.forwards == 4 * len(images)


@pytest.mark.parametrize("parameters", [{}, {"norm": "l2", "steps": 10}, {"restarts": 2, "steps": 5}])
def test_the_batch_size_changes_nothing(trained, correct, parameters) -> None:
    data = correct[0][:40], correct[1][:40]
    for one, other in zip(
        attack("pgd", trained, data, [0.05, 0.2], batch_size=7, **parameters),
        attack("pgd", trained, data, [0.05, 0.2], batch_size=512, **parameters),
        strict=True,
    ):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=1e-6)
        assert torch.equal(one.success, other.success)
        assert (one.forwards, one.backwards) == (other.forwards, other.backwards)


def test_other_epsilons_and_images_change_nothing(trained, correct) -> None:
    images, labels = correct
    alone = attack("pgd", trained, correct, [0.2])[0]
    together = attack("pgd", trained, correct, [0.05, 0.2, 0.5])[1]
    torch.testing.assert_close(alone.images, together.images, rtol=0, atol=1e-6)
    with Victim(trained, memory_format=torch.contiguous_format) as victim:
        (part,) = ATTACKS.create("pgd").run(
            victim, images[10:30], labels[10:30], [0.2], rng=PerImageRNG("k", torch.arange(10, 30))
        )
    torch.testing.assert_close(part.images, alone.images[10:30], rtol=0, atol=1e-6)


def test_no_batch_is_larger_than_the_victims(trained, correct) -> None:
    sizes = []
    handle = trained.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    try:
        attack("pgd", trained, correct, EPSILONS, batch_size=100)
    finally:
        handle.remove()
    assert max(sizes) == 100
    assert sum(size == 100 for size in sizes) > len(sizes) / 2  # refilled from the queue: most batches are full


def test_another_key_draws_another_start(trained, correct) -> None:
    one, other = (attack("pgd", trained, correct, [0.05], key=key)[0] for key in ("a", "b"))
    assert not torch.equal(one.images, other.images)


def test_restarts_only_add_successes(trained, correct) -> None:
    (once,) = attack("pgd", trained, correct, [0.06], steps=3)
    (often,) = attack("pgd", trained, correct, [0.06], steps=3, restarts=8)
    assert (often.success | ~once.success).all()
    assert often.success.sum() > once.success.sum()
    torch.testing.assert_close(often.images[once.success], once.images[once.success], rtol=0, atol=1e-6)


def test_an_image_that_resists_every_restart_keeps_its_highest_loss(trained, correct) -> None:
    labels = correct[1]
    losses = []
    for restarts in (1, 6):
        (result,) = attack("pgd", trained, correct, [0.03], steps=2, restarts=restarts)
        losses.append(nn.functional.cross_entropy(trained(result.images), labels, reduction="none").detach())
        resisted = ~result.success
    assert (losses[1] >= losses[0] - 1e-5)[resisted].all()
    assert (losses[1] > losses[0] + 1e-3)[resisted].any()


def test_fgsm_saturates_at_an_epsilon_of_one(trained, correct) -> None:
    images, labels = correct
    first, second = attack("fgsm", trained, correct, [1.5, 10.0])
    assert torch.equal(first.images, second.images)
    with Victim(trained) as victim:
        moving = victim.gradient(images, labels)[0] != 0
    assert ((first.images == 0) | (first.images == 1))[moving].all()


def test_fgsm_uses_the_whole_budget_where_nothing_is_clipped(trained, correct) -> None:
    images, labels = correct
    (result,) = attack("fgsm", trained, (images / 2 + 0.25, labels), [0.2])
    torch.testing.assert_close(result.norms, torch.full_like(result.norms, 0.2), rtol=1e-6, atol=1e-6)


def test_fgsm_with_a_random_start_leaves_from_another_point_of_the_ball(trained, correct) -> None:
    plain, started = (attack("fgsm", trained, correct, [0.1], random_start=on)[0] for on in (False, True))
    assert not torch.equal(plain.images, started.images)
    check_ball(started.images, correct[0], "linf", 0.1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": 0}, "steps >= 1"),
        ({"restarts": 0}, "restarts >= 1"),
        ({"rel_stepsize": 0.0}, "rel_stepsize > 0"),
        ({"restarts": 2, "random_start": False}, "random_start: true"),
        ({"norm": "l3"}, "must be one of linf, l2"),
        ({"step": 3}, "did you mean 'steps'"),
    ],
)
def test_bad_parameters_are_one_sentence(parameters, message) -> None:
    with pytest.raises(GauntletError, match=message):
        ATTACKS.create("pgd", **parameters)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_success(trained, correct) -> None:
    (here,) = attack("pgd", trained, correct, [0.1])
    images, labels = correct[0].cuda(), correct[1].cuda()
    with Victim(trained, device="cuda") as victim:
        rng = PerImageRNG("k", torch.arange(len(images), device="cuda"))
        (there,) = ATTACKS.create("pgd").run(victim, images, labels, [0.1], rng=rng)
    assert next(trained.parameters()).device.type == "cpu"
    assert (here.success == there.success.cpu()).float().mean() > 0.98
