"""Whatever a network is like inside: float32 logits with a batch dimension, images that stay as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gauntlet.models import Tap, kind_of, why_no_logits
from gauntlet.models.standard_form import bring_into_form

SHAPE = (1, 4, 4)


class Network(nn.Module):
    """Two layers, with a last touch to images and logits."""

    def __init__(self, before=lambda x: x, after=lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = before, after
        self.body, self.last = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU()), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.last(self.body(self.before(images))))


class Autocast(Network):
    """Passes in bfloat16."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(images)


class Named(Network):
    """Gives its outputs by name."""

    def forward_outputs(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(self.before(images))
        return {"features": features, "logits": self.after(self.last(features))}

    def head(self) -> tuple[Tensor, Tensor]:
        return self.last.weight, self.last.bias


ODD = {
    "float64": lambda kind: kind(after=lambda logits: logits.double()),
    "float16": lambda kind: kind(after=lambda logits: logits.half()),
    "bfloat16": lambda kind: kind(after=lambda logits: logits.bfloat16()),
    "autocast": lambda kind: Autocast(),
    "squeezed": lambda kind: kind(after=lambda logits: logits.squeeze()),
    "in place": lambda kind: kind(before=lambda images: images.sub_(0.0)),
}


@pytest.mark.parametrize("kind", [Network, Named])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("count", [1, 5])
def test_odd_networks_give_what_the_plain_one_gives(name: str, kind: type[Network], count: int) -> None:
    network, images = ODD[name](kind).eval(), torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(3))
    bring_into_form(network, SHAPE)
    before, wanted = images.clone(), Network()(images)
    found = network(images)
    assert (found.dtype, found.shape) == (torch.float32, (count, 3))
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)
    tapped = Tap(network, torch.rand(4, *SHAPE))(images)
    assert {part: tuple(value.shape) for part, value in tapped.items()} == {
        "logits": (count, 3),
        "features": (count, 8),
    }
    assert tapped["features"].dtype == torch.float32
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ODD)
def test_their_head_is_found_all_the_same(name: str) -> None:
    network = ODD[name](Network).eval()
    bring_into_form(network, SHAPE)
    tap = Tap(network, torch.rand(4, *SHAPE))
    assert tap.why_no_head == ""
    assert torch.equal(tap.head[0], Network().last.weight)


@pytest.mark.parametrize("name", ODD)
def test_gradients_reach_the_images(name: str) -> None:
    network = ODD[name](Network).eval()
    bring_into_form(network, SHAPE)
    images = torch.rand(3, *SHAPE, requires_grad=True)
    network(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_copy_of_such_a_network_is_one_too() -> None:
    network = ODD["float16"](Network)
    bring_into_form(network, SHAPE)
    assert copy.deepcopy(network)(torch.rand(2, *SHAPE)).dtype == torch.float32


def test_lazy_layers_get_their_sizes() -> None:
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3))
    bring_into_form(network, SHAPE)
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [(5, 16), (5,), (3, 5), (3,)]


def test_the_random_stream_of_a_network_with_weights_is_not_touched() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    torch.manual_seed(4)
    bring_into_form(nn.Sequential(network, Noisy()), SHAPE)
    drawn = torch.rand(2)
    torch.manual_seed(4)
    assert torch.equal(drawn, torch.rand(2))


class Noisy(nn.Module):
    """Draws in its forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_a_network_that_does_not_take_the_images_is_left_to_its_check() -> None:
    network = nn.Linear(7, 3)
    bring_into_form(network, SHAPE)
    assert network(torch.rand(2, 7)).shape == (2, 3)


@pytest.mark.parametrize(
    ("touch", "kind"),
    [
        (lambda z: z, "logits"),
        (lambda z: z * 1e-3, "logits"),
        (lambda z: torch.zeros_like(z), "logits"),
        (lambda z: z.log_softmax(1), "log-probabilities"),
        (lambda z: z.log_softmax(1).half(), "log-probabilities"),
        (lambda z: z.softmax(1), "probabilities"),
        (lambda z: z.softmax(1).bfloat16(), "probabilities"),
        (lambda z: (50 * z).softmax(1), "probabilities"),
        (lambda z: z.sigmoid(), "independent probabilities"),
    ],
)
def test_what_the_outputs_are_is_recognised(touch, kind: str) -> None:
    outputs = touch(torch.randn(50, 10, generator=torch.Generator().manual_seed(0)) * 3)
    assert kind_of(outputs) == kind
    assert bool(why_no_logits(outputs, "net")) == ("independent" in kind or kind == "probabilities")
