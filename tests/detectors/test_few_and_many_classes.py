"""Training sets at the edge: one image a class, a thousand classes, classes that are absent or never predicted."""

from __future__ import annotations

import pytest
import torch

from gauntlet import GauntletError
from gauntlet.detectors import Head, Outputs, build_detector, check_scores
from gauntlet.registry import DETECTORS

READABLE = {"logits", "features", "labels", "head"}
NAMES = [e for e in DETECTORS if e.plugin is None and set(e.needs) <= READABLE]


def outputs(classes: int, count: int, *, width: int = 16, absent: int | None = None, seed: int = 0) -> Outputs:
    """Images near the weight of their class, which the head gets right; of one class there may be none."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.nn.functional.normalize(torch.randn(classes, width, generator=generator), dim=1) * 6
    labels = torch.arange(count) % classes
    labels = labels[labels != absent] if absent is not None else labels
    noise = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(seed)) * 0.3
    features = weight[labels] + noise
    head = Head(weight, -weight.square().sum(1) / 2)
    return Outputs(labels, logits=head.logits(features).float(), features=features, head=head)


def score(entry, train: Outputs, test: Outputs) -> torch.Tensor:
    detector = build_detector(entry, {"k": min(2, len(train))} if entry.has("k") else {})
    if detector.needs_fit:
        detector.fit(train, train, train.head)
    return check_scores(detector.score(test), len(test), entry.name)


@pytest.mark.parametrize("entry", NAMES, ids=lambda entry: entry.name)
def test_one_training_image_a_class_is_enough(entry) -> None:
    assert score(entry, outputs(4, 4), outputs(4, 20, seed=1)).isfinite().all()


@pytest.mark.parametrize("entry", NAMES, ids=lambda entry: entry.name)
def test_a_thousand_classes_with_two_images_each(entry) -> None:
    assert score(entry, outputs(1000, 2000, width=64), outputs(1000, 300, width=64, seed=1)).isfinite().all()


@pytest.mark.parametrize("entry", NAMES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("where", ["train", "test", "both"])
def test_a_class_may_be_absent(entry, where: str) -> None:
    train = outputs(5, 50, absent=2 if where != "test" else None)
    test = outputs(5, 30, seed=1, absent=2 if where != "train" else None)
    if entry.name == "she" and where == "train":  # images are predicted as a class of which it knows no pattern
        with pytest.raises(GauntletError, match="predicted as class 2: no training image of class 2 is classified"):
            score(entry, train, test)
        return
    assert score(entry, train, test).isfinite().all()


@pytest.mark.parametrize("entry", NAMES, ids=lambda entry: entry.name)
def test_a_class_may_never_be_predicted(entry) -> None:
    """The head gets all images of one class wrong."""
    train, test = outputs(5, 50), outputs(5, 30, seed=1)
    for part in (train, test):
        part.head = Head(part.head.weight, part.head.bias - torch.tensor([0, 0, 1000.0, 0, 0]))
        part.logits = part.head.logits(part.features).float()
    assert score(entry, train, test).isfinite().all()


@pytest.mark.parametrize("entry", NAMES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("classes", [2, 3])
def test_two_and_three_classes_are_enough(entry, classes: int) -> None:
    assert score(entry, outputs(classes, 40), outputs(classes, 20, seed=1)).isfinite().all()
