"""Every detector that pytorch-ood 0.4.0 has too, on a random network and on one trained on digits.

Ours work in float32, as they do on any model's outputs. The peers get the same outputs and compute in float64, so that
what differs is our rounding and not theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pytorch_ood import api
from pytorch_ood import detector as peer
from pytorch_ood.detector import tscaling
from pytorch_ood.detector.openmax.libnotmr import LibNotMR
from torch import Tensor, nn
from torch.testing import assert_close

from gauntlet.bench.sweep import POWERS, Sweeper
from gauntlet.detectors import Head, Outputs, build_detector
from gauntlet.registry import DETECTORS

CLASSES = 6
WANTED = {"logits", "features", "gram-statistics", "deflated-logits", "passes"}


class Net(nn.Module):
    """8x8 images, 24 maps of 2x2 pixels that are pooled to features, dropout, 6 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 24, 3)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.drop, self.fc = nn.Dropout(0.3), nn.Linear(24, CLASSES)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight)  # few units that never fire

    def maps(self, images: Tensor) -> Tensor:
        return self.relu(self.second(self.pool(self.relu(self.first(images)))))

    def features(self, images: Tensor) -> Tensor:
        return self.maps(images).mean(dim=(2, 3))

    def from_maps(self, maps: Tensor) -> Tensor:
        return self.fc(self.drop(maps.mean(dim=(2, 3))))

    def forward(self, images: Tensor) -> Tensor:
        return self.from_maps(self.maps(images))


class Scene(NamedTuple):
    """A network, and its images and outputs on training, validation and test images."""

    net: Net
    images: tuple[Tensor, Tensor, Tensor]
    train: Outputs
    val: Outputs
    test: Outputs


def scene_of(net: Net, images: tuple[Tensor, Tensor, Tensor], labels: tuple[Tensor, Tensor, Tensor]) -> Scene:
    sweeper = Sweeper(net.eval(), images[0][:4], 2048)
    sides = []
    for x, y in zip(images, labels, strict=True):
        swept = sweeper.sweep([(x, torch.arange(len(x)))], WANTED, "scene")
        values = dict(swept.tensors)
        sides.append(
            Outputs(
                y,
                values.pop("logits"),
                values.pop("features"),
                named=values,
                head=Head(net.fc.weight.detach(), net.fc.bias.detach()),
                model=net,
                image_batches=lambda x=x: x.split(64),
                tap=sweeper.tap,
                layers=swept.layers,
            )
        )
    return Scene(net, images, *sides)


def random_scene() -> Scene:
    """Weights and images at random, labels the largest logit after noise."""
    torch.manual_seed(0)
    net = Net()
    images = tuple(torch.rand(n, 1, 8, 8) * torch.rand(n, 1, 1, 1) for n in (400, 300, 120))
    with torch.no_grad():
        net.fc.weight.mul_(20)
        net.fc.bias.sub_(net.eval()(images[0]).mean(0))  # so that every class is predicted
        labels = tuple((net(x) + torch.randn(len(x), CLASSES)).argmax(1) for x in images)
    return scene_of(net, images, labels)


def digits_scene() -> Scene:
    """Trained on the digits 0 to 5; the test images are those and the digits 6 to 9."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    pixels, digits = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    pixels = pixels.float().view(-1, 1, 8, 8) / 16
    known = digits < CLASSES
    x, y, unknown = pixels[known], digits[known], pixels[~known][:100]
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[:600]), y[:600]).backward()
        optimizer.step()
    images = x[:600], x[600:900], torch.cat([x[900:], unknown])
    return scene_of(net, images, (y[:600], y[600:900], torch.cat([y[900:], torch.full((100,), -1)])))


@pytest.fixture(scope="module", params=[random_scene, digits_scene], ids=["random", "digits"])
def scene(request) -> Scene:
    return request.param()


def in_float64(scene: Scene) -> Scene:
    """The same numbers for the peers."""

    def widened(side: Outputs) -> Outputs:
        head, logits, features = (side.get(need) for need in ("head", "logits", "features"))
        return Outputs(
            side.labels,
            logits.double(),
            features.double(),
            named={name: values.double() for name, values in side.named.items()},
            head=Head(head.weight.double(), head.bias.double()),
        )

    images = tuple(x.double() for x in scene.images)
    sides = (widened(side) for side in (scene.train, scene.val, scene.test))
    return Scene(copy.deepcopy(scene.net).double(), images, *sides)  # type: ignore[arg-type]


@contextmanager
def computing_in_float64() -> Iterator[None]:
    """What the peers allocate or cast to float32 themselves stays in float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def ours(name: str, scene: Scene, **parameters: Any) -> Tensor:
    built = build_detector(DETECTORS.get(name), parameters)
    if built.needs_fit:
        built.fit(scene.train, scene.val, scene.train.head)
    return built.score(scene.test).double()


