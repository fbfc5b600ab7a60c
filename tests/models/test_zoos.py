"""Models of timm and transformers: logits as their library gives them, features and head found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.models import Tap, create_module
from gauntlet.registry import MODELS, GauntletError

TIMM = {
    "resnet10t": 32,
    "mobilenetv3_small_050": 32,
    "test_efficientnet": 32,
    "test_convnext": 32,
    "test_vit": 160,  # class token
    "vit_tiny_patch16_224": 224,
    "deit_tiny_distilled_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "resnetv2_50x1_bit": 64,
}
SLOW = {"swin_tiny_patch4_window7_224", "resnetv2_50x1_bit"}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TIMM]


@pytest.mark.parametrize("name", NAMES)
def test_timm(name: str):
    timm = pytest.importorskip("timm")
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    size = TIMM[name]
    module = create_module(MODELS.get(f"timm/{name}"), {}, classes=7, shape=(3, size, size)).eval()
    images = torch.rand(3, 3, size, size)
    with torch.no_grad():
        logits = module(images)
        mean, std = (torch.tensor(module.model.pretrained_cfg[part])[:, None, None] for part in ("mean", "std"))
        torch.testing.assert_close(logits, module.model((images - mean) / std), rtol=1e-4, atol=1e-5)
        tap = Tap(module, images[:2])
        outputs = tap(images)
    assert tap.why_no_head == "", tap.taken
    weight, bias = tap.head
    torch.testing.assert_close(outputs["features"] @ weight.T + bias, logits, rtol=1e-3, atol=1e-4)


def test_one_attack_and_six_detectors_run_on_it():
    pytest.importorskip("timm")
    images, labels = torch.rand(12, 3, 32, 32), torch.arange(12) % 3
    results = gauntlet.evaluate(
        {"name": "timm/test_resnet", "recipe": "none"},
        (images, labels),
        attacks=["fgsm"],
        eps=8 / 255,
        detectors=["msp", "energy", {"name": "knn", "k": 5}, "vim", "mahalanobis", "react"],
        ood=["uniform-noise"],
        train=(torch.rand(30, 3, 32, 32), torch.arange(30) % 3),
    )
    bad = results[results["status"] != "ok"]
    assert bad.empty, "; ".join(bad["reason"])


def test_an_unknown_name_has_a_near_one():
    pytest.importorskip("timm")
    with pytest.raises(GauntletError, match="did you mean 'resnet18'"):
        create_module(MODELS.get("timm/resnet_18"), {}, classes=7, shape=(3, 32, 32))


def test_weights_that_are_not_here_are_a_sentence():
    pytest.importorskip("timm")
    with pytest.raises(GauntletError, match="not in its library's cache"):
        create_module(MODELS.get("timm/resnet10t"), {"pretrained": True}, classes=1000, shape=(3, 32, 32))


def test_a_library_that_is_not_here_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(GauntletError, match=r"needs transformers .*pip install 'gauntlet-bench\[hf\]'"):
        create_module(MODELS.get("hf/any"), {}, classes=7, shape=(3, 32, 32))


def hf_models() -> dict[str, nn.Module]:
    transformers = pytest.importorskip("transformers")
    small = {"num_labels": 5, "image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "intermediate_size": 32}
    swin = {"num_labels": 5, "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}
    stages = {"num_labels": 5, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    mobile = {"num_labels": 5, "depth_multiplier": 0.25, "image_size": 32}
    configs = {
        "ViT": small | heads,
        "DeiT": small | heads,
        "Swin": swin | {"window_size": 2},
        "ResNet": stages,
        "ConvNext": {"num_labels": 5, "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "MobileNetV2": mobile,
        "MobileNetV1": mobile,
        "Bit": {**stages, "layer_type": "preactivation", "num_groups": 4},
        "EfficientNet": {"num_labels": 5, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
        "Dinov2": small | {"num_attention_heads": 2},
    }
    return {
        name: getattr(transformers, f"{name}ForImageClassification")(getattr(transformers, f"{name}Config")(**options))
        for name, options in configs.items()
    }


@pytest.mark.slow
def test_models_of_transformers_as_objects_and_from_a_folder(tmp_path):
    torch.manual_seed(0)
    images = torch.rand(6, 3, 32, 32)
    for name, network in hf_models().items():
        network.eval().save_pretrained(tmp_path / name)
        module = create_module(
            MODELS.get(f"hf/{tmp_path / name}"), {"pretrained": True}, classes=5, shape=(3, 32, 32)
        ).eval()
        with torch.no_grad():
            own = module.model(pixel_values=module.prepared(images)).logits
            torch.testing.assert_close(module(images), own, rtol=1e-4, atol=1e-5)
            tap = Tap(module, images[:2])
            features = tap(images)["features"]
        assert tap.why_no_head == "", (name, tap.why_no_head)
        weight, bias = tap.head
        torch.testing.assert_close(features @ weight.T + bias, own, rtol=1e-3, atol=1e-4)
    labels = torch.arange(6) % 5
    assert len(gauntlet.evaluate(network, (images, labels))) > 0
