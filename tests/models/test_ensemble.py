"""Ensembles: three ways to answer as one, one head where that is exact, gradients where votes have none."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from gauntlet.models import Tap
from gauntlet.registry import MODELS, GauntletError


class Fixed(nn.Module):
    """A member that answers with given logits, whatever the image."""

    def __init__(self, *rows: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(rows))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def ensemble(members: list[nn.Module], combine: str) -> nn.Module:
    return MODELS.create("ensemble", members=members, combine=combine).eval()


@pytest.fixture
def members() -> list[nn.Module]:
    """Two M-nets, a plain network and a linear classifier: four sizes of features."""
    torch.manual_seed(0)
    nets = [MODELS.create(name, width=0.2, classes=4) for name in ("m5", "m7")]
    for net in nets:
        net.train()(torch.rand(32, 1, 28, 28))
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(784, 12), nn.ReLU(), nn.Linear(12, 4))
    return [net.eval() for net in (*nets, hidden, nn.Sequential(nn.Flatten(), nn.Linear(784, 4, bias=False)))]


@pytest.fixture
def x() -> Tensor:
    return torch.rand(9, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def stacked(members: list[nn.Module], x: Tensor) -> Tensor:
    return torch.stack([member(x) for member in members])


def test_logit_mean_is_one_linear_head_over_the_concatenated_features(members, x: Tensor):
    net = ensemble(members, "logit_mean")
    tap = Tap(net, x[:2])
    with torch.no_grad():
        outputs = tap(x)
        torch.testing.assert_close(outputs["logits"], stacked(members, x).mean(0), rtol=1e-6, atol=1e-6)
        assert torch.equal(outputs["logits"], net(x))
    weight, bias = tap.head
    assert weight.shape == (4, outputs["features"].shape[1])
    assert outputs["features"].shape[1] == sum(Tap(member, x).head[0].shape[1] for member in members)
    torch.testing.assert_close(outputs["features"] @ weight.T + bias, outputs["logits"], rtol=1e-5, atol=1e-5)


def test_an_ensemble_of_ensembles_has_one_head_too(members, x: Tensor):
    net = ensemble([ensemble(members[:2], "logit_mean"), *members[2:]], "logit_mean")
    tap = Tap(net, x)
    weight, bias = tap.head
    outputs = tap(x)
    torch.testing.assert_close(outputs["features"] @ weight.T + bias, outputs["logits"], rtol=1e-5, atol=1e-5)


def test_prob_mean_is_the_logarithm_of_the_mean_softmax(members, x: Tensor):
    with torch.no_grad():
        logits = ensemble(members, "prob_mean")(x)
        expected = stacked(members, x).double().softmax(-1).mean(0).log()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


def test_prob_mean_is_finite_where_all_members_are_certain():
    net = ensemble([Fixed([0.0, 500.0, -500.0]), Fixed([0.0, 400.0, -400.0])], "prob_mean")
    expected = torch.tensor([[-400 - math.log(2), 0.0, -800 - math.log(2)]])
    torch.testing.assert_close(net(torch.zeros(1)), expected, rtol=1e-6, atol=0)


def test_votes_are_counted():
    certain, doubtful = [9.0, 0.0, 0.0], [0.0, 0.1, 0.0]
    net = ensemble([Fixed(certain), Fixed(doubtful), Fixed(doubtful)], "vote")
    logits = net(torch.zeros(1))
    assert logits.argmax(1).item() == 1  # two doubtful votes outweigh a certain one
    torch.testing.assert_close(logits.softmax(1), torch.tensor([[1 / 3, 2 / 3, 0.0]]), rtol=0, atol=1.1e-3)


@pytest.mark.parametrize("members", [4, 6, 20])
def test_ties_go_to_the_larger_mean_probability(members: int):
    half = members // 2
    sure, unsure = Fixed([0.0, 3.0, 0.0]), Fixed([0.5, 0.0, 0.0])
    nets = [copy.deepcopy(unsure) for _ in range(half)] + [copy.deepcopy(sure) for _ in range(half)]
    assert ensemble(nets, "vote")(torch.zeros(1)).argmax(1).item() == 1
    nets[-1] = Fixed([0.1, 0.0, 0.0])  # one vote more, however unsure
    assert ensemble(nets, "vote")(torch.zeros(1)).argmax(1).item() == 0


def test_the_gradient_of_votes_is_that_of_the_mean_logits(members, x: Tensor):
    images = x.requires_grad_()
    weights = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(2))
    gradients = [
        torch.autograd.grad((ensemble(members, combine)(images) * weights).sum(), images)[0]
        for combine in ("vote", "logit_mean")
    ]
    assert torch.equal(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("combine", ["logit_mean", "prob_mean", "vote"])
def test_every_member_is_an_output(members, x: Tensor, combine: str):
    with torch.no_grad():
        outputs = ensemble(members, combine).forward_outputs(x)
        assert torch.equal(outputs["members"], stacked(members, x).movedim(0, 1))
        assert torch.equal(outputs["logits"], ensemble(members, combine)(x))


@pytest.mark.parametrize("combine", ["prob_mean", "vote"])
def test_other_combinations_have_features_but_no_head(members, x: Tensor, combine: str):
    tap = Tap(ensemble(members, combine), x)
    assert tap.head is None
    assert tap.why_no_head
    assert "features" in tap(x)


def test_a_member_without_a_head_takes_it_from_all(members, x: Tensor):
    convolutional = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    tap = Tap(ensemble([*members, convolutional], "logit_mean"), x)
    assert tap.head is None
    assert set(tap(x)) == {"logits", "members"}


def test_the_state_dict_holds_the_members_and_nothing_else(members, x: Tensor):
    net = ensemble(members, "logit_mean")
    names = set(net.state_dict())
    net.forward_outputs(x)
    assert set(net.state_dict()) == names
    assert names == {f"members.{i}.{name}" for i, member in enumerate(members) for name in member.state_dict()}


def test_a_copy_reads_its_own_members(members, x: Tensor):
    net = ensemble(members, "logit_mean")
    net.forward_outputs(x)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin.forward_outputs(x)["members"][:, 2:].abs().max() == 0
    assert net.forward_outputs(x)["members"][:, 2:].abs().max() > 0


@pytest.mark.parametrize("members", [[], ["m3"], [nn.Identity(), "m5"]])
def test_members_are_models(members):
    with pytest.raises(GauntletError, match="at least one member, each a model"):
        MODELS.create("ensemble", members=members)