def on_logits(detector: Any, s: Scene) -> Tensor:
    return detector.predict_logits(s.test.logits)


def on_features(detector: Any, s: Scene) -> Tensor:
    return detector.predict_features(s.test.features)


def fitted(detector: Any, s: Scene) -> Tensor:
    return on_features(detector.fit_features(s.train.features, s.train.labels), s)


def distance(make: Callable[..., Any], s: Scene, *, unit: bool = False, **parameters: Any) -> Tensor:
    """On features a thousand times as large, which have the same distances but drown the 1e-6 that it adds to S.

    It does not divide S by N, so that its distances are N times too small. ``unit`` features had length 1 before.
    """

    def large(features: Tensor) -> Tensor:
        return 1000 * (nn.functional.normalize(features, dim=1) if unit else features)

    detector = make(lambda images: large(s.net.features(images)), **parameters)
    detector.fit_features(large(s.train.features), s.train.labels)
    return len(s.train) * detector(s.images[2])


def on_maps(make: Callable[..., Any], s: Scene, **parameters: Any) -> Tensor:
    """The peer shapes maps; ours shapes pooled features, which are maps of one pixel."""
    detector = make(None, lambda maps: s.net.fc(maps.flatten(1)), **parameters)
    if hasattr(detector, "fit_feature_maps"):
        detector.fit_feature_maps(s.val.features[:, :, None, None], s.val.labels)
    return detector.predict_feature_maps(s.test.features[:, :, None, None])


def vra(s: Scene) -> Tensor:
    """Its bounds are per unit, ours common to all: it is fitted to all activations as those of one unit."""
    detector = peer.VRA(None, lambda maps: s.net.fc(maps.flatten(1)), 0.5, 0.9)
    every = s.val.features.reshape(-1, 1, 1, 1)
    detector.fit_feature_maps(every, torch.zeros(len(every)))
    return detector.predict_feature_maps(s.test.features[:, :, None, None])


def openmax(s: Scene) -> Tensor:
    """On the correctly classified images, by which ours knows a class, and with our shift of the tail, not 10000."""
    right = s.train.logits.argmax(1) == s.train.labels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LibNotMR, "translation", property(lambda _: 1, lambda *_: None), raising=False)
        detector = peer.OpenMax(None, tailsize=20, alpha=3)
        return on_logits(detector.fit_logits(s.train.logits[right], s.train.labels[right]), s)


def temperature_scaled(s: Scene) -> Tensor:
    """Its 50 short steps end before the optimum; here it searches along lines until nothing changes."""

    def patient(parameters: Any, **_: Any) -> torch.optim.LBFGS:
        return torch.optim.LBFGS(
            parameters, max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-16
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tscaling, "LBFGS", patient)
        return on_logits(peer.TemperatureScaling(None).fit_logits(s.val.logits, s.val.labels), s)


