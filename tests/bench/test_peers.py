"""Objects of other libraries stand where names stand, and give what their library gives."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

import gauntlet
from gauntlet.attacks import peers
from gauntlet.datasets.digits import digits


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    train = digits("train")
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(train.images), train.labels).backward()
        optimiser.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def test_set() -> tuple[Tensor, Tensor]:
    data = digits("test")
    return data.images[:60], data.labels[:60]


def robust(results, attack: str, epsilon: float) -> float:
    rows = results[(results["attack"] == attack) & (results["metric"] == "robust_accuracy")]
    return rows[(rows["epsilon"] - epsilon).abs() < 1e-9]["value"].iloc[0]


def right(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return net(images).argmax(1) == labels


def test_foolbox_objects_of_both_kinds(net, test_set):
    foolbox = pytest.importorskip("foolbox")
    deepfool = foolbox.attacks.L2DeepFoolAttack()
    attacks = {"fgsm": "fgsm", "theirs": foolbox.attacks.LinfFastGradientAttack(), "nearest": deepfool}
    results = gauntlet.evaluate(net, test_set, attacks=attacks, eps={"linf": 0.05, "l2": 1.0})
    assert robust(results, "theirs", 0.05) == robust(results, "fgsm", 0.05)
    images, labels = test_set
    found = deepfool(foolbox.PyTorchModel(net, (0, 1), "cpu"), images, labels, epsilons=[1.0])[2][0]
    stands = ~found & right(net, images, labels)
    assert robust(results, "nearest", 1.0) == pytest.approx(float(stands.float().mean()))


def test_torchattacks_objects_attack_the_model_of_the_row_and_are_left_as_they_were(net, test_set):
    torchattacks = pytest.importorskip("torchattacks")
    other = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    theirs = torchattacks.FGSM(other, eps=0.2)
    results = gauntlet.evaluate(net, test_set, attacks=["fgsm", theirs], eps=0.05)
    assert robust(results, "FGSM", 0.05) == robust(results, "fgsm", 0.05)
    assert (theirs.eps, theirs.model) == (0.2, other)


def test_pytorch_ood_objects_beside_ours(net, test_set):
    detector = pytest.importorskip("pytorch_ood.detector")
    train = digits("train")
    objects = {
        "msp": "msp",
        "their msp": detector.MaxSoftmax(net),
        "energy": "energy",
        "their energy": detector.EnergyBased(None),
        "mahalanobis": "mahalanobis",
        "their mahalanobis": detector.Mahalanobis(None),
        "of images": detector.ODIN(net, norm_std=[1.0], eps=0.0, temperature=1.0),
    }
    results = gauntlet.evaluate(
        net, test_set, detectors=objects, ood=["glyphs"], train=(train.images[:300], train.labels[:300])
    )
    auroc = results[results["metric"] == "auroc"].set_index("detector")["value"]
    assert auroc["their msp"] == auroc["msp"] == pytest.approx(auroc["of images"], abs=1e-6)
    assert auroc["their energy"] == pytest.approx(auroc["energy"], abs=1e-6)
    assert auroc["their mahalanobis"] == pytest.approx(auroc["mahalanobis"], abs=0.01)


def test_functions_of_adversarial_library_are_recognised_by_name(net, test_set):
    def ddn(model, inputs: Tensor, labels: Tensor, steps: int = 100) -> Tensor:
        inputs = inputs.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(inputs), labels), inputs)
        return (inputs + 0.1 * steps * gradient.sign()).clamp(0, 1).detach()

    ddn.__module__ = "adv_lib.attacks.decoupled_direction_norm"
    found = peers.recognised(functools.partial(ddn, steps=2))
    assert (found.norm, found.kind) == ("l2", "minimum-norm")
    results = gauntlet.evaluate(net, test_set, attacks=[functools.partial(ddn, steps=2)], eps=50.0)
    images, labels = test_set
    assert robust(results, "ddn", 50.0) == float(right(net, ddn(net, images, labels, 2), labels).float().mean())


def test_objects_of_art_are_given_arrays(net, test_set):
    class FastGradientMethod:
        eps, norm = 0.3, torch.inf

        def set_params(self, eps: float) -> None:
            self.eps = eps

        def generate(self, x, y):
            inputs = torch.from_numpy(x).requires_grad_()
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(net(inputs), torch.from_numpy(y)), inputs)
            return (inputs + self.eps * gradient.sign()).clamp(0, 1).detach().numpy()

    FastGradientMethod.__module__ = "art.attacks.evasion.fast_gradient"
    results = gauntlet.evaluate(net, test_set, attacks=["fgsm", FastGradientMethod()], eps=0.05)
    assert robust(results, "FastGradientMethod", 0.05) == robust(results, "fgsm", 0.05)
    own = gauntlet.evaluate(net, test_set, attacks=[FastGradientMethod()])
    assert set(own[own["metric"] == "robust_accuracy"]["epsilon"].dropna()) == {0.3}


def test_detectors_of_oodeel_are_asked_for_scores_of_images(net, test_set):
    class MLS:
        def score(self, images: Tensor):
            return -net(images).amax(1).numpy(), {}

    MLS.__module__ = "oodeel.methods.mls"
    results = gauntlet.evaluate(net, test_set, detectors=["max-logit", MLS()], ood=["glyphs"])
    auroc = results[results["metric"] == "auroc"].set_index("detector")["value"]
    assert auroc["MLS"] == pytest.approx(auroc["max-logit"], abs=1e-6)
