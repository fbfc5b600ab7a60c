"""Faults of foolbox 3.3.4 that the adapter works round. Each test shows the fault in foolbox itself first.

When one of the assertions on foolbox fails, foolbox has mended it and the work-round may go.
"""

from __future__ import annotations

import inspect

import foolbox
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gauntlet.attacks import Attack, AttackResult, PerImageRNG, Victim, perturbation_norms
from gauntlet.attacks.foolbox_row import STARTS
from gauntlet.attacks.foolbox_rows import ROWS
from gauntlet.datasets.per_image_rng import seeded
from gauntlet.registry import ATTACKS, NotAvailable


def run(name: str, model: nn.Module, images: Tensor, labels: Tensor, epsilons: list[float], **parameters):
    attack: Attack = ATTACKS.create(name, **parameters)
    with Victim(model, memory_format=torch.contiguous_format) as victim:
        results: list[AttackResult] = attack.run(
            victim, images, labels, epsilons, rng=PerImageRNG("k", torch.arange(len(images)))
        )
    return results


def wrapped(model: nn.Module):
    return foolbox.PyTorchModel(model.eval(), (0, 1), device="cpu")


class MostlyOne(nn.Module):
    """Class 1, which noise always gives, but 0 where each of the first twenty pixels is dark."""

    def forward(self, images: Tensor) -> Tensor:
        dark = 0.05 - images.flatten(1)[:, :20].amax(dim=1)
        return torch.stack([dark, -dark], dim=1)


def test_every_concrete_attack_class_of_foolbox_has_a_row() -> None:
    classes = {value for value in vars(foolbox.attacks).values() if inspect.isclass(value)}
    concrete = {kind for kind in classes if not inspect.isabstract(kind)}
    assert {row.original for row in ROWS} == concrete
    assert len(concrete) == 58
    assert len({row.name for row in ROWS}) == len(ROWS) == 59  # HopSkipJump has two: one for each of its norms


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("newtonfool", foolbox.attacks.NewtonFoolAttack()), ("vat", foolbox.attacks.VirtualAdversarialAttack(10))],
)
def test_nan_images_are_successes_for_foolbox_and_never_for_us(constant, name, theirs) -> None:
    images, labels = torch.rand(6, 1, 8, 8), torch.full((6,), 3)
    raw, _, success = theirs(wrapped(constant), images, labels, epsilons=0.5)
    assert raw.isnan().any()
    assert success.all()
    (result,) = run(f"foolbox/l2/{name}", constant, images, labels, [0.5])
    assert not result.success.any()
    assert result.images.isfinite().all()


WALKERS = ["l2/boundary", "l2/hopskipjump", "linf/hopskipjump", "l0/pointwise"]


@pytest.mark.parametrize("name", WALKERS)
def test_one_image_without_a_start_costs_foolbox_the_batch_and_us_nothing_where_a_neighbour_helps(name) -> None:
    model, images, labels = MostlyOne(), torch.zeros(3, 1, 5, 5), torch.tensor([0, 0, 1])
    images[2] = 0.5
    row = next(row for row in ROWS if row.name == f"foolbox/{name}")
    with pytest.raises((ValueError, AssertionError)), seeded(0, torch.device("cpu")):
        row.original(**row.fixed).run(wrapped(model), images, foolbox.criteria.Misclassification(labels))
    (result,) = run(row.name, model, images, labels, [25.0], **({} if name == "l0/pointwise" else {"steps": 5}))
    assert result.success.all()


@pytest.mark.parametrize("name", WALKERS)
def test_an_image_without_any_start_comes_back_and_the_others_are_attacked(trained, digits, monkeypatch, name) -> None:
    """All images have one class, so that none is a start for another; the second one's own start fails."""

    class Starts:
        def run(self, model, inputs: Tensor, criterion) -> Tensor:
            return torch.stack([inputs[1] if i == 1 else sevens[0] for i in range(len(inputs))])

    with torch.no_grad():
        right = trained(digits[0]).argmax(dim=1) == digits[1]
    threes, sevens = (digits[0][right & (digits[1] == label)][:4] for label in (3, 7))
    row = next(row for row in ROWS if row.name == f"foolbox/{name}")
    monkeypatch.setitem(STARTS, row.start, Starts)
    few = {} if name == "l0/pointwise" else {"steps": 5}
    (result,) = run(row.name, trained, threes, torch.full((4,), 3), [64.0], **few)
    assert result.success.tolist() == [True, False, True, True]
    assert torch.equal(result.images[1], threes[1])


