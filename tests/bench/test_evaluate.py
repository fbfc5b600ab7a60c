"""One line for any model: what it takes, that it measures what a suite measures, and that it leaves no trace."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gauntlet
from gauntlet.datasets import DataSource, resolve
from gauntlet.datasets.digits import digits
from gauntlet.registry import ATTACKS, DATASETS, DETECTORS, MODELS, GauntletError


def network() -> nn.Sequential:
    """A linear model of digits, by one step of least squares: about 90 % right."""
    train = digits("train")
    x, y = train.images.flatten(1), nn.functional.one_hot(train.labels, 10).float()
    weight = torch.linalg.solve(x.T @ x + 10 * torch.eye(784), x.T @ (y - 0.1))
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        net[1].weight.copy_(8 * weight.T)
        net[1].bias.zero_()
    return net.eval()


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    return network()


@pytest.fixture(scope="module")
def test_set() -> tuple[Tensor, Tensor]:
    data = digits("test")
    return data.images[:200], data.labels[:200]


def value(frame: pd.DataFrame, metric: str, **where: str) -> float:
    rows = frame[(frame["metric"] == metric) & (frame["class"] == "")]
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    assert len(rows) == 1, frame[["evaluator", "metric", "status", "reason"]].to_string()
    return rows["value"].iloc[0]


def right(net: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    return float((net(data[0]).argmax(1) == data[1]).float().mean())


def test_a_module_is_measured_as_it_is(net, test_set):
    results = gauntlet.evaluate(net, test_set, detectors=["msp"], ood=["glyphs"])
    assert value(results, "accuracy") == pytest.approx(right(net, test_set))
    outside = resolve("glyphs", DataSource.default(), shape=(1, 28, 28)).load("test").images
    scores = [-net(images).double().softmax(1).amax(1).detach() for images in (test_set[0], outside)]
    truth = [0] * len(scores[0]) + [1] * len(scores[1])
    assert value(results, "auroc", detector="msp") == pytest.approx(roc_auc_score(truth, torch.cat(scores)), abs=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: ((x * 255).round().to(torch.uint8), y),
        lambda x, y: TensorDataset(x, y),
        lambda x, y: DataLoader(TensorDataset(x, y), batch_size=64),
        lambda x, y: [*zip(x, y, strict=True)] and _Items(x, y),
    ],
    ids=["arrays", "8 bits", "dataset", "loader", "items"],
)
def test_data_in_every_form_gives_the_same(net, test_set, given):
    assert value(gauntlet.evaluate(net, given(*test_set)), "accuracy") == pytest.approx(right(net, test_set))


class _Items:
    """Images with channels last, as a set of somebody's own gives them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        return self.images[number].permute(1, 2, 0).numpy(), int(self.labels[number])


def test_a_named_set_and_a_registered_model_go_the_way_of_a_suite(tmp_path: Path):
    small = {"name": "cnn-small", "recipe": {"standard": {"epochs": 1}}}
    results = gauntlet.evaluate(small, "digits", limit=200, out=tmp_path / "one")
    suite = {"models": [small], "datasets": [{"digits": {"limit": 200}}], "evaluators": ["accuracy"]}
    other = gauntlet.run({"name": "two", **suite}, out=tmp_path / "two")
    assert value(results, "accuracy") == value(other, "accuracy")
    assert (tmp_path / "one" / "results.csv").is_file()


def test_several_models_stand_in_one_table(net, test_set):
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[1].weight.zero_()
    train, named = digits("train"), {"name": "cnn-small", "recipe": {"standard": {"epochs": 1}}}
    models = {"good": net, "blind": lambda x: other(x), "by name": named}
    results = gauntlet.evaluate(models, test_set, train=(train.images, train.labels))
    assert value(results, "accuracy", model="good") == pytest.approx(right(net, test_set))
    assert value(results, "accuracy", model="blind") == pytest.approx(right(other, test_set))
    assert set(results["model"]) == {"good", "blind", "by name"}


