"""The networks of the reports: counts, sizes, options, heads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gauntlet.models import Tap
from gauntlet.models.layers import Normalize, QuickGELU, activation_layer
from gauntlet.registry import MODELS, GauntletError, select_one


def build(name: str, **parameters) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.create(name, **parameters)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(1))


# -- parameter counts ------------------------------------------------------------------------------------------

PAPER = {"m3": 1_124_180, "m5": 1_128_180, "m7": 2_291_972}
REPORT = {"m3": 1_125_220, "m5": 1_128_660, "m7": 2_292_452}
SHALLOW = {"m3": (5, 468_980), "m5": (3, 451_956)}


def test_cnn_small_has_21_840_parameters():
    assert count(build("cnn-small")) == 21_840


def test_cnn_small_has_the_layers_of_the_classic_network():
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in build("cnn-small").modules() if is_layer(layer)]
    assert sizes == [260, 5_020, 16_050, 510]


def is_layer(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.Linear))


@pytest.mark.parametrize("name", PAPER)
def test_m_nets_have_the_papers_counts_and_with_convolution_bias_the_reports(name: str):
    assert count(build(name)) == PAPER[name]
    assert count(build(name, conv_bias=True)) == REPORT[name]


@pytest.mark.parametrize("name", SHALLOW)
def test_shallow_members_have_their_known_counts(name: str):
    layers, parameters = SHALLOW[name]
    assert count(build(name, layers=layers, conv_bias=True)) == parameters


def test_the_ensembles_add_up_to_the_reports_totals():
    trio = [build(name, conv_bias=True) for name in REPORT]
    shallow = [build(name, layers=layers, conv_bias=True) for name, (layers, _) in SHALLOW.items()]
    assert sum(PAPER.values()) == 4_544_332
    assert count(build("ensemble", members=trio)) == 4_546_332
    assert count(build("ensemble", members=[*trio, *shallow])) == 5_467_268


# -- shapes ---------------------------------------------------------------------------------------------------

SIZES = {
    "m3": ([26, 24, 22, 20, 18, 16, 14, 12, 10, 8], 11_264),
    "m5": ([24, 20, 16, 12, 8], 10_240),
    "m7": ([22, 16, 10, 4], 3_072),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_after_each_convolution_and_of_the_features(name: str):
    net = build(name).eval()
    x, sides = images(1), []
    for layer in net.blocks:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is None
            sides.append(x.shape[-1])
    assert (sides, net.features(images(1)).shape[1]) == SIZES[name]


@pytest.mark.parametrize(("name", "layers", "features"), [("m3", 5, 31_104), ("m5", 3, 24_576)])
def test_features_of_the_shallow_members(name: str, layers: int, features: int):
    assert build(name, layers=layers).fc.in_features == features


@pytest.mark.parametrize("width", [0.25, 0.5, 2.0])
def test_width_scales_every_layer(width: float):
    channels = [layer.out_channels for layer in build("m7", width=width).blocks if isinstance(layer, nn.Conv2d)]
    assert channels == [width * full for full in (48, 96, 144, 192)]


def test_the_thinnest_net_keeps_a_channel_in_every_layer():
    assert build("m3", width=0.001)(images()).shape == (4, 10)


@pytest.mark.parametrize("name", ["cnn-small", "m3", "m5", "m7"])
def test_the_number_of_classes_is_free(name: str):
    assert build(name, classes=3).eval()(images(2)).shape == (2, 3)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"layers": 0}, "m5 has 1 to 5 layers, got layers=0"),
        ({"layers": 6}, "m5 has 1 to 5 layers, got layers=6"),
        ({"width": 0.0}, "m5 needs a positive width, got 0.0"),
        ({"width": math.nan}, "m5 needs a positive width, got nan"),
    ],
)
def test_a_depth_or_width_that_does_not_exist_is_refused(parameters: dict, problem: str):
    with pytest.raises(GauntletError, match=problem):
        build("m5", **parameters)


# -- layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn-small", "m3", "m5", "m7"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "quick-gelu"])
def test_all_activations_are_of_the_chosen_kind(name: str, activation: str):
    kinds = {type(layer) for layer in build(name, activation=activation).modules()}
    assert kinds & {nn.ReLU, nn.GELU, QuickGELU} == {type(activation_layer(activation))}


def test_an_unknown_activation_names_the_nearest():
    with pytest.raises(GauntletError, match=r"'activation' must be one of relu, gelu, quick-gelu, got 'GELU'; did you"):
        select_one(MODELS, {"m5": {"activation": "GELU"}})


def test_gelu_is_exact_and_quick_gelu_is_near_it():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    exact = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    torch.testing.assert_close(activation_layer("gelu")(x), exact, rtol=0, atol=1e-12)
    difference = (activation_layer("quick-gelu")(x) - exact).abs().max()
    assert 1e-3 < difference < 0.03
    torch.testing.assert_close(activation_layer("quick-gelu")(x), x / (1 + (-1.702 * x).exp()), rtol=0, atol=1e-12)


def test_normalisation_is_a_layer_that_no_state_dict_holds():
    layer = Normalize((0.5, 0.25), (0.5, 2.0))
    expected = torch.tensor([1.0, 0.375]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    torch.testing.assert_close(layer(torch.ones(1, 2, 3, 3)), expected)
    assert not layer.state_dict()
    first = next(iter(build("cnn-small").children()))[0]
    assert (float(first.mean), float(first.std)) == pytest.approx((0.1307, 0.3081))


def test_m_nets_rescale_images_to_minus_one_and_one():
    net = build("m7").eval()
    seen = []
    net.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)]))
    assert [float(image.unique()) for image in seen[0]] == [-1, 1]


def test_dropout_follows_the_training_flag():
    net = build("cnn-small")
    x = images()
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
    assert torch.equal(build("cnn-small", dropout=0.0).train()(x), build("cnn-small").eval()(x))


# -- the head of the M-nets -----------------------------------------------------------------------------------


def used(name: str) -> nn.Module:
    """A net whose batch-norm has seen images and learned a scale and a shift."""
    net = build(name, width=0.25)
    with torch.no_grad():
        net.logit_norm.weight.uniform_(0.5, 2)
        net.logit_norm.bias.uniform_(-1, 1)
        for seed in range(3):
            net.train()(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(seed)))
    return net.eval()


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_the_folded_head_gives_the_logits(name: str, dtype: torch.dtype, tolerance: float):
    net, x = used(name).to(dtype), images().to(dtype)
    with torch.no_grad():
        outputs = net.forward_outputs(x)
        weight, bias = net.head()
        torch.testing.assert_close(outputs["logits"], net(x), rtol=0, atol=0)
    torch.testing.assert_close(outputs["features"] @ weight.T + bias, outputs["logits"], rtol=tolerance, atol=tolerance)
    assert Tap(net, x).why_no_head == ""


def test_perfectly_separated_logits_become_plus_three_and_minus_a_third():
    """Batch-norm holds the top probability of a perfect net at 0.757."""
    net = build("m5", width=0.25).train()
    labels = torch.arange(100) % 10
    logits = net.logit_norm(100 * nn.functional.one_hot(labels).float())
    torch.testing.assert_close(logits[labels == 3][0, 3].item(), 3.0, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[labels == 3][0, 4].item(), -1 / 3, rtol=0, atol=1e-4)
    top = math.exp(3) / (math.exp(3) + 9 * math.exp(-1 / 3))
    assert top == pytest.approx(0.75696, abs=5e-6)
    torch.testing.assert_close(logits.softmax(1).amax(1), torch.full((100,), top), rtol=0, atol=1e-4)


# -- the networks of reports R1 and R4, and the usual ones ----------------------------------------------------

COUNTS = {
    "cnn": 62_006,
    "cnn-plus": 2_197_706,
    "svhn-cnn": 814_570,
    "madry": 3_274_634,
    "resnet18": 11_173_962,
    "wrn-28-10": 36_479_194,
}


@pytest.mark.parametrize("name", COUNTS)
def test_networks_have_the_counts_of_report_or_paper(name: str):
    with torch.device("meta"):
        assert count(MODELS.create(name)) == COUNTS[name]


SMALL = [
    ("cnn", {}, (3, 32, 32)),
    ("cnn-plus", {"width": 0.1}, (3, 32, 32)),
    ("svhn-cnn", {"width": 0.1}, (3, 32, 32)),
    ("madry", {"width": 0.1}, (1, 28, 28)),
    ("resnet18", {"channels": 1}, (1, 8, 8)),
    ("resnet34", {}, (3, 16, 16)),
    ("resnet50", {}, (3, 16, 16)),
    ("wrn-28-10", {"depth": 10, "widen": 1}, (3, 32, 32)),
    ("torchvision/resnet18", {}, (3, 64, 64)),
    ("torchvision/squeezenet1_1", {}, (3, 64, 64)),
]


@pytest.mark.parametrize(("name", "parameters", "shape"), SMALL, ids=[row[0] for row in SMALL])
def test_they_give_logits_and_a_head_that_explains_them(name: str, parameters: dict, shape: tuple[int, int, int]):
    net = build(name, classes=7, **parameters).eval()
    x = torch.rand(3, *shape)
    assert net(x).shape == (3, 7)
    without_linear = name == "torchvision/squeezenet1_1"
    assert Tap(net, x).why_no_head == ("the model has no final linear layer" if without_linear else "")


def test_the_small_image_stem_keeps_the_resolution():
    net = build("resnet18").eval()
    seen = []
    net.network.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    net(torch.rand(1, 3, 32, 32))
    assert seen == [(1, 64, 32, 32)]


def test_the_wide_resnet_needs_a_depth_that_exists():
    with pytest.raises(GauntletError, match=r"depth of 6 n \+ 4 \(10, 16, 22, 28, ...\), got 27"):
        build("wrn-28-10", depth=27)


def test_madrys_weights_are_truncated_normal_and_its_biases_a_tenth():
    net = build("madry")
    assert net.fc.weight.abs().max() <= 0.2
    assert 0.08 < net.body[7].weight.std() < 0.1
    assert torch.equal(net.fc.bias.detach(), torch.full((10,), 0.1))


# -- models that are only named -------------------------------------------------------------------------------


def test_a_function_of_a_module_is_a_model(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\ndef tiny(classes=10, *, wide=3):\n    return nn.Sequential(nn.Flatten(), "
        "nn.Linear(64, wide), nn.Linear(wide, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    net = MODELS.create("my_nets:tiny", wide=5)
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert net[1].out_features == 5
    with pytest.raises(GauntletError, match=r"the module 'my_nets' has no function 'tinny'; did you mean 'tiny'"):
        MODELS.create("my_nets:tinny")


def test_torchvisions_model_is_torchvisions_behind_its_normalisation():
    from torchvision import models

    ours, theirs = build("torchvision/resnet18").eval(), models.resnet18(weights=None).eval()
    theirs.load_state_dict(ours.model.state_dict())
    x = torch.rand(2, 3, 48, 48)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(ours(x), theirs((x - mean) / std))


def test_torchvisions_weights_come_from_its_cache_or_with_permission_only(tmp_path, monkeypatch):
    from torchvision import models

    from gauntlet.registry import NotAvailable

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        NotAvailable, match=r"The weights of torchvision/squeezenet1_1 are not at .*; run with --download"
    ):
        build("torchvision/squeezenet1_1", pretrained=True)
    state = models.squeezenet1_1(weights=None).state_dict()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    name = models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(state, tmp_path / "hub" / "checkpoints" / name)
    found = build("torchvision/squeezenet1_1", pretrained=True).model.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state)
    with pytest.raises(GauntletError, match="own weights have 1000 classes, the dataset has 10"):
        build("torchvision/squeezenet1_1", pretrained=True, classes=10)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("torchvision/resnet19", "torchvision has no classification model 'resnet19'; did you mean 'resnet18'"),
        ("no_such_module:net", "the module 'no_such_module' cannot be imported"),
        ("cnn-pluss", "did you mean 'cnn-plus'"),
    ],
)
def test_a_model_that_nobody_knows_is_one_sentence(name: str, problem: str):
    with pytest.raises(GauntletError, match=problem):
        MODELS.create(name)