class Forgetful(nn.Module):
    """Class 1 for bright images, until it has answered sixty times: then it is always class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += 1
        assert self.asked < 3_000, "for ever"
        bright = images.flatten(1).mean(dim=1) - 0.5 if self.asked < 60 else -torch.ones(len(images))
        return torch.stack([-bright, bright], dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hopskipjump_looks_for_a_step_for_ever_where_none_works_and_is_stopped(norm) -> None:
    images, labels = torch.full((2, 1, 5, 5), 0.2), torch.tensor([0, 0])
    original = foolbox.attacks.HopSkipJumpAttack(constraint=norm)
    with pytest.raises(AssertionError, match="for ever"), seeded(0, torch.device("cpu")):
        original.run(
            wrapped(Forgetful()),
            images,
            foolbox.criteria.Misclassification(labels),
            starting_points=torch.full_like(images, 0.9),
        )
    model = Forgetful()
    (result,) = run(f"foolbox/{norm}/hopskipjump", model, images, labels, [25.0])
    assert not result.success.any()
    assert torch.equal(result.images, images)
    assert model.asked < 1_000


def test_l0_budgets_below_what_was_found_raise_in_foolbox_and_are_thresholded_here(trained, correct) -> None:
    images, labels = correct[0][:10], correct[1][:10]
    with pytest.raises(NotImplementedError, match="reducing L0 norms"):
        foolbox.attacks.L0FMNAttack()(wrapped(trained), images, labels, epsilons=1)
    one, many = run("foolbox/l0/fmn", trained, images, labels, [1, 10])
    assert one.smallest is not None
    for result in (one, many):
        assert torch.equal(result.success, one.smallest <= result.epsilon)
        assert torch.equal(result.images[~result.success], images[~result.success])
        assert (perturbation_norms(result.images, images, "l0") <= result.epsilon).all()
    assert one.success.sum() < many.success.sum()


def test_an_image_that_nothing_fools_costs_foolboxes_l0_fmn_the_batch_and_us_nothing(trained, correct) -> None:
    class SometimesConstant(nn.Module):
        """Class 3 whatever else is there, where the first pixel is white."""

        def forward(self, images: Tensor) -> Tensor:
            white = (images[:, 0, 0, 0] == 1).float()[:, None]
            return (1 - white) * trained(images) + white * torch.eye(10)[3]

    images, labels = correct[0][:5].clone(), correct[1][:5].clone()
    images[2], labels[2] = 1.0, 3
    with pytest.raises(IndexError, match="index 64 is out of bounds"):
        foolbox.attacks.L0FMNAttack().run(
            wrapped(SometimesConstant()), images, foolbox.criteria.Misclassification(labels)
        )
    (result,) = run("foolbox/l0/fmn", SometimesConstant(), images, labels, [64])
    assert torch.equal(result.images[2], images[2])
    assert result.success.tolist() == [True, True, False, True, True]


def test_foolboxes_mi_fgsm_accumulates_signs_and_ours_gradients() -> None:
    """The first pixel's gradient turns to a small negative one: a sum of signs is zero there, that of gradients not."""

    class Bend(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first, second = images.flatten(1).unbind(dim=1)
            z = first - 1.11 * (first - 0.45).clamp_min(0) + second
            return torch.stack([-z, z], dim=1)

    images, labels = torch.full((1, 1, 1, 2), 0.4), torch.zeros(1, dtype=torch.int64)
    steps = {"steps": 2, "rel_stepsize": 0.5}
    theirs = foolbox.attacks.LinfMomentumIterativeFastGradientMethod(**steps)
    raw = theirs.run(wrapped(Bend()), images, foolbox.criteria.Misclassification(labels), epsilon=0.2)
    torch.testing.assert_close(raw.flatten(), torch.tensor([0.5, 0.6]))
    (ours,) = run("mi-fgsm", Bend(), images, labels, [0.2], stop_when_fooled=False, **steps)
    torch.testing.assert_close(ours.images.flatten(), torch.tensor([0.6, 0.6]))
    assert "weak: it accumulates the signs" in ATTACKS.get("foolbox/linf/mi-fgsm").meta["fault"]


def test_one_random_direction_serves_the_whole_batch_of_foolboxes_boundary_attack_which_says_so(
    trained, correct
) -> None:
    twins, labels = correct[0][[0, 0]], correct[1][[0, 0]]
    start = correct[0][correct[1] != labels[0]][:1].expand(2, -1, -1, -1)
    with seeded(0, torch.device("cpu")):
        found = foolbox.attacks.BoundaryAttack(steps=20).run(
            wrapped(trained), twins, foolbox.criteria.Misclassification(labels), starting_points=start
        )
    assert torch.equal(found[0], found[1])
    assert "one random direction" in ATTACKS.get("foolbox/l2/boundary").meta["coupling"]


def test_foolboxes_uniform_noise_leaves_the_ball_and_ours_is_clipped_to_it(trained, correct) -> None:
    """It divides by the largest entry and not by the largest magnitude."""
    images, labels = torch.full_like(correct[0][:20], 0.5), correct[1][:20]
    attack = foolbox.attacks.LinfAdditiveUniformNoiseAttack()
    raw = attack.run(wrapped(trained), images, foolbox.criteria.Misclassification(labels), epsilon=0.1)
    assert (raw - images).abs().max() > 0.101
    (result,) = run("foolbox/linf/uniform-noise", trained, images, labels, [0.1])
    assert result.norms.max() <= 0.1 + 1e-6


def test_the_dataset_attack_draws_from_numpy_and_is_seeded_there_too(trained, correct) -> None:
    images, labels = correct[0][:30], correct[1][:30]

    def theirs(seed: int) -> Tensor:
        torch.manual_seed(0)
        np.random.seed(seed)
        attack, model = foolbox.attacks.DatasetAttack(), wrapped(trained)
        attack.feed(model, images)
        return attack.run(model, images, foolbox.criteria.Misclassification(labels))

    with seeded(0, torch.device("cpu")):
        assert not torch.equal(theirs(1), theirs(2))
    first, second = (run("foolbox/l2/dataset", trained, images, labels, [100.0])[0] for _ in range(2))
    assert torch.equal(first.images, second.images)


def test_attacks_whose_images_depend_on_one_another_say_so() -> None:
    coupled = {entry.name.removeprefix("foolbox/") for entry in ATTACKS if entry.meta.get("coupling")}
    loss = {"l2/cw", "l1/ead"}
    assert loss | {"l2/boundary", "l2/hopskipjump", "linf/hopskipjump"} <= coupled
    assert all("chunk" in ATTACKS.get(f"foolbox/{name}").meta["coupling"] for name in loss)


def test_pointwise_and_the_flexible_attacks_have_no_distance_in_foolbox(trained, correct) -> None:
    images, labels = correct[0][:4], correct[1][:4]
    with pytest.raises(AttributeError):
        foolbox.attacks.PointwiseAttack()(wrapped(trained), images, labels, epsilons=5)
    with pytest.raises(ValueError, match="unknown distance"):
        foolbox.attacks.InversionAttack()(wrapped(trained), images, labels, epsilons=5)
    assert run("foolbox/l0/pointwise", trained, images, labels, [64])[0].success.all()
    for norm in ("l2", "linf", "l1"):
        (result,) = run("foolbox/l2/inversion", trained, images, labels, [0.3], norm=norm)
        torch.testing.assert_close(result.norms, torch.full((4,), 0.3))


@pytest.mark.parametrize(("norm", "epsilon"), [("l1", 3.0), ("l2", 0.5)])
def test_default_steps_of_pgd_are_weak_and_labelled_so_and_longer_ones_are_stronger(
    trained, correct, norm, epsilon
) -> None:
    def successes(name: str, **parameters) -> int:
        return int(run(f"foolbox/{norm}/{name}", trained, *correct, [epsilon], **parameters)[0].success.sum())

    raised = successes("pgd", rel_stepsize=0.1)
    assert raised > 1.2 * successes("pgd")
    assert raised > 1.2 * successes("adam-pgd")
    for name in ("pgd", "adam-pgd"):
        entry = ATTACKS.get(f"foolbox/{norm}/{name}")
        assert entry.meta["fault"].startswith("weak")
        assert "weak" in entry.tags
        assert "weak" in entry.summary


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_foolboxes_bim_with_adam_is_its_bim_in_l1_and_l2_and_labelled_so(trained, correct, norm) -> None:
    images, labels = correct[0][:20], correct[1][:20]
    (adam,), (plain,) = (run(f"foolbox/{norm}/{name}", trained, images, labels, [1.0]) for name in ("adam-bim", "bim"))
    assert torch.equal(adam.images, plain.images)
    assert "broken: it never makes its Adam" in ATTACKS.get(f"foolbox/{norm}/adam-bim").meta["fault"]


def test_foolboxes_l2_fmn_finds_what_is_too_far_away(trained, correct) -> None:
    images, labels = correct[0][:60], correct[1][:60]
    (fmn,), (ddn,) = (run(f"foolbox/l2/{name}", trained, images, labels, [1.0]) for name in ("fmn", "ddn"))
    assert fmn.smallest.median() > 1.25 * ddn.smallest.median()
    assert "broken" in ATTACKS.get("foolbox/l2/fmn").tags


def test_hopskipjump_finds_other_distances_in_other_chunks_and_says_so(trained, correct) -> None:
    images, labels = correct[0][:16], correct[1][:16]
    entry = ATTACKS.get("foolbox/l2/hopskipjump")
    small, large = (
        run(entry.name, trained, images, labels, [1.0], steps=4, initial_gradient_eval_steps=20, chunk=chunk)[
            0
        ].smallest
        for chunk in (1, 16)
    )
    assert small.median() < large.median()
    assert "chunk" in entry.meta["coupling"]
    assert entry.defaults()["chunk"] == 16


def test_carlini_wagner_returns_black_images_where_it_fails_and_we_count_none(constant) -> None:
    images, labels = torch.rand(4, 1, 4, 4), torch.full((4,), 3)
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=1, steps=2)
    assert (attack.run(wrapped(constant), images, foolbox.criteria.Misclassification(labels)) == 0).all()
    (result,) = run("foolbox/l2/cw", constant, images, labels, [10.0], binary_search_steps=1, steps=2)
    assert not result.success.any()
    assert result.smallest.isinf().all()


