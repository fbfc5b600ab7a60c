"""Every detector against pytorch-ood 0.4.0, on random tensors and on a small network."""

from __future__ import annotations

import pytest
import torch
from pytorch_ood import detector as peer
from torch.testing import assert_close

from gauntlet.detectors import Outputs, build_detector
from gauntlet.registry import DETECTORS

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 4 * torch.randn(500, 10, generator=GENERATOR)
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}


def ours(name: str, outputs: Outputs, train: Outputs | None = None, **parameters) -> torch.Tensor:
    built = build_detector(DETECTORS.get(name), parameters)
    if train is not None:
        built.fit(train, None, None)
    return built.score(outputs)


def logit_scores(name: str, **parameters) -> torch.Tensor:
    return ours(name, Outputs(labels=torch.zeros(len(LOGITS)), logits=LOGITS), **parameters).float()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_msp_is_max_softmax_moved_up_by_one(temperature):
    expected = peer.MaxSoftmax(None, t=temperature).predict_logits(LOGITS) + 1
    assert_close(logit_scores("msp", temperature=temperature), expected, rtol=1e-4, atol=1e-6)


def test_max_logit():
    assert_close(logit_scores("max-logit"), peer.MaxLogit(None).predict_logits(LOGITS), rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_energy(temperature):
    expected = peer.EnergyBased(None, t=temperature).predict_logits(LOGITS)
    assert_close(logit_scores("energy", temperature=temperature), expected, **FLOAT32)


def test_entropy_up_to_the_probabilities_that_pytorch_ood_clips():
    # It raises each p below 1e-7 to 1e-7, which adds at most 1e-7 * log(1e7) per class.
    assert_close(logit_scores("entropy"), peer.Entropy(None).predict_logits(LOGITS), rtol=1e-5, atol=2e-5)


def test_knn_on_random_features():
    train, test = torch.randn(300, 20, generator=GENERATOR), torch.randn(80, 20, generator=GENERATOR)
    expected = peer.KNN(None, k=50).fit_features(train, torch.zeros(300).long()).predict_features(test)
    scores = ours("knn", Outputs(torch.zeros(80), features=test), Outputs(torch.zeros(300), features=train))
    assert_close(scores, expected.double(), rtol=1e-6, atol=1e-6)


def test_mahalanobis_is_two_n_times_pytorch_oods():
    train, test = torch.randn(300, 12, generator=GENERATOR), 2 * torch.randn(80, 12, generator=GENERATOR)
    labels = torch.arange(300) % 5
    expected = 600 * peer.Mahalanobis(None).fit_features(train, labels).predict_features(test)
    scores = ours("mahalanobis", Outputs(torch.zeros(80), features=test), Outputs(labels, features=train))
    assert_close(scores.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["msp", "max-logit", "energy", "entropy", "mahalanobis", "knn", "odin"])
def test_on_a_small_network(name, net, train, test):
    """The peers run the network itself, in the same float64."""
    built = {
        "msp": lambda: peer.MaxSoftmax(net),
        "max-logit": lambda: peer.MaxLogit(net),
        "energy": lambda: peer.EnergyBased(net),
        "entropy": lambda: peer.Entropy(net),
        # Its means and covariance are float32, whatever the features are.
        "mahalanobis": lambda: peer.Mahalanobis(lambda images: net.features(images).float()).fit_features(
            train.features.float(), train.labels
        ),
        "knn": lambda: peer.KNN(net.features, k=10).fit_features(train.features, train.labels),
        "odin": lambda: peer.ODIN(net, eps=0.05, temperature=2.0),
    }[name]()
    parameters = {"knn": {"k": 10}, "odin": {"epsilon": 0.05, "temperature": 2.0}}.get(name, {})
    fitted = name in ("mahalanobis", "knn")
    scores = ours(name, test, train if fitted else None, **parameters)
    images = torch.cat(list(test.image_batches()))
    with torch.set_grad_enabled(name == "odin"):
        expected = built(images).detach().double()
    if name in ("msp", "odin"):
        expected = expected + 1
    if name == "mahalanobis":
        expected = expected * 2 * len(train)
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if name == "mahalanobis" else {"rtol": 1e-9, "atol": 1e-9}
    assert_close(scores, expected, **tolerance)


@pytest.mark.parametrize(("temperature", "epsilon"), [(1000.0, 0.0014), (1.0, 0.2), (0.2, 0.02)])
def test_odin_moves_the_images_as_pytorch_ood_does(net, test, temperature, epsilon):
    expected = peer.ODIN(net, eps=epsilon, temperature=temperature)(torch.cat(list(test.image_batches()))) + 1
    assert_close(ours("odin", test, temperature=temperature, epsilon=epsilon), expected, rtol=1e-9, atol=1e-11)