def test_functions_stand_where_names_stand(net, test_set):
    def margin(logits):
        """Small gaps are odd."""
        top = logits.topk(2).values
        return top[:, 1] - top[:, 0]

    def step(victim, images, labels, epsilon):
        gradient, _ = victim.gradient(images, labels)
        return (images + epsilon * gradient.sign()).clamp(0, 1)

    def dusk(images, severity):
        return images * (1 - 0.1 * severity)

    results = gauntlet.evaluate(
        net,
        test_set,
        detectors=[margin, "msp"],
        attacks={"mine": step, "theirs": "fgsm"},
        eps=8 / 255,
        corruptions=[dusk],
        ood={"near": ["glyphs"], "far": [torch.rand(40, 1, 28, 28)]},
    )
    assert set(results[results["status"] != "ok"]["status"]) <= {"skipped"}
    mine, theirs = (value(results, "robust_accuracy", attack=name) for name in ("mine", "theirs"))
    assert mine == theirs < value(results, "accuracy", evaluator="accuracy")
    assert set(results["ood_group"]) == {"", "near", "far"}
    assert "margin" in set(results["detector"])
    assert (results["corruption"] == "dusk").any()


def test_the_model_is_given_back_as_it_was(test_set):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2704, 10))
    net[0].eval()
    net[4].weight.requires_grad_(False)
    net[3].register_forward_hook(lambda *_: None)
    before, places = copy.deepcopy(net.state_dict()), [one.data_ptr() for one in net.parameters()]
    modes, hooks = [part.training for part in net.modules()], [len(part._forward_hooks) for part in net.modules()]
    results = gauntlet.evaluate(net, test_set, attacks=["fgsm"], eps=0.1, detectors=["knn"], ood=["glyphs"])
    assert [part.training for part in net.modules()] == modes
    assert [len(part._forward_hooks) for part in net.modules()] == hooks
    assert [one.requires_grad for one in net.parameters()] == [True, True, True, True, False, True]
    assert [one.data_ptr() for one in net.parameters()] == places
    assert all(one.grad is None and one.is_contiguous() for one in net.parameters())
    assert all(torch.equal(known, before[name]) for name, known in net.state_dict().items())
    assert "train mode" in " ".join(results.notes)
    assert not any(entry.name.startswith("in-memory/") for kind in (MODELS, DETECTORS, ATTACKS) for entry in kind)


def test_it_is_given_back_also_after_an_error(test_set):
    net = network().train()
    with pytest.raises(GauntletError, match="Unknown attack"):
        gauntlet.evaluate(net, test_set, attacks=["pdg"])
    assert net.training
    assert not any(entry.name.startswith("in-memory/") for entry in DATASETS if "memory" not in entry.tags)


def test_a_callable_sees_each_image_once_whatever_is_asked_of_it(net, test_set):
    seen = []

    def counted(images: Tensor) -> Tensor:
        seen.append(len(images))
        return net(images)

    gauntlet.evaluate(
        counted, test_set, detectors=["msp", "energy", "max-logit", "entropy"], ood=[torch.rand(50, 1, 28, 28)]
    )
    probes = sum(size for size in seen if size <= 64)  # a first look, and the probe by which it is known again
    assert sum(seen) - probes == len(test_set[0]) + 50 - 50  # the OOD set is as small as a probe
    assert probes <= 50 + 16 * 8 + 64


