"""The autoencoder and its two recipes: sizes, losses by direct formulas, gradients, resuming, and what they refuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from gauntlet.datasets import DataSource, ImageSet, resolve
from gauntlet.models.autoencoder import Autoencoder
from gauntlet.models.cifar import MEAN, STD
from gauntlet.models.training import Batch, Trainer
from gauntlet.models.training.loop import Loop
from gauntlet.registry import MODELS, RECIPES, GauntletError

CPU = torch.device("cpu")
RECIPE_NAMES = ("autoencoder", "autoencoder-fgsm")
Sets = Callable[..., ImageSet]


def small(**parameters) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(**{"channels": 1, "width": 0.5, **parameters})


def pixels(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def loop_of(recipe: Trainer, module: Autoencoder, data: ImageSet) -> Loop:
    return Loop(module, data, {}, recipe._settings, recipe._optimisation, recipe.hooks(), device=CPU, seed=0)


def changed(loop: Loop, data: ImageSet, count: int = 32) -> Batch:
    batch = Batch(data.images[:count], data.labels[:count], torch.arange(count))
    for hook in loop.hooks:
        batch = hook.transform(loop, batch)
    return batch


# -- the network ----------------------------------------------------------------------------------------------


def test_it_has_47_355_parameters_and_layers():
    network = MODELS.create("autoencoder")
    assert sum(parameter.numel() for parameter in network.parameters()) == 47_355
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in (*network.encoder, *network.decoder)]
    assert sizes == [588, 4_632, 18_480, 18_456, 4_620, 579]


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 9, 13), (3, 8, 8)])
def test_images_of_any_size_come_back_in_their_size_and_in_the_unit_interval(shape: tuple[int, ...], normalized: bool):
    x = pixels(2, *shape)
    made = small(channels=shape[0], normalized_target=normalized)(x).detach()
    assert made.shape == x.shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_the_code_of_a_cifar_image_has_768_numbers():
    outputs = MODELS.create("autoencoder").forward_outputs(pixels(2, 3, 32, 32))
    assert outputs["embedding"].shape == (2, 768)
    assert outputs["features"] is outputs["embedding"]


def test_every_pixel_of_an_odd_size_is_seen_and_made():
    network, x = small().double(), pixels(1, 1, 28, 28).double().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    assert (gradient != 0).all()
    weight = network.decoder[-1].weight
    (gradient,) = torch.autograd.grad(network(pixels(1, 1, 28, 28).double())[..., -1, -1].sum(), weight)
    assert (gradient != 0).any()


@pytest.mark.parametrize("normalized", [False, True])
def test_the_error_is_the_mean_square_on_pixels_whatever_the_target(normalized: bool):
    network, x = small(normalized_target=normalized), pixels(5, 1, 28, 28)
    outputs = network.forward_outputs(x)
    by_hand = [float(((image - made) ** 2).sum() / 784) for image, made in zip(x, network(x).detach(), strict=True)]
    torch.testing.assert_close(outputs["reconstruction_error"], torch.tensor(by_hand))
    torch.testing.assert_close(outputs["reconstruction"], network(x))


def test_normalised_targets_are_compared_with_a_linear_output():
    network, x = small(channels=3, normalized_target=True), pixels(4, 3, 32, 32)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (MEAN, STD))
    normalised = (x - mean) / std
    linear = network._decode(*network._encode(x))
    torch.testing.assert_close(network.losses(x, x), (linear - normalised).square().flatten(1).mean(1))
    inside = (linear * std + mean).clamp(0, 1)
    torch.testing.assert_close(network(x), inside)


def test_a_network_of_sigmoids_is_trained_on_plain_pixels():
    network, x, target = small(), pixels(4, 1, 28, 28), pixels(8, 1, 28, 28)[4:]
    torch.testing.assert_close(network.losses(x, target), (network(x) - target).square().flatten(1).mean(1))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: small()(pixels(1, 1, 7, 32)), "at least 8x8 pixels, got 7x32"),
        (lambda: small(channels=4, normalized_target=True), "one or three channels, got 4"),
        (lambda: small(width=0), "positive width, got 0"),
    ],
)
def test_what_the_network_cannot_do_is_one_sentence(build: Callable[[], object], words: str):
    with pytest.raises(GauntletError, match=words):
        build()


def test_the_random_start_keeps_the_size_of_signals_in_every_layer():
    torch.manual_seed(0)
    network = Autoencoder(width=4.0)
    for layer in (*network.encoder, *network.decoder):
        signal = torch.randn(4, layer.in_channels, 16, 16).relu()  # mean square 1/2
        inside = layer(signal).detach()[..., 1:-1, 1:-1]
        assert float(inside.square().mean()) == pytest.approx(1.0, rel=0.35)


def test_natural_images_come_back_better_than_noise_and_worse_than_plain_or_faint_ones():
    torch.manual_seed(0)
    network = Autoencoder(channels=1, width=0.5)
    crops = embedded({"patches": {"count": 1000, "seed": 1}})
    RECIPES.create("autoencoder", epochs=3, batch_size=16, lr=3e-3).train(
        network, crops, embedded({"patches": {"count": 10}}), device=CPU, seed=0
    )

    def errors(spec: str | dict) -> np.ndarray:
        with torch.no_grad():
            return network.forward_outputs(embedded(spec).images)["reconstruction_error"].numpy()

    inside = errors({"patches": {"count": 300, "seed": 2}})
    auroc = {}
    for name in ("uniform-noise", "smooth-noise", "plain", "low-contrast"):
        scores = np.concatenate([inside, errors({name: {"count": 300}})])
        auroc[name] = roc_auc_score(np.arange(600) >= 300, scores)
    assert auroc["uniform-noise"] > 0.99
    assert auroc["smooth-noise"] < 0.99
    assert auroc["plain"] < 0.5
    assert auroc["low-contrast"] < 0.5


@pytest.mark.realdata
@pytest.mark.slow
def test_cifar10_comes_back_better_than_noise_and_worse_than_dark_images():
    if "GAUNTLET_DATA" not in os.environ:
        pytest.skip("GAUNTLET_DATA is not set")
    source = DataSource(root=Path(os.environ["GAUNTLET_DATA"]), cache=Path("absent"))
    data = resolve({"cifar10": {"test": "held-out", "limit": 2000}}, source)
    torch.manual_seed(0)
    network = Autoencoder()
    recipe = RECIPES.create("autoencoder", epochs=6, batch_size=32)
    recipe.train(network, data.load("train"), data.load("val"), device=CPU, seed=0)
    with torch.no_grad():
        inside = network.forward_outputs(data.load("test").images[:500])["reconstruction_error"]
        dark = {"low-contrast": {"level": 0.0, "count": 500}}
        bounds = {"fake": (0.99, 1.0), "plain": (0.0, 0.95), "dark": (0.0, 0.1)}
        for name, (low, high) in bounds.items():
            spec = dark if name == "dark" else {name: {"count": 500}}
            outside = network.forward_outputs(resolve(spec, source, shape=data.shape).load("test").images)
            scores = torch.cat([inside, outside["reconstruction_error"]]).numpy()
            assert low <= roc_auc_score(np.arange(1000) >= 500, scores) <= high, name


def embedded(spec: str | dict) -> ImageSet:
    source = DataSource(root=Path("absent"), cache=Path("absent"))
    return resolve(spec, source, shape=(1, 28, 28)).load("test")


# -- the recipes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_training_lowers_the_error_without_labels(name: str, eights: Sets):
    network = small()
    unlabelled = eights("train", 400)
    unlabelled = ImageSet(unlabelled.pixels, torch.full((400,), -1), (), unlabelled.indices, "eights", "train")
    recipe = RECIPES.create(name, epochs=5, batch_size=50, lr=5e-3)
    history = recipe.train(network, unlabelled, eights("val"), device=CPU, seed=0, test=eights("test"))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert {"val_loss", "test_loss"} <= history[0].keys()
    assert not any("accuracy" in key for key in history[0])
    x = eights("val").images
    assert history[-1]["val_loss"] == pytest.approx(float((network(x).detach() - x).square().mean()), rel=1e-5)


def test_a_batch_is_its_own_target(eights: Sets):
    network, data = small(), eights("train", 100)
    loop = loop_of(RECIPES.create("autoencoder", batch_size=50), network, data)
    found = loop.objective()(changed(loop, data))
    assert found.logits is None
    x = data.images[:32]
    torch.testing.assert_close(found.loss, F.mse_loss(network(x), x))


@pytest.mark.parametrize("detach", [False, True])
def test_examples_are_signed_steps_of_the_error_and_are_trained_towards_the_clean_image(eights: Sets, detach: bool):
    network, data = small(), eights("train", 100)
    recipe = RECIPES.create("autoencoder-fgsm", batch_size=50, epsilon=0.05, detach_target=detach)
    loop = loop_of(recipe, network, data)
    clean, attacked = loop._parts(changed(loop, data))
    x = data.images[:32].clone().requires_grad_()
    target = data.images[:32] if detach else x
    (gradient,) = torch.autograd.grad((network(x) - target).square().flatten(1).mean(1).sum(), x)
    torch.testing.assert_close(attacked.images, (x + 0.05 * gradient.sign()).clamp(0, 1).detach())
    torch.testing.assert_close(attacked.targets, clean.images)
    torch.testing.assert_close(
        loop.objective()(attacked).loss, F.mse_loss(network(attacked.images), data.images[:32]).detach()
    )


def test_detaching_the_target_changes_the_examples(eights: Sets):
    data, made = eights("train", 100), []
    for detach in (False, True):
        recipe = RECIPES.create("autoencoder-fgsm", batch_size=50, epsilon=0.05, detach_target=detach)
        loop = loop_of(recipe, small(), data)
        made.append(list(loop._parts(changed(loop, data)))[1].images)
    assert not torch.equal(*made)


def test_the_joint_loss_is_the_mean_of_both(eights: Sets):
    network, data = small(), eights("train", 100)
    settings = {"batch_size": 50, "epsilon": 0.05}
    joint = loop_of(RECIPES.create("autoencoder-fgsm", mode="joint", **settings), network, data)
    both = loop_of(RECIPES.create("autoencoder-fgsm", **settings), network, data)
    parts = [both.objective()(part).loss for part in both._parts(changed(both, data))]
    found = joint.objective()(changed(joint, data))
    assert found.logits is None
    assert len(list(joint._parts(changed(joint, data)))) == 1
    torch.testing.assert_close(found.loss, sum(parts) / 2)


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_a_resumed_training_equals_an_unbroken_one(name: str, eights: Sets, tmp_path: Path):
    recipe = RECIPES.create(name, epochs=3, batch_size=50)

    def trained(**options) -> Autoencoder:
        network = small()
        recipe.train(network, eights("train", 200), eights("val", 50), device=CPU, seed=3, **options)
        return network

    def stop(done: int, *_: object) -> None:
        if done == 6:
            raise KeyboardInterrupt

    file = tmp_path / "resume"
    with pytest.raises(KeyboardInterrupt):
        trained(resume=file, progress=stop)
    assert file.is_file()
    pairs = zip(trained(resume=file).parameters(), trained().parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_profile_r1_is_that_of_the_report():
    profiles = [RECIPES.get(name).meta["profiles"]["r1"] for name in RECIPE_NAMES]
    assert [(one["epochs"], one["batch_size"], one["lr"]) for one in profiles] == [(200, 128, 1e-3), (200, 128, 1e-4)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"epsilon": -0.1}, "an epsilon >= 0, got -0.1"), ({"interval": [0.2, 0.1]}, "0 <= low <= high")],
)
def test_wrong_radii_are_one_sentence(settings: dict, words: str):
    with pytest.raises(GauntletError, match=words):
        RECIPES.create("autoencoder-fgsm", **settings)


def test_a_classifier_cannot_be_trained_to_reconstruct(eights: Sets, make_net: Callable):
    with pytest.raises(GauntletError, match=r"reconstruction of shape \(2, 1, 8, 8\), and Sequential gives none"):
        RECIPES.create("autoencoder").train(make_net(), eights("train"), eights("val"), device=CPU, seed=0)


def test_only_one_recipe_can_say_what_the_loss_is():
    with pytest.raises(GauntletError, match="each replace the criterion"):
        RECIPES.create("autoencoder").join([RECIPES.create("logitnorm")])
