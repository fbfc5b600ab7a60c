"""What one sweep reads of a model: against pytorch-ood, against the definition, and without a trace on the model."""

from __future__ import annotations

import copy

import pytest
import torch
from pytorch_ood import detector as peer
from torch import Tensor, nn

from gauntlet.attacks import PerImageRNG
from gauntlet.bench.model_outputs import output_names
from gauntlet.bench.sweep import (
    PASSES,
    POWERS,
    LastMaps,
    Sweeper,
    dropout_passes,
    gram_statistics,
    without_largest_component,
)
from gauntlet.detectors import Outputs, build_detector
from gauntlet.models import Calibrated
from gauntlet.models.ensemble import Ensemble
from gauntlet.registry import CALIBRATORS, DETECTORS


class Net(nn.Module):
    """Convolutions whose last map is pooled; one rectifier serves twice and works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop, self.fc = nn.Dropout(0.4), nn.Linear(6, 3)

    def maps(self, images: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(images))))

    def from_maps(self, maps: Tensor) -> Tensor:
        return self.fc(self.drop(self.pool(maps).flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.from_maps(self.maps(images))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


IMAGES = torch.rand(60, 1, 10, 10, generator=torch.Generator().manual_seed(0))
ALL = {"reduced", "logits", "feature-maps", "gram-statistics", "deflated-logits", "passes"}


def sweep(net: Net, wanted: set[str], size: int = 60):
    indices = torch.arange(len(IMAGES))
    batches = zip(IMAGES.split(size), indices.split(size), strict=True)
    return Sweeper(net, IMAGES[:4], feature_dim=2048).sweep(batches, wanted, "stream")


def test_only_what_is_wanted_is_read(net):
    assert set(sweep(net, {"logits"}).tensors) == {"logits"}
    assert set(sweep(net, {"logits", "reduced"}).tensors) == {"logits", "features"}
    assert set(sweep(net, ALL).tensors) == (ALL - {"reduced"}) | {"features"}


def test_nothing_depends_on_the_batches(net):
    whole, parts = sweep(net, ALL), sweep(net, ALL, 7)
    assert whole.layers == parts.layers
    for name, values in whole.tensors.items():
        torch.testing.assert_close(parts.tensors[name], values, rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was(net):
    before = copy.deepcopy(net.state_dict())
    sweep(net, ALL)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(part.training for part in net.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_hooks_go_even_when_the_model_fails(net):
    with pytest.raises(RuntimeError):
        gram_statistics(net, lambda: net(torch.zeros(1, 2, 10, 10)))
    assert not any(part._forward_hooks for part in net.modules())


def test_the_last_map_is_that_of_the_last_call(net):
    maps = LastMaps(net, IMAGES[:2])
    assert maps.found
    with torch.no_grad():
        torch.testing.assert_close(maps.read(IMAGES), net.maps(IMAGES))


def test_a_model_without_maps_has_none():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(100, 3))
    assert not LastMaps(flat, IMAGES[:2]).found


def test_a_calibrated_ensemble_has_the_maps_of_all_its_members(net):
    ensemble = Ensemble([net, Net().eval()]).eval()
    calibrated = Calibrated(ensemble, CALIBRATORS.create("temperature")).eval()
    with torch.no_grad():
        found, expected = (LastMaps(part, IMAGES[:2]).deflated(IMAGES) for part in (calibrated, ensemble))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(5, 6, 4, 4), (5, 20, 2, 3)])
def test_the_largest_component_is_that_of_the_svd(shape):
    maps = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(maps.flatten(2), full_matrices=False)
    expected = (maps.flatten(2) - s[:, :1, None] * u[:, :, :1] @ v[:, :1]).view(shape)
    torch.testing.assert_close(without_largest_component(maps), expected, rtol=1e-10, atol=1e-10)


def test_rankfeat_is_pytorch_oods(net):
    logits = sweep(net, {"deflated-logits"}).tensors["deflated-logits"]
    outputs = Outputs(torch.zeros(60), named={"deflated-logits": logits})
    found = build_detector(DETECTORS.get("rankfeat")).score(outputs)
    with torch.no_grad():
        expected = peer.RankFeat(net.maps, net.from_maps)(IMAGES)
    torch.testing.assert_close(found.float(), expected, rtol=1e-6, atol=1e-6)


def test_gram_is_pytorch_oods(net):
    """Nine images a class leave nothing to hold out, which it would draw at random."""
    train, test = IMAGES[:27], IMAGES[27:]
    labels = torch.arange(27) % 3
    layers = [net.first, nn.ReLU(), net.second, nn.ReLU()]
    theirs = peer.Gram(lambda maps: net.from_maps(maps), layers, 3, list(POWERS)).to("cpu")
    theirs.fit([(train, labels)])
    swept = sweep(net, {"logits", "gram-statistics"})
    names = ("logits", "gram-statistics")

    def part(rows: slice, y: Tensor) -> Outputs:
        values = {name: swept.tensors[name][rows] for name in names}
        return Outputs(y, values["logits"], named={names[1]: values[names[1]]}, layers=swept.layers)

    built = build_detector(DETECTORS.get("gram"))
    built.fit(part(slice(27), labels), None, None)
    found = built.score(part(slice(27, None), torch.zeros(33)))
    with torch.no_grad():
        expected = theirs.predict(test)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)


def test_gram_divides_a_layer_by_what_held_out_images_overshoot():
    built = build_detector(DETECTORS.get("gram"))
    statistics = torch.tensor([[1.0]] * 9 + [[3.0]])  # the tenth overshoots [1, 1] by 2
    train = Outputs(torch.zeros(10).long(), torch.zeros(10, 2), named={"gram-statistics": statistics}, layers=(1,))
    built.fit(train, None, None)
    test = Outputs(torch.zeros(3), torch.zeros(3, 2), layers=(1,))
    test.named["gram-statistics"] = torch.tensor([[1.0], [2.0], [0.0]])
    assert built.score(test).tolist() == pytest.approx([0.0, 0.5, 0.5], rel=1e-5)


class TestDropoutPasses:
    def test_drop_with_the_layers_probability_and_keep_the_mean(self, net):
        passes = dropout_passes(net, IMAGES, PerImageRNG("a", torch.arange(60)), passes=200)
        with torch.no_grad():
            plain = net(IMAGES)
        assert passes.shape == (60, 200, 3)
        error = (passes.mean(1) - plain).abs().detach()
        assert (error <= 5 * passes.std(1).detach() / 200**0.5 + 1e-6).all()

    def test_belong_to_the_image(self, net):
        whole = dropout_passes(net, IMAGES, PerImageRNG("a", torch.arange(60)), passes=2)
        alone = dropout_passes(net, IMAGES[30:31], PerImageRNG("a", torch.tensor([30])), passes=2)
        torch.testing.assert_close(alone, whole[30:31])

    def test_channels_go_as_a_whole_in_dropout2d(self):
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Dropout2d(0.5)).eval()
        net.append(nn.Flatten())
        out = dropout_passes(net, IMAGES[:5], PerImageRNG("a", torch.arange(5)), passes=1).view(5, 8, 64)
        seen = (out == 0).float().mean(2)
        assert set(seen.unique().tolist()) == {0.0, 1.0}

    def test_have_the_distribution_of_pytorch_oods(self, net):
        found = build_detector(DETECTORS.get("mc-dropout")).score(
            Outputs(torch.zeros(60), named={"passes": dropout_passes(net, IMAGES, PerImageRNG("a", torch.arange(60)))})
        )
        torch.manual_seed(0)
        with torch.no_grad():
            expected = peer.MCD(net, samples=400, mode="mean")(IMAGES) + 1
        assert not net.training
        assert float((found.detach() - expected).abs().mean()) < 0.03

    def test_a_model_without_dropout_yields_none(self):
        plain = nn.Sequential(nn.Flatten(), nn.Linear(100, 3)).eval()
        batches = [(IMAGES, torch.arange(60))]
        swept = Sweeper(plain, IMAGES[:4], 2048).sweep(batches, {"logits", "passes"}, "s")
        assert set(swept.tensors) == {"logits"}

    def test_there_are_thirty(self, net):
        assert sweep(net, {"passes"}).tensors["passes"].shape == (60, PASSES, 3)


class TestPerturbedMahalanobis:
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
    def test_is_the_distance_after_one_step_down(self, net, mode):
        images = IMAGES.double()  # in float32 rounding decides some signs
        sweeper = Sweeper(net.double(), images[:4], 2048)
        swept = sweeper.sweep([(images, torch.arange(60))], {"logits", "reduced"}, "stream")
        labels = torch.arange(60) % 3
        train = Outputs(labels, swept.tensors["logits"], swept.tensors["features"])
        test = Outputs(
            labels, swept.tensors["logits"], swept.tensors["features"], tap=sweeper.tap, image_batches=lambda: [images]
        )
        built = build_detector(DETECTORS.get("mahalanobis-perturbed"), {"epsilon": 0.01})
        built.fit(train, None, None)
        with mode():
            found = built.score(test)

        z = swept.tensors["features"].double()
        means = torch.stack([z[labels == label].mean(0) for label in range(3)])
        precision = torch.linalg.pinv((z - means[labels]).T @ (z - means[labels]) / 60, hermitian=True)

        def distance(x: Tensor) -> Tensor:
            gap = net.pool(net.maps(x)).flatten(1).double()[:, None] - means
            return ((gap @ precision) * gap).sum(2).amin(1)

        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(distance(x).sum(), x)
        with torch.no_grad():
            expected = distance(images - 0.01 * gradient.sign())
            plain = distance(images)
        # A gradient that is rounding only has no sign that two ways of computing it could share.
        clear = (gradient.abs() > 1e-9 * gradient.abs().amax()).flatten(1) | (gradient == 0).flatten(1)
        assert clear.all(1).sum() >= 50
        torch.testing.assert_close(found[clear.all(1)], expected[clear.all(1)], rtol=1e-6, atol=1e-8)
        assert found.mean() < plain.mean()


def test_features_come_whole_where_a_head_is_needed_and_projected_where_not():
    assert output_names({"features", "labels"}) == {"logits", "reduced"}
    assert output_names({"features", "head", "images"}) == {"logits", "reduced", "features"}
    assert output_names({"output:error", "members"}) == {"logits", "error", "members"}
