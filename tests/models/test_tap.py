"""The tap: logits, features and head of any classifier, from one pass, without a trace."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gauntlet.models import Tap
from gauntlet.registry import GauntletError


class Forward(nn.Module):
    """A classifier whose forward pass is given as a function of its layers."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def flat_net(last: Callable[[nn.Module, Tensor], Tensor], **more: nn.Module) -> nn.Module:
    net = Forward(lambda self, x: last(self, self.body(x.flatten(1)).relu()), body=nn.Linear(64, 6), **more)
    return net.eval()


def reusing() -> nn.Module:
    """The head runs three times; the last pass gives the logits."""

    def forward(self, z):
        for _ in range(2):
            z = self.fc(z)
        return self.fc(z)

    return flat_net(forward, fc=nn.Linear(6, 6))


def member(_: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4))


class Attention(nn.Module):
    """Its parameters are defined in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.embed = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x.squeeze(1))
        return self.fc(self.attention(z, z, z)[0].mean(1))


WITH_HEAD = {
    "sequential": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4)),
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
    "a linear layer alone": lambda: Forward(lambda self, x: self.fc(x.flatten(1)), fc=nn.Linear(64, 4)),
    "no bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Linear(6, 4, bias=False)),
    "by keyword": lambda: flat_net(lambda self, z: self.fc(input=z), fc=nn.Linear(6, 4)),
    "reused": reusing,
    "attention": Attention,
    "dropout before it": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Dropout(0.9), nn.Linear(6, 4)),
    "identity behind it": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Identity()),
    "wrapped": lambda: nn.Sequential(nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(64, 4)))),
    "resnet": lambda: nn.Sequential(nn.Conv2d(1, 3, 1), torchvision.models.resnet18(num_classes=4)),
}
#: What the last linear layer that happens to run does not tell.
ELSEWHERE = {
    "scaled": lambda: flat_net(lambda self, z: 1.01 * self.fc(z), fc=nn.Linear(6, 4)),
    "temperature": lambda: flat_net(lambda self, z: self.fc(z) / 3.7, fc=nn.Linear(6, 4)),
    "a linear layer that runs beside": lambda: flat_net(
        lambda self, z: self.fc(z) + 0 * self.other(z).sum(), fc=nn.Linear(6, 4), other=nn.Linear(6, 3)
    ),
    "linear layer on pixels": lambda: Forward(
        lambda self, x: self.fc(x.movedim(1, -1)).mean((1, 2)), fc=nn.Linear(1, 4)
    ),
    "1x1 convolution, then pooling": lambda: Forward(
        lambda self, x: self.conv(x).mean((2, 3)), conv=nn.Conv2d(1, 4, 1)
    ),
    "pooling, then convolution": lambda: Forward(
        lambda self, x: self.conv(self.body(x).mean((2, 3), True)).flatten(1),
        body=nn.Conv2d(1, 6, 3),
        conv=nn.Conv2d(6, 4, 1),
    ),
    "functional": lambda: flat_net(lambda self, z: F.linear(z, self.fc.weight, self.fc.bias), fc=nn.Linear(6, 4)),
    "a product": lambda: flat_net(lambda self, z: z @ self.fc.weight.T + self.fc.bias, fc=nn.Linear(6, 4)),
    "cosine": lambda: flat_net(
        lambda self, z: 16 * F.linear(F.normalize(z), F.normalize(self.fc.weight)), fc=nn.Linear(6, 4, bias=False)
    ),
    "weight norm": lambda: flat_net(lambda self, z: self.fc(z), fc=parametrizations.weight_norm(nn.Linear(6, 4))),
    "mean of two heads": lambda: flat_net(
        lambda self, z: (self.a(z) + self.b(z.square())) / 2, a=nn.Linear(6, 4), b=nn.Linear(6, 4)
    ),
    "two heads on one input": lambda: flat_net(
        lambda self, z: (self.a(z) + self.b(z)) / 2, a=nn.Linear(6, 4), b=nn.Linear(6, 4)
    ),
    "a projection head after the classifier": lambda: flat_net(
        lambda self, z: (self.fc(z), self.projection(z.square()))[0], fc=nn.Linear(6, 4), projection=nn.Linear(6, 4)
    ),
    "mean of five members": lambda: Forward(
        lambda self, x: torch.stack([part(x) for part in self.members]).mean(0),
        members=nn.ModuleList(map(member, range(5))),
    ),
}
WITHOUT_HEAD = {
    "softmax": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Softmax(1)),
        "the logits are not the output of the final linear layer",
    ),
    "convolutions only": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "the model has no final linear layer",
    ),
    "no parameters": (
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        "the model has no final linear layer",
    ),
}


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", [*WITH_HEAD, *ELSEWHERE])
def test_features_times_head_are_the_logits(name: str, x: Tensor):
    net = (WITH_HEAD | ELSEWHERE)[name]().eval()
    tap = Tap(net, x[:2])
    with torch.no_grad():
        outputs = tap(x)
        expected = net(x)
    assert tap.why_no_head == ""
    weight, bias = tap.head
    assert torch.equal(outputs["logits"], expected)
    torch.testing.assert_close(outputs["features"] @ weight.T + bias, expected, rtol=1e-5, atol=1e-5)
    assert not weight.requires_grad
    assert not bias.requires_grad


@pytest.mark.parametrize("name", WITHOUT_HEAD)
def test_where_there_is_no_head_the_reason_is_said_and_the_logits_still_come(name: str, x: Tensor):
    make, reason = WITHOUT_HEAD[name]
    net = make().eval()
    tap = Tap(net, x[:2])
    assert (tap.head, tap.why_no_head) == (None, reason)
    assert torch.equal(tap(x)["logits"], net(x))


def test_features_are_kept_also_where_they_do_not_explain_the_logits(x: Tensor):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4), nn.Softmax(1)).eval()
    assert torch.equal(Tap(net, x)(x)["features"], net[:3](x))


def test_where_nothing_explains_the_logits_there_are_no_features(x: Tensor):
    net = flat_net(lambda self, z: self.fc(z).relu().square(), fc=nn.Linear(6, 4))
    tap = Tap(net, x)
    assert set(tap(x)) == {"logits"}
    assert tap.taken == ""


def test_what_was_taken_is_told_by_name(x: Tensor):
    assert Tap(WITH_HEAD["sequential"]().eval(), x).taken == "input of 3"
    assert Tap(ELSEWHERE["mean of two heads"]().eval(), x).taken == "input of a and input of b"
    assert Tap(ELSEWHERE["cosine"]().eval(), x).taken == "input of a computed linear map"


def test_features_are_those_of_the_classifier_and_not_of_the_gate(x: Tensor):
    def pooled(self: nn.Module, x: Tensor) -> Tensor:
        maps = self.body(x)
        return (maps * self.excite(self.squeeze(maps.mean((2, 3))).relu()).sigmoid()[:, :, None, None]).mean((2, 3))

    layers = {"squeeze": nn.Linear(6, 4), "excite": nn.Linear(4, 6), "conv": nn.Conv2d(6, 4, 1)}
    gate = Forward(
        lambda self, x: self.conv(pooled(self, x)[:, :, None, None]).flatten(1), body=nn.Conv2d(1, 6, 3), **layers
    ).eval()
    assert torch.equal(Tap(gate, x)(x)["features"], pooled(gate, x))


@pytest.mark.parametrize(
    "make", [*WITH_HEAD.values(), *ELSEWHERE.values(), *(make for make, _ in WITHOUT_HEAD.values())]
)
def test_it_leaves_no_hooks_and_changes_neither_mode_nor_weights(make: Callable[[], nn.Module], x: Tensor):
    net = make().eval()
    next(net.children()).train()  # also a mixed mode stays as it is
    before = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    Tap(net, x)(x)
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    for name, value in net.state_dict().items():
        if "running" not in name and "num_batches" not in name:  # a layer in train mode counts what it sees
            assert torch.equal(value, before[name]), name


def test_hooks_go_also_when_a_pass_fails(x: Tensor):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    tap = Tap(net, x)
    with pytest.raises(RuntimeError):
        tap(torch.rand(2, 1, 9, 9))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_gradients_pass_through(x: Tensor):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
    images = x.requires_grad_()
    (gradient,) = torch.autograd.grad(Tap(net, x)(images)["logits"].sum(), images)
    assert gradient.abs().sum() > 0


def test_the_head_is_as_the_layer_is_now(x: Tensor):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    tap = Tap(net, x)
    with torch.no_grad():
        net[1].bias.fill_(7)
    assert tap.head[1].tolist() == [7] * 4


class Own(nn.Module):
    """Names its outputs itself."""

    def __init__(self, outputs, head=None) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 4)
        self.outputs, self.own_head = outputs, head

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))

    def forward_outputs(self, x: Tensor):
        return self.outputs(self, x)

    def head(self):
        return None if self.own_head is None else self.own_head(self)


def everything(self: Own, x: Tensor) -> dict[str, Tensor]:
    return {"logits": self(x), "features": x.flatten(1), "embedding": x.flatten(1)[:, :2]}


def test_a_module_that_names_its_outputs_is_asked(x: Tensor):
    tap = Tap(Own(everything, lambda self: (self.fc.weight, self.fc.bias)), x)
    assert set(tap(x)) == {"logits", "features", "embedding"}
    assert tap.head is not None
    assert not tap.head[0].requires_grad


@pytest.mark.parametrize(
    ("outputs", "head", "reason"),
    [
        (everything, None, "no final linear layer"),
        (everything, lambda self: (2 * self.fc.weight, self.fc.bias), "not the output of the final linear layer"),
        (everything, lambda self: (self.fc.weight[:, :9], self.fc.bias), "not the output of the final linear layer"),
        (lambda self, x: {"logits": self(x)}, lambda self: (self.fc.weight, self.fc.bias), "not one vector an image"),
    ],
)
def test_its_head_is_believed_only_if_it_gives_the_logits(x: Tensor, outputs, head, reason: str):
    tap = Tap(Own(outputs, head), x)
    assert tap.head is None
    assert reason in tap.why_no_head


def test_a_head_that_is_a_layer_is_no_answer_but_no_error(x: Tensor):
    net = Own(everything)
    net.head = nn.Linear(64, 4)
    assert Tap(net, x).head is None


def test_a_bias_may_be_absent(x: Tensor):
    tap = Tap(
        Own(lambda self, x: everything(self, x) | {"logits": self(x) - self.fc.bias}, lambda s: (s.fc.weight, None)), x
    )
    assert tap.head[1].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("outputs", "got"),
    [(lambda self, x: x, "a Tensor"), (lambda self, x: {"z": [1.0], "y": x}, "z: a list, y: a Tensor")],
)
def test_outputs_that_are_no_tensors_by_name_are_refused(x: Tensor, outputs, got: str):
    wanted = rf"^Own.forward_outputs must return a mapping from names to tensors, got {got}\.$"
    with pytest.raises(GauntletError, match=wanted):
        Tap(Own(outputs), x)


def test_a_model_without_logits_has_outputs_and_no_head(x: Tensor):
    tap = Tap(Own(lambda self, x: {"features": x.flatten(1), "embedding": x.mean((2, 3))}), x)
    assert tap(x).keys() == {"features", "embedding"}
    assert tap.head is None
    assert tap.why_no_head == "the model gives no logits"