def mc_dropout(s: Scene) -> Tensor:
    """The network answers with the passes that ours saw, one after the other."""
    passes = iter(s.test.named["passes"].unbind(1))

    class Replay(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            return next(passes)

    return peer.MCD(Replay().eval(), samples=30, mode="mean")(s.images[2])


def coverage(s: Scene) -> Tensor:
    """Of the features alone: the network begins with them."""
    from_features = nn.Sequential(nn.Identity(), s.net.fc)
    train, test = (side.features.requires_grad_() for side in (s.train, s.test))
    return peer.NACUE(from_features, [from_features[0]]).fit([train]).predict(test).double()  # it ends in float32


def gram(s: Scene) -> Tensor:
    """It holds out the first tenth of a permutation of each class; this one begins with every tenth image."""

    def every_tenth_first(n: int) -> Tensor:
        return (torch.arange(n) % 10 != 9).int().argsort(stable=True)

    layers = [s.net.first, s.net.relu, nn.Sequential(s.net.pool, s.net.second), s.net.relu]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randperm", every_tenth_first)
        detector = peer.Gram(s.net.from_maps, layers, CLASSES, list(POWERS)).to("cpu")
        return detector.fit([(s.images[0], s.train.labels)]).predict(s.images[2])


class Case(NamedTuple):
    """A peer's scores brought to our scale, and the detector of ours that gives them.

    They differ by at most ``error`` of the scores' spread, a hundred roundings of float32.
    """

    peer: type
    theirs: Callable[[Scene], Tensor]
    ours: str
    parameters: dict[str, Any] = {}  # noqa: RUF012
    error: float = 2e-5


COMPARED = (
    Case(peer.ASH, lambda s: on_maps(peer.ASH, s, variant="ash-b", percentile=0.8), "ash", {"variant": "b", "q": 0.8}),
    Case(peer.ASH, lambda s: on_maps(peer.ASH, s, variant="ash-p", percentile=0.8), "ash", {"variant": "p", "q": 0.8}),
    Case(peer.ASH, lambda s: on_maps(peer.ASH, s, variant="ash-s", percentile=0.8), "ash", {"variant": "s", "q": 0.8}),
    Case(peer.DICE, lambda s: fitted(peer.DICE(None, *s.train.head, 0.7), s), "dice", {"dropped": 0.7}),
    Case(peer.EnergyBased, lambda s: on_logits(peer.EnergyBased(None), s), "energy"),
    Case(peer.EnergyBased, lambda s: on_logits(peer.EnergyBased(None, t=10.0), s), "energy", {"temperature": 10.0}),
    Case(peer.Entropy, lambda s: on_logits(peer.Entropy(None), s), "entropy"),
    Case(peer.fDBD, lambda s: fitted(peer.fDBD(None, s.net.fc), s), "fdbd"),
    # It raises probabilities to at least 1e-7, which the power 0.1 shows in all but the two largest.
    Case(peer.GEN, lambda s: 2 * on_logits(peer.GEN(None, M=2), s), "gen", {"top": 2}),
    Case(peer.GEN, lambda s: CLASSES * on_logits(peer.GEN(None, gamma=1.0), s), "gen", {"gamma": 1.0}),
    Case(peer.GMM, lambda s: fitted(peer.GMM(None, reg=1e-3), s), "gmm", {"reg": 1e-3}),
    Case(peer.GradNorm, lambda s: peer.GradNorm(s.net, lambda name: name == "fc.weight")(s.images[2]), "gradnorm"),
    Case(
        peer.GradUncertainty,
        lambda s: peer.GradUncertainty(s.net, lambda name: name.startswith("fc."))(s.images[2]),
        "grad-uncertainty",
    ),
    Case(peer.Gram, gram, "gram"),
    Case(peer.KLMatching, lambda s: on_logits(peer.KLMatching(None).fit_logits(s.val.logits), s), "kl-matching"),
    Case(peer.KNN, lambda s: fitted(peer.KNN(None, k=50), s), "knn"),
    Case(peer.LTS, lambda s: on_features(peer.LTS(None, s.net.fc, p=0.2), s), "lts", {"p": 0.2}),
    Case(peer.Mahalanobis, lambda s: 2 * distance(peer.Mahalanobis, s), "mahalanobis"),
    Case(
        peer.Mahalanobis,
        lambda s: 2 * distance(peer.Mahalanobis, s, unit=True),
        "mahalanobis",
        {"normalize": True},
        error=1e-4,
    ),
    Case(
        peer.MahalanobisODIN,
        lambda s: 2 * distance(peer.MahalanobisODIN, s, eps=0.01),
        "mahalanobis-perturbed",
        {"epsilon": 0.01},
    ),
    Case(peer.MaxLogit, lambda s: on_logits(peer.MaxLogit(None), s), "max-logit", error=0),
    Case(peer.MaxSoftmax, lambda s: on_logits(peer.MaxSoftmax(None), s) + 1, "msp"),
    Case(peer.MaxSoftmax, lambda s: on_logits(peer.MaxSoftmax(None, t=10.0), s) + 1, "msp", {"temperature": 10.0}),
    Case(peer.MCD, lambda s: mc_dropout(s) + 1, "mc-dropout"),
    Case(peer.NCI, lambda s: fitted(peer.NCI(None, s.net.fc, alpha=1e-2), s), "nci", {"alpha": 1e-2}),
    Case(peer.NACUE, coverage, "nac"),
    Case(peer.NNGuide, lambda s: fitted(peer.NNGuide(None, s.net.fc, k=10), s), "nnguide", {"k": 10}),
    Case(peer.ODIN, lambda s: peer.ODIN(s.net)(s.images[2]) + 1, "odin"),
    Case(
        peer.ODIN,
        lambda s: peer.ODIN(s.net, temperature=2.0, eps=0.05)(s.images[2]) + 1,
        "odin",
        {"temperature": 2.0, "epsilon": 0.05},
    ),
    Case(peer.OpenMax, openmax, "openmax", error=1e-3),  # scipy's simplex stops 1e-4 short of the likeliest shape
    Case(peer.PNML, lambda s: fitted(peer.PNML(None, s.net.fc), s), "pnml"),
    Case(peer.RankFeat, lambda s: peer.RankFeat(s.net.maps, s.net.from_maps)(s.images[2]), "rankfeat"),
    Case(peer.ReAct, lambda s: on_maps(peer.ReAct, s, percentile=0.8), "react", {"q": 0.8}),
    # A difference of two squared distances, each with the rounding of its own size, which is far above the spread.
    Case(peer.RMD, lambda s: distance(peer.RMD, s), "rmd", error=5e-4),
    Case(peer.RMD, lambda s: distance(peer.RMD, s, unit=True), "rmd", {"normalize": True}, error=5e-4),
    Case(peer.SCALE, lambda s: on_maps(peer.SCALE, s, percentile=0.8), "scale", {"q": 0.8}),
    Case(peer.SHE, lambda s: fitted(peer.SHE(None, s.net.fc), s), "she"),
    Case(peer.TemperatureScaling, lambda s: temperature_scaled(s) + 1, "temperature-scaled"),
    Case(peer.ViM, lambda s: fitted(peer.ViM(None, 10, *s.train.head), s), "vim", {"dim": 10}),
    Case(peer.VRA, vra, "vra", {"low": 0.5}),  # two in five activations are 0
)

NOT_OFFERED = {
    "MCM": "compares images with texts: needs an encoder of both, such as CLIP",
    "MultiMahalanobis": "sums several layers with weights chosen by hand; on the last layer it is Mahalanobis",
    "WeightedEBO": "needs weights from VOS training; with all weights 1 it is EnergyBased",
}


#: Detectors that pytorch-ood lacks, and the file that computes their scores a second time.
RECOMPUTED = {
    "adascale": "test_recent_formulas.py",
    "at-layer": "test_composites.py",
    "cadref": "test_recent_formulas.py",
    "caref": "test_recent_formulas.py",
    "cfood": "test_recent_formulas.py",
    "combine": "test_composites.py",
    "constant": "test_formulas.py",
    "cross-entropy": "test_scores.py",
    "disagreement": "test_formulas.py",
    "discriminator": "test_euinet.py",
    "doctor": "test_formulas.py",
    "euinet": "test_euinet.py",
    "grood": "test_recent_formulas.py",
    "i-odin": "test_recent_formulas.py",
    "max-2-max": "test_formulas.py",
    "mc-disagreement": "test_formulas.py",
    "modified": "test_composites.py",
    "neco": "test_recent_formulas.py",
    "random": "test_formulas.py",
    "reconstruction": "test_formulas.py",
    "relation": "test_recent_formulas.py",
    "residual": "test_formulas.py",
    "weiper": "test_recent_formulas.py",
}


@pytest.mark.parametrize("case", COMPARED, ids=lambda case: "-".join([case.ours, *map(str, case.parameters.values())]))
def test_scores_are_pytorch_oods(case, scene):
    with computing_in_float64():
        theirs = case.theirs(in_float64(scene)).detach()
    found = ours(case.ours, scene, **case.parameters)
    # A common offset (ODIN's 1 - 1/C at T = 1000) must not lend its size to the tolerance.
    centre, spread = theirs.mean(), float(theirs.std())
    assert_close(found - centre, theirs - centre, rtol=case.error, atol=case.error * spread)


def test_every_detector_of_pytorch_ood_is_compared_or_has_a_reason_not_to_be():
    exported = {name for name, kind in vars(peer).items() if isinstance(kind, type) and issubclass(kind, api.Detector)}
    compared = {case.peer.__name__ for case in COMPARED}
    assert exported == compared | set(NOT_OFFERED)
    assert not compared & set(NOT_OFFERED)


def test_every_detector_of_ours_is_compared_or_computed_a_second_time():
    own = {entry.name for entry in DETECTORS if entry.factory.__module__.startswith("gauntlet.")}
    assert own == {case.ours for case in COMPARED} | set(RECOMPUTED)
    for name, file in RECOMPUTED.items():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f'"{name}"' in text or f"import {name.replace('-', '_')}" in text


def test_the_temperature_is_likelier_than_those_beside_it(scene):
    def nll(temperature: float) -> float:
        return float(nn.functional.cross_entropy(scene.val.logits.double() / temperature, scene.val.labels))

    built = build_detector(DETECTORS.get("temperature-scaled"))
    built.fit(scene.train, scene.val, None)
    assert nll(built.temperature) < min(nll(built.temperature * 0.999), nll(built.temperature * 1.001))
