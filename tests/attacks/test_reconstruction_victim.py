"""The victim whose loss is a reconstruction error: its gradient by hand, and what attacks make of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gauntlet.attacks import PerImageRNG
from gauntlet.attacks.reconstruction import ReconstructionVictim
from gauntlet.registry import ATTACKS

CLIMBING = sorted(entry.name for entry in ATTACKS if entry.meta.get("loss") == "any")


class Bottleneck(nn.Module):
    """A linear autoencoder of 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 64), nn.Sigmoid())

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        return {"reconstruction": self.layers(x).view_as(x)}


@pytest.fixture
def x() -> Tensor:
    return 0.2 + 0.6 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


LABELS = torch.zeros(12, dtype=torch.int64)


@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_is_that_of_the_mean_square_with_and_without_the_target(x: Tensor, detach: bool):
    model = Bottleneck()
    weight_in, weight_out = model.layers[1], model.layers[2]
    flat = x.flatten(1).double()
    made = torch.sigmoid(weight_out.double()(weight_in.double()(flat)))
    slope = made * (1 - made)
    jacobian = slope[:, :, None] * (weight_out.weight @ weight_in.weight)[None]  # (N, made pixels, pixels)
    residual = flat - made
    by_hand = -2 / 64 * torch.einsum("np,npq->nq", residual, jacobian)
    if not detach:
        by_hand = by_hand + 2 / 64 * residual
    with ReconstructionVictim(model.float(), detach_target=detach, batch_size=5) as victim:
        gradient, outputs = victim.gradient(x, LABELS)
    torch.testing.assert_close(gradient.flatten(1).double(), by_hand, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(outputs[:, 0].double(), residual.square().mean(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", CLIMBING)
def test_attacks_that_climb_a_loss_raise_the_error_inside_the_ball_and_fool_nothing(name: str, x: Tensor):
    attack = ATTACKS.create(name)
    epsilon = 0.1 if attack.norm == "linf" else 0.8
    with ReconstructionVictim(Bottleneck()) as victim:
        (result,) = attack.run(victim, x, LABELS, [epsilon], rng=PerImageRNG("test", torch.arange(12)))
        before, after = victim.loss(x, LABELS), victim.loss(result.images, LABELS)
    assert not result.success.any()
    assert float(result.norms.max()) <= epsilon * (1 + 1e-5) + 1e-6
    if ATTACKS.get(name).meta["access"] == "gradient":
        assert (after > before).all()
    else:
        assert not torch.equal(result.images, x)


def test_many_steps_from_the_image_raise_the_error_at_least_as_much_as_one(x: Tensor):
    # Not so from a random start: the squared distance to the target is convex, and a start picks its corner.
    raised = {}
    with ReconstructionVictim(Bottleneck()) as victim:
        for name in ("fgsm", "bim"):
            (result,) = ATTACKS.create(name).run(victim, x, LABELS, [0.2], rng=PerImageRNG("t", torch.arange(12)))
            raised[name] = float(victim.loss(result.images, LABELS).mean())
    assert raised["bim"] >= raised["fgsm"] - 1e-6


def test_at_epsilon_zero_the_images_come_back_bit_for_bit(x: Tensor):
    with ReconstructionVictim(Bottleneck()) as victim:
        for name in CLIMBING:
            (result,) = ATTACKS.create(name).run(victim, x, LABELS, [0.0], rng=PerImageRNG("t", torch.arange(12)))
            assert torch.equal(result.images, x)


def test_the_model_is_left_as_it_was(x: Tensor):
    model = Bottleneck().train()
    with ReconstructionVictim(model) as victim:
        assert not model.training
        assert victim.reconstruct(x).shape == x.shape
        victim.gradient(x, LABELS)
        assert (victim.forwards, victim.backwards) == (12, 12)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
