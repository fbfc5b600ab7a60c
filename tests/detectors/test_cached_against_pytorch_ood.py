"""Every cached detector that pytorch-ood 0.4.0 has too, on random tensors and on the outputs of a trained network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from pytorch_ood import detector as peer
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.testing import assert_close

from gauntlet.detectors import Head, Outputs, build_detector
from gauntlet.registry import DETECTORS

CLASSES = 6


class Scene(NamedTuple):
    """Outputs of one model on its training, validation and test images."""

    train: Outputs
    val: Outputs
    test: Outputs
    fc: nn.Linear


def _scene(bodies: list[Tensor], labels: list[Tensor], fc: nn.Linear) -> Scene:
    head = Head(fc.weight.detach(), fc.bias.detach())
    sides = [
        Outputs(label, features @ head.weight.T + head.bias, features, head=head)
        for features, label in zip(bodies, labels, strict=True)
    ]
    return Scene(*sides, fc)


def random_scene() -> Scene:
    """Independent positive activations."""
    torch.manual_seed(0)
    sizes = (400, 300, 120)
    features = [torch.randn(n, 24).relu() * torch.rand(n, 1) * 3 + 0.01 for n in sizes]
    fc = nn.Linear(24, CLASSES)
    with torch.no_grad():
        fc.weight.mul_(4)
        fc.bias.sub_(fc(features[0]).mean(0))  # so that every class is predicted
    labels = [(fc(z) + torch.randn(len(z), CLASSES)).argmax(1).detach() for z in features]
    return _scene(features, labels, fc)


def trained_scene() -> Scene:
    """A small network trained on the digits 0 to 5; the test images are those and the digits 6 to 9."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    pixels, digits = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    pixels = pixels.float() / 16
    known = digits < CLASSES
    body, fc = nn.Sequential(nn.Linear(64, 24), nn.ReLU()), nn.Linear(24, CLASSES)
    optimizer = torch.optim.Adam([*body.parameters(), *fc.parameters()], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(fc(body(pixels[known][:700])), digits[known][:700]).backward()
        optimizer.step()
    x, y = pixels[known], digits[known]
    parts = [x[:600], x[600:900], torch.cat([x[900:], pixels[~known][:100]])]
    labels = [y[:600], y[600:900], torch.cat([y[900:], torch.full((100,), -1)])]
    with torch.no_grad():
        return _scene([body(part) for part in parts], labels, fc)


@pytest.fixture(scope="module", params=[random_scene, trained_scene], ids=["random", "trained"])
def scene(request) -> Scene:
    return request.param()


def ours(name: str, scene: Scene, **parameters: Any) -> Tensor:
    built = build_detector(DETECTORS.get(name), parameters)
    if built.needs_fit:
        built.fit(scene.train, scene.val, scene.train.head)
    return built.score(scene.test).double()


def _maps(z: Tensor) -> Tensor:
    return z[:, :, None, None]


def _on_maps(fc: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda maps: fc(maps.flatten(1))


def _energy_through(detector: Any, scene: Scene) -> Tensor:
    return detector.predict_feature_maps(_maps(scene.test.features))


def _ash(variant: str) -> Callable[[Scene], Tensor]:
    return lambda s: _energy_through(peer.ASH(None, _on_maps(s.fc), variant=f"ash-{variant}", percentile=0.8), s)


def _fitted(make: Callable[[Scene], Any]) -> Callable[[Scene], Tensor]:
    """A peer that is fitted to training features and labels and scores features."""
    return lambda s: make(s).fit_features(s.train.features, s.train.labels).predict_features(s.test.features)


PEERS: dict[str, tuple[dict[str, Any], Callable[[Scene], Tensor]]] = {
    "kl-matching": (
        {},
        lambda s: peer.KLMatching(None).fit_logits(s.val.logits, s.val.labels).predict_logits(s.test.logits),
    ),
    "rmd": ({}, lambda s: len(s.train) * _fitted(lambda _: peer.RMD(None))(s)),
    "gmm": ({"reg": 1e-3}, _fitted(lambda _: peer.GMM(None, reg=1e-3))),
    "vim": ({"dim": 10}, _fitted(lambda s: peer.ViM(None, 10, s.train.head.weight, s.train.head.bias))),
    "react": (
        {"q": 0.9},
        lambda s: -s.fc(s.test.features.clamp(max=float(s.val.features.quantile(0.9)))).logsumexp(1),
    ),
    "dice": (
        {"dropped": 0.7},
        _fitted(lambda s: peer.DICE(None, s.train.head.weight, s.train.head.bias, 0.7)),
    ),
    "scale": ({"q": 0.8}, lambda s: _energy_through(peer.SCALE(None, _on_maps(s.fc), percentile=0.8), s)),
    "lts": ({"p": 0.2}, lambda s: peer.LTS(None, s.fc, p=0.2).predict_features(s.test.features)),
    "she": ({}, _fitted(lambda s: peer.SHE(None, s.fc))),
    "nnguide": ({"k": 10}, _fitted(lambda s: peer.NNGuide(None, s.fc, k=10))),
    "fdbd": ({}, _fitted(lambda s: peer.fDBD(None, s.fc))),
    "nci": ({"alpha": 1e-2}, _fitted(lambda s: peer.NCI(None, s.fc, alpha=1e-2))),
    "pnml": ({}, _fitted(lambda s: peer.PNML(None, s.fc))),
}


@pytest.mark.parametrize("name", sorted(PEERS))
def test_scores_are_pytorch_oods(name, scene):
    parameters, expected = PEERS[name]
    with torch.no_grad():
        theirs = expected(scene).double()
    spread = float(theirs.std())
    assert_close(ours(name, scene, **parameters), theirs, rtol=2e-4, atol=2e-4 * spread)


@pytest.mark.parametrize("variant", ["b", "p", "s"])
def test_ash(variant, scene):
    with torch.no_grad():
        theirs = _ash(variant)(scene).double()
    assert_close(ours("ash", scene, variant=variant, q=0.8), theirs, rtol=1e-5, atol=1e-5)


def test_gen_is_the_sum_of_what_pytorch_ood_averages(scene):
    soft = scene.test.logits / scene.test.logits.abs().max()  # it clips probabilities at 1e-7
    theirs = peer.GEN(None).predict_logits(soft)
    found = build_detector(DETECTORS.get("gen")).score(Outputs(scene.test.labels, soft))
    assert_close(found.float(), CLASSES * theirs, rtol=1e-5, atol=1e-6)


def test_temperature_scaling_finds_a_temperature_that_is_at_least_as_likely(scene):
    def nll(temperature: float) -> float:
        return float(nn.functional.cross_entropy(scene.val.logits.double() / temperature, scene.val.labels))

    built = build_detector(DETECTORS.get("temperature-scaled"))
    built.fit(scene.train, scene.val, None)
    theirs = peer.TemperatureScaling(None).fit_logits(scene.val.logits, scene.val.labels)
    found = built.temperature
    assert nll(found) <= nll(theirs.t.item()) + 1e-9
    assert nll(found) <= min(nll(found * 0.99), nll(found * 1.01))
    expected = peer.MaxSoftmax(None, t=found).predict_logits(scene.test.logits) + 1
    assert_close(built.score(scene.test).float(), expected, rtol=1e-4, atol=1e-6)


def test_gradnorm_is_the_norm_of_the_gradient_that_autograd_finds(scene):
    expected = []
    for z in scene.test.features[:20]:
        scene.fc.zero_grad()
        (-scene.fc(z).log_softmax(0)).mean().backward()
        expected.append(-scene.fc.weight.grad.abs().sum())
    assert_close(ours("gradnorm", scene)[:20], torch.stack(expected).double(), rtol=1e-4, atol=1e-6)


def test_openmax_ranks_as_pytorch_ood_does(scene):
    """It shifts the tail by 10,000 before it fits and takes all images; ours shifts by 1 and takes those it knows."""
    right = scene.train.logits.argmax(1) == scene.train.labels
    theirs = peer.OpenMax(lambda x: x, tailsize=20, alpha=3)
    theirs.fit_logits(scene.train.logits[right], scene.train.labels[right])
    expected = theirs.predict_logits(scene.test.logits)
    assert spearmanr(ours("openmax", scene).numpy(), expected.numpy()).statistic > 0.9


def test_vra_with_one_value_per_unit_clips_like_pytorch_ood(scene):
    """Its bounds are per unit, ours common; on a single unit they are the same."""
    z = [side.features.amax(dim=1, keepdim=True) for side in (scene.val, scene.test)]
    fc = nn.Linear(1, 3)
    theirs = peer.VRA(None, _on_maps(fc), 0.1, 0.9).fit_feature_maps(_maps(z[0]), torch.zeros(len(z[0])).long())
    head = Head(fc.weight.detach(), fc.bias.detach())
    built = build_detector(DETECTORS.get("vra"))
    built.fit(Outputs(torch.zeros(0)), Outputs(torch.zeros(len(z[0])), features=z[0]), head)
    found = built.score(Outputs(torch.zeros(len(z[1])), features=z[1], head=head))
    assert_close(found.float(), theirs.predict_feature_maps(_maps(z[1])), rtol=1e-5, atol=1e-5)


def test_react_with_its_threshold_from_the_same_images(scene):
    theirs = peer.ReAct(lambda x: x, scene.fc, percentile=0.9)
    if not hasattr(theirs, "fit_feature_maps"):
        pytest.skip("this pytorch-ood fits ReAct to images only")
    theirs.fit_feature_maps(scene.val.features, scene.val.labels)
    assert_close(ours("react", scene).float(), theirs.predict_feature_maps(scene.test.features), rtol=1e-4, atol=1e-5)
