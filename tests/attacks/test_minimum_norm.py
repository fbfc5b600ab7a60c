"""deepfool, ddn, fmn, cw-l2, sigma-zero and salt-and-pepper next to foolbox's and to closed forms."""

from __future__ import annotations

from types import SimpleNamespace

import foolbox
import pytest
import torch
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim, perturbation_norms
from gauntlet.attacks.cw import CarliniWagner
from gauntlet.registry import ATTACKS, GauntletError

DUAL = {"l2": 2.0, "linf": 1.0, "l1": torch.inf}


def attack(name: str, model: nn.Module, data, epsilons=(1,), *, batch_size: int = 512, **parameters):
    images, labels = data
    with Victim(model, batch_size=batch_size, memory_format=torch.contiguous_format) as victim:
        rng = PerImageRNG("k", torch.arange(len(images)))
        return ATTACKS.create(name, **parameters).run(victim, images, labels, list(epsilons), rng=rng)


def peer(model: nn.Module, data, original, norm: str) -> torch.Tensor:
    """Sizes of what foolbox found, infinite where it does not fool."""
    images, labels = data
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, found, _ = original(foolbox.PyTorchModel(model, (0, 1), device="cpu"), images, labels, epsilons=None)
    with torch.no_grad():
        fooled = model(found).argmax(dim=1) != labels
    return torch.where(fooled, perturbation_norms(found, images, norm), torch.inf)


@pytest.mark.parametrize(
    ("name", "norm", "parameters", "middle", "highest"),
    [
        ("deepfool", "l2", {}, (1.0199, 1.03), 1.04),
        ("deepfool", "linf", {}, (1.0199, 1.045), 1.12),
        ("cw-l2", "l2", {"trials": 7, "steps": 300, "stepsize": 0.001}, (1, 1.01), 1.3),
        ("ddn", "l2", {}, (1.1, 1.35), 1.5),  # the cross entropy does not lead to the nearest boundary
        ("fmn", "l2", {}, (1, 1.005), 1.3),
        ("fmn", "linf", {}, (1, 1.005), 1.3),
        ("fmn", "l1", {}, (1, 1.01), 1.3),
        ("fab-t", "l2", {"steps": 10}, (1, 1.01), 1.02),
        ("fab-t", "linf", {"steps": 10}, (1, 1.01), 1.02),
        ("fab-t", "l1", {"steps": 10}, (1, 1.01), 1.02),
    ],
)
def test_distances_on_a_linear_model(linear, name, norm, parameters, middle, highest) -> None:
    """The least of |f_k| / ||w_k||_q over the other classes is known; each attack stands to it as its paper says."""
    model, images, labels = linear
    weight, logits = model[1].weight.detach(), model(images).detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    sizes = torch.stack([torch.linalg.vector_norm(weight - weight[one], ord=DUAL[norm], dim=1) for one in labels])
    exact = (gaps / sizes).scatter(1, labels[:, None], torch.inf).amin(dim=1)
    far = exact > exact.median() / 4  # nearer ones are swamped by constants such as deepfool's 1e-4
    extra = {} if name in ("cw-l2", "ddn") else {"norm": norm}
    (result,) = attack(name, model, (images, labels), **extra, **parameters)
    ratio = (result.smallest / exact)[far]
    assert ratio.min() >= 0.9999
    assert middle[0] <= ratio.median() <= middle[1]
    assert ratio.max() <= highest
    if (name, norm) == ("deepfool", "l2"):
        torch.testing.assert_close(result.smallest, 1.02 * (exact + 1e-4), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("norm", "original"),
    [("l2", foolbox.attacks.L2DeepFoolAttack), ("linf", foolbox.attacks.LinfDeepFoolAttack)],
)
def test_deepfool_finds_foolboxes_distances(trained, correct, norm, original) -> None:
    theirs = peer(trained, correct, original(), norm)
    (result,) = attack("deepfool", trained, correct, norm=norm)
    both = result.smallest.isfinite() & theirs.isfinite()
    assert both.float().mean() > 0.99
    close = ((result.smallest - theirs).abs() < 1e-4)[both].float().mean()
    assert close > 0.98  # ties between classes may round either way


def test_ddn_finds_foolboxes_distances(trained, correct) -> None:
    theirs = peer(trained, correct, foolbox.attacks.DDNAttack(), "l2")
    (result,) = attack("ddn", trained, correct)
    assert result.smallest.median().item() == pytest.approx(theirs.median().item(), rel=5e-3)


@pytest.mark.parametrize(
    ("norm", "original", "most"),
    [
        ("l2", foolbox.attacks.L2FMNAttack, 0.7),  # foolbox's never projects
        ("linf", foolbox.attacks.LInfFMNAttack, 1.02),
        ("l1", foolbox.attacks.L1FMNAttack, 0.95),  # foolbox's misses a quarter of the images
        ("l0", foolbox.attacks.L0FMNAttack, 1.0),
    ],
)
def test_fmn_is_as_near_as_foolboxes_or_nearer(trained, correct, norm, original, most) -> None:
    theirs = peer(trained, correct, original(), norm)
    (result,) = attack("fmn", trained, correct, norm=norm)
    assert result.smallest.isfinite().all()
    assert result.smallest.median() <= most * theirs.median()


def test_l2_attacks_agree_on_a_trained_network(trained, correct) -> None:
    sizes = {name: attack(name, trained, correct)[0].smallest.median() for name in ("ddn", "fmn", "deepfool")}
    best = min(sizes.values())
    assert sizes["ddn"] < 1.05 * best
    assert sizes["fmn"] < 1.1 * best
    assert sizes["deepfool"] < 1.15 * best