def test_what_was_stored_is_used_again_unless_the_function_changed(net, test_set, tmp_path: Path):
    scale = nn.Parameter(torch.ones(()))

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.outside = net, [scale]

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).roll(int(self.outside[0]) - 1, 1)

    first = gauntlet.evaluate(Scaled(), test_set, out=tmp_path)
    again = gauntlet.evaluate(Scaled(), test_set, out=tmp_path)
    assert value(first, "accuracy") == value(again, "accuracy")
    assert "verified by outputs" in " ".join(again.notes)
    scale.data += 1  # neither weights of the model nor its source
    changed = gauntlet.evaluate(Scaled(), test_set, out=tmp_path)
    assert "outputs have changed" in " ".join(changed.notes)
    assert value(changed, "accuracy") < 0.5 < value(again, "accuracy")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"detectors": ["msp"]}, "detectors need OOD sets"),
        ({"ood": ["glyphs"]}, "ood need detectors"),
        ({"eps": 0.1}, "eps need attacks"),
        ({"detectors": [3], "ood": ["glyphs"]}, "detector 'int': expected a name"),
        ({"normalize": "imagenett"}, "did you mean 'imagenet'"),
        ({"normalize": (0.5,)}, r"normalize must be \(mean, std\)"),
        ({"normalize": "auto"}, "does not say what it was trained with"),
        ({"train": "digits"}, "train= must be images in memory"),
    ],
)
def test_a_slip_is_one_sentence(net, test_set, options, sentence):
    with pytest.raises(GauntletError, match=sentence):
        gauntlet.evaluate(net, test_set, **options)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda x: x.flatten(1)[:, :10] * torch.nan, "gives NaN"),
        (lambda x: x.flatten(1)[:, :7], "gives 7 logits, and the data has 10 classes: say with classes="),
        (lambda x: x[:, :, :3, :3], r"logits of shape \(16, classes\)"),
        (lambda x: None, "must return logits"),
        (nn.Linear(3, 10), "does not take 1x28x28 images"),
        (3, "model must be a torch.nn.Module"),
    ],
)
def test_a_model_that_cannot_be_measured_is_one_sentence(test_set, model, sentence):
    with pytest.raises(GauntletError, match=sentence):
        gauntlet.evaluate(model, test_set)


def test_images_outside_the_unit_interval_are_told_where_normalisation_goes(net, test_set):
    with pytest.raises(GauntletError, match=r"Give images in \[0, 1\], and what the model wants as normalize="):
        gauntlet.evaluate(net, ((test_set[0] - 0.5) / 0.5, test_set[1]))


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize(
    "form",
    [
        lambda z: (z, None),
        lambda z: [z],
        lambda z: {"loss": None, "logits": z},
        lambda z: {"anything": z},
        Output,
        lambda z: z[:, :, None, None],
        lambda z: z.double(),
        lambda z: z.detach().numpy(),
    ],
)
def test_logits_are_found_in_what_a_model_returns(net, test_set, form):
    results = gauntlet.evaluate(lambda x: form(net(x)), test_set)
    assert value(results, "accuracy") == pytest.approx(right(net, test_set))


def test_one_logit_is_two_classes_and_that_is_said(test_set):
    images, labels = test_set
    results = gauntlet.evaluate(lambda x: x.mean((1, 2, 3)) - 0.25, (images, labels % 2))
    expected = ((images.mean((1, 2, 3)) > 0.25).long() == labels % 2).float().mean()
    assert value(results, "accuracy") == pytest.approx(float(expected))
    assert "one logit an image" in results.notes[0]


def test_probabilities_are_named_and_never_a_silent_figure(net, test_set):
    options = {"ood": ["glyphs"], "attacks": ["fgsm"], "eps": 0.1}
    results = gauntlet.evaluate(nn.Sequential(net, nn.Softmax(1)), test_set, detectors=["msp", "energy"], **options)
    plain = gauntlet.evaluate(net, test_set, detectors=["msp"], **options)
    for metric, where in (("auroc", {"detector": "msp"}), ("robust_accuracy", {"attack": "fgsm"})):
        assert value(results, metric, **where) == pytest.approx(value(plain, metric, **where), abs=0.01)
    (energy,) = results[results["detector"] == "energy"].itertuples()
    assert (energy.status, "log-probabilities" in energy.reason) == ("skipped", True)
    assert "gives probabilities" in " ".join(results.notes)
    assert "gives probabilities" in results.summary()