def test_genattack_must_aim_and_is_aimed_at_the_runner_up(trained, correct) -> None:
    images, labels = correct[0][:6], correct[1][:6]
    with pytest.raises(ValueError, match="unsupported criterion"):
        foolbox.attacks.GenAttack(steps=2)(wrapped(trained), images, labels, epsilons=0.3)
    (result,) = run("foolbox/linf/gen", trained, images, labels, [0.4], steps=60)
    assert result.success.any()


def test_the_dataset_attack_must_be_fed_and_finds_an_image_of_another_class(trained, correct) -> None:
    images, labels = correct[0][:12], correct[1][:12]
    with pytest.raises(ValueError, match="feed"):
        foolbox.attacks.DatasetAttack().run(wrapped(trained), images, foolbox.criteria.Misclassification(labels))
    first = run("foolbox/l2/dataset", trained, images, labels, [100.0])[0]
    assert first.success.all()
    assert all(any(torch.equal(found, other) for other in images) for found in first.images)


def test_what_cannot_work_is_refused_with_its_reason() -> None:
    with pytest.raises(NotAvailable, match="thresholds its input"):
        ATTACKS.create("foolbox/l2/binarization-refinement")


def test_without_numba_its_attacks_are_refused_by_name(monkeypatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match=r"foolbox/l2/brendel-bethge needs the package numba: pip install"):
        ATTACKS.create("foolbox/l2/brendel-bethge")


def test_the_spatial_attack_knows_no_budget(trained, correct) -> None:
    images, labels = correct[0][:20], correct[1][:20]
    small, large = run("foolbox/none/spatial", trained, images, labels, [0.1, 5.0])
    assert torch.equal(small.images, large.images)
    assert small.success.all()
    assert (small.forwards, small.backwards) == (large.forwards, 0)