def test_cw_finds_foolboxes_distances(trained, correct) -> None:
    """Median over images: foolbox's abandons a trial for the whole batch at once, so that single images differ."""
    data = correct[0][:40], correct[1][:40]
    theirs = peer(trained, data, foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=300), "l2")
    (result,) = attack("cw-l2", trained, data, trials=5, steps=300)
    assert result.smallest.isfinite().all()
    assert result.smallest.median().item() == pytest.approx(theirs.median().item(), rel=0.02)


def test_cw_with_confidence_goes_beyond_the_boundary(trained, correct) -> None:
    data = correct[0][:20], correct[1][:20]
    (result,) = attack("cw-l2", trained, data, [10.0], trials=6, steps=150, confidence=2.0)
    with torch.no_grad():
        logits = trained(result.images)
    lead = logits.amax(dim=1) - logits.gather(1, data[1][:, None]).squeeze(1)
    assert result.success.float().mean() > 0.9
    assert (lead[result.success] > 1.99).all()


def test_sigma_zero_changes_fewer_pixels_than_fmn(trained, correct) -> None:
    (sparse,) = attack("sigma-zero", trained, correct, [2.0], steps=150)
    (fmn,) = attack("fmn", trained, correct, [2.0], norm="l0")
    assert sparse.smallest.isfinite().all()
    assert sparse.smallest.mean() <= fmn.smallest.mean()
    assert sparse.success.sum() >= fmn.success.sum()


def test_l0_counts_pixels_of_all_channels(correct) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10)).eval()
    images = torch.rand(8, 3, 8, 8)
    labels = model(images).argmax(dim=1)
    for name, parameters in (("fmn", {"norm": "l0"}), ("sigma-zero", {"steps": 100})):
        (result,) = attack(name, model, (images, labels), [64.0], **parameters)
        changed = ((result.images - images) != 0).any(dim=1).flatten(1).sum(dim=1)
        assert torch.equal(result.norms, changed.float())
        assert result.success.all()


def test_salt_and_pepper_is_foolboxes_in_distribution(trained, correct) -> None:
    theirs = peer(trained, correct, foolbox.attacks.SaltAndPepperNoiseAttack(steps=200), "l2")
    (result,) = attack("salt-and-pepper", trained, correct, [10.0], steps=200)
    assert result.success.all()
    assert result.smallest.median().item() == pytest.approx(theirs.median().item(), rel=0.08)
    changed = (result.images != correct[0]).flatten(1)
    values = result.images.flatten(1)[changed]
    assert ((values == 0) | (values == 1)).all()


def test_salt_and_pepper_asks_about_nearer_candidates_only(trained, correct) -> None:
    (result,) = attack("salt-and-pepper", trained, correct, [10.0], steps=200)
    assert result.forwards < 0.95 * 200 * len(correct[0])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("deepfool", {}),
        ("ddn", {"steps": 15}),
        ("fmn", {"steps": 15}),
        ("fmn", {"steps": 15, "norm": "l1"}),
        ("fmn", {"steps": 15, "norm": "l0"}),
        ("cw-l2", {"trials": 2, "steps": 20}),
        ("sigma-zero", {"steps": 20}),
        ("salt-and-pepper", {"steps": 40}),
    ],
)
def test_the_batch_size_changes_nothing_but_rounding(trained, correct, name, parameters) -> None:
    data = correct[0][:30], correct[1][:30]
    (one,) = attack(name, trained, data, batch_size=7, **parameters)
    (other,) = attack(name, trained, data, **parameters)
    finite = one.smallest.isfinite() & other.smallest.isfinite()
    close = torch.isclose(one.smallest, other.smallest, rtol=1e-3, atol=1e-4) | ~finite
    assert close.float().mean() >= 0.9
    assert (one.smallest.isfinite() == other.smallest.isfinite()).float().mean() >= 0.9


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("deepfool", {"candidates": 1}, "candidates >= 2"),
        ("ddn", {"gamma": 1.5}, "0 < gamma < 1"),
        ("fmn", {"first_stride": 0.001}, "first_stride >= last_stride"),
        ("cw-l2", {"stepsize": 0.0}, "stepsize and initial_weight > 0"),
        ("sigma-zero", {"threshold": 2.0}, "0 <= threshold <= 1"),
        ("salt-and-pepper", {"steps": 0}, "steps >= 1"),
    ],
)
def test_bad_parameters_are_one_sentence(name, parameters, message) -> None:
    with pytest.raises(GauntletError, match=message):
        ATTACKS.create(name, **parameters)


def test_cw_tries_ten_times_more_until_a_weight_succeeds_and_bisects_from_then_on():
    nothing, none, first = torch.zeros(2, 1, 1, 1), torch.zeros(2), torch.tensor([True, False])
    state = SimpleNamespace(
        **dict.fromkeys(("shift", "first", "second"), nothing),
        inner=none.long(),
        trials=none.long(),
        before=none,
        weight=none + 1,
        low=none,
        high=none + torch.inf,
        found=first,
    )
    attack, over = CarliniWagner(), torch.ones(2, dtype=torch.bool)
    attack._reweigh(state, over)
    assert state.weight.tolist() == [0.5, 10.0]
    state.found = ~first
    attack._reweigh(state, over)
    assert state.weight.tolist() == [0.75, 5.5]