def test_wrong_normalisation_is_found(net, test_set):
    def wants_bytes(images: Tensor) -> Tensor:
        return net(images / 255) + (images.amax() < 20) * torch.arange(10.0)

    assert "did you mean" not in " ".join(gauntlet.evaluate(net, test_set).notes)
    wrong = gauntlet.evaluate(wants_bytes, test_set)
    assert "did you mean normalize='0..255'?" in wrong.summary()
    fixed = gauntlet.evaluate(wants_bytes, test_set, normalize="0..255")
    assert value(fixed, "accuracy") == pytest.approx(right(net, test_set))
    by_numbers = gauntlet.evaluate(wants_bytes, test_set, normalize=(0, 1 / 255))
    assert value(by_numbers, "accuracy") == pytest.approx(right(net, test_set))


def test_classes_say_which_logit_is_meant(net, test_set):
    wide = lambda x: torch.cat([torch.full((len(x), 5), 99.0), net(x)], 1)  # noqa: E731
    results = gauntlet.evaluate(wide, test_set, classes=range(5, 15))
    assert value(results, "accuracy") == pytest.approx(right(net, test_set))
    by_name = gauntlet.evaluate(wide, test_set, classes={str(digit): digit + 5 for digit in range(10)})
    assert value(by_name, "accuracy") == pytest.approx(right(net, test_set))
    with pytest.raises(GauntletError, match="one entry for each of the 10 classes, got 3"):
        gauntlet.evaluate(wide, test_set, classes=[1, 2, 3])


def test_without_gradients_attacks_that_need_them_are_left_out_with_the_reason(net, test_set):
    results = gauntlet.evaluate(
        lambda x: net(x).detach(), test_set, attacks=["fgsm", {"name": "square", "queries": 5}], eps=0.1
    )
    (fgsm,) = results[results["attack"] == "fgsm"].itertuples()
    assert (fgsm.status, "needs gradients" in fgsm.reason) == ("skipped", True)
    assert value(results, "robust_accuracy", attack="square queries=5") <= value(
        results, "accuracy", evaluator="accuracy"
    )


def hidden() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 10))


def knn(results: pd.DataFrame) -> float:
    return value(results, "auroc", detector="knn k=5")


def test_features_and_head_may_be_named_and_what_was_taken_is_in_the_rows(test_set):
    model, train = hidden(), digits("train")
    options = {"detectors": [{"name": "knn", "k": 5}, "vim"], "ood": ["glyphs"], "train": (train.images, train.labels)}
    found = gauntlet.evaluate(model, test_set, **options)
    layer = gauntlet.evaluate(model, test_set, features="2", **options)
    called = gauntlet.evaluate(model, test_set, features=lambda x: model[:3](x), head=model[5], **options)
    headed = gauntlet.evaluate(model, test_set, head="5", **options)
    assert knn(layer) == knn(called) != knn(found) == knn(headed)
    taken = lambda results: json.loads(results[results["detector"] == "knn k=5"]["params"].iloc[0])["features"]  # noqa: E731
    assert (taken(found), taken(layer), taken(headed)) == ("input of 5", "output of 2", "input of 5")
    assert "features are the input of 5" in " ".join(found.notes)
    assert value(headed, "auroc", detector="vim") == value(found, "auroc", detector="vim")
    assert "no final linear layer" in layer[layer["detector"] == "vim"]["reason"].iloc[0]
    assert "not the output of the final linear" in called[called["detector"] == "vim"]["reason"].iloc[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"features": "layer4"}, "the model has no such layer; known: 0, 1, 2, 3"),
        ({"head": "0"}, "must have a weight"),
        ({"head": (torch.zeros(10, 20), None)}, "needs features="),
        ({"features": 3}, "must be the name of a layer, a module or a callable, got int"),
    ],
)
def test_a_layer_that_is_not_there_is_one_sentence(test_set, options, sentence):
    with pytest.raises(GauntletError, match=sentence):
        gauntlet.evaluate(hidden(), test_set, **options)
