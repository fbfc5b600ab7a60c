"""SimCLR: encoder and head, the loss by hand, what the recipe trains and refuses, and the probes on top."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gauntlet.datasets import ImageSet
from gauntlet.models.training.logistic import fit_logistic
from gauntlet.models.training.simclr import contrastive_ranks, nt_xent, spread
from gauntlet.registry import MODELS, RECIPES, GauntletError

CPU = torch.device("cpu")


def tiny(shape=(1, 8, 8), **parameters) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.create("simclr", shape=shape, trunk="tiny", **parameters)


def unfilled(shape) -> nn.Module:
    """The ResNet-18 without memory for its weights, which takes no time."""
    with torch.device("meta"):
        return MODELS.create("simclr", shape=shape)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def vectors(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def train(module: nn.Module, split: ImageSet, val: ImageSet | None = None, **settings):
    recipe = RECIPES.create("simclr", **{"epochs": 2, "warmup": 0, "batch_size": 32, "lr": 1e-3, **settings})
    return recipe.train(module, split, split if val is None else val, device=CPU, seed=0)


class TestNetwork:
    def test_trunk_and_head_have_their_known_numbers_of_parameters(self):
        model = unfilled((3, 32, 32))
        assert parameters(model.trunk) == 11_168_832
        assert parameters(model.head) == 328_320

    def test_the_max_pool_stays_for_96x96_and_goes_for_32x32(self):
        large, small = (unfilled((3, side, side)) for side in (96, 32))
        assert isinstance(large.trunk.maxpool, nn.MaxPool2d)
        assert isinstance(small.trunk.maxpool, nn.Identity)

    @pytest.mark.parametrize(("embedding", "size"), [("encoder", 64), ("projection", 128)])
    def test_the_embedding_is_what_was_asked_for(self, embedding, size):
        model = tiny(embedding=embedding).eval()
        x = torch.rand(3, 1, 8, 8)
        outputs = model.forward_outputs(x)
        assert outputs["features"].shape == (3, 64)
        assert outputs["projection"].shape == (3, 128)
        assert torch.equal(outputs["embedding"], model(x))
        assert model(x).shape == (3, size)

    def test_an_embedding_in_eval_mode_does_not_depend_on_its_batch_and_repeats(self):
        model = tiny(head_norm=True).eval()
        x = torch.rand(5, 1, 8, 8)
        assert torch.equal(model(x), model(x))
        torch.testing.assert_close(model(x)[:2], model(x[:2]), rtol=1e-5, atol=1e-6)


class TestLoss:
    @pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
    def test_the_matrix_product_is_the_double_loop(self, temperature):
        first, second = vectors(5, 7, 1), vectors(5, 7, 2)
        views = [F.normalize(view.double(), dim=0) for view in (*first, *second)]
        total = 0.0
        for i, view in enumerate(views):
            partner = (i + 5) % 10
            others = sum(math.exp(float(view @ views[k]) / temperature) for k in range(10) if k != i)
            total -= math.log(math.exp(float(view @ views[partner]) / temperature) / others)
        assert float(nt_xent(first, second, temperature)) == pytest.approx(total / 10, rel=1e-5)

    def test_identical_projections_give_log_of_2n_minus_1(self):
        same = torch.ones(8, 4)
        assert float(nt_xent(same, same, 0.2)) == pytest.approx(math.log(15), rel=1e-6)

    def test_orthogonal_perfect_pairs_give_the_closed_form(self):
        pairs, tau = torch.eye(6), 0.5
        expected = -math.log(math.exp(1 / tau) / (math.exp(1 / tau) + 2 * 6 - 2))
        assert float(nt_xent(pairs, pairs, tau)) == pytest.approx(expected, rel=1e-6)

    def test_the_length_of_projections_does_not_matter(self):
        first, second = vectors(4, 6, 1), vectors(4, 6, 2)
        assert float(nt_xent(3 * first, second, 0.5)) == pytest.approx(float(nt_xent(first, second, 0.5)), rel=1e-6)

    def test_its_gradient_is_that_of_finite_differences(self):
        first, second = vectors(3, 4, 1).double().requires_grad_(), vectors(3, 4, 2).double()

        def loss(z: torch.Tensor) -> torch.Tensor:  # in double precision, by the formula
            views = F.normalize(torch.cat([z, second]), dim=1)
            table = (views @ views.T / 0.5).masked_fill(torch.eye(6, dtype=torch.bool), -math.inf)
            return F.cross_entropy(table, torch.arange(6).roll(3))

        assert torch.autograd.gradcheck(loss, first)
        expected = torch.autograd.grad(loss(first), first)[0].float()
        z = first.detach().float().requires_grad_()
        torch.testing.assert_close(
            torch.autograd.grad(nt_xent(z, second.float(), 0.5), z)[0], expected, rtol=1e-4, atol=1e-6
        )

    def test_one_image_has_no_negative(self):
        with pytest.raises(GauntletError, match="at least two images a batch"):
            nt_xent(torch.ones(1, 4), torch.ones(1, 4), 0.5)

    def test_ranks_count_the_views_that_are_nearer_than_the_partner(self):
        first, second = vectors(6, 3, 1), vectors(6, 3, 2)
        views = F.normalize(torch.cat([first, second]), dim=1)
        for i, rank in enumerate(contrastive_ranks(first, second).tolist()):
            own = views[i] @ views[(i + 6) % 12]
            assert rank == sum(bool(views[i] @ views[k] > own) for k in range(12) if k != i)


class TestSpread:
    def test_a_gaussian_is_spread_over_all_dimensions(self):
        std, rank = spread(vectors(4000, 16))
        assert std == pytest.approx(1, abs=0.02)
        assert rank == pytest.approx(16, abs=0.1)

    def test_the_rank_of_two_equal_directions_is_two(self):
        assert spread(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]))[1] == pytest.approx(2)

    def test_a_collapsed_encoder_is_told(self):
        std, rank = spread(torch.ones(10, 4) + 1e-9)
        assert std < 1e-6
        assert rank == pytest.approx(1)


class TestRecipe:
    def test_labels_do_not_matter_and_need_not_be_there(self, eights):
        images = eights("train", 96)
        unknown = ImageSet(images.pixels, torch.full((96,), -1), images.classes, images.indices, "eights", "train")
        one, two = tiny(), tiny()
        train(one, images, eights("val", 40))
        train(two, unknown, eights("val", 40))
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))

    def test_the_history_has_the_contrastive_task_and_the_alarm(self, eights):
        history = train(tiny(), eights("train", 96), eights("val", 40))
        wanted = {
            "loss",
            "val_loss",
            "val_top1",
            "val_top5",
            "val_embedding_std",
            "val_effective_rank",
            "val_collapsed",
        }
        assert wanted <= set(history[-1])
        assert "accuracy" not in history[-1]
        assert history[-1]["val_collapsed"] == 0

    def test_a_collapsed_encoder_rings_the_alarm(self, eights):
        model = tiny()
        for parameter in model.trunk.parameters():
            parameter.data.zero_()
        history = train(model, eights("train", 64), lr=1e-12, epochs=1)
        assert history[-1]["val_collapsed"] == 1

    def test_training_tells_views_of_one_image_from_those_of_others(self, eights):
        history = train(tiny(), eights("train", 512), eights("val"), epochs=8, batch_size=64, lr=3e-3, temperature=0.2)
        assert history[-1]["val_loss"] < history[0]["val_loss"] - 0.3
        assert history[-1]["val_top1"] > 2 * history[0]["val_top1"]

    def test_named_images_replace_the_training_split(self, eights):
        one, two, other = tiny(), tiny(), eights("test", 64)
        train(one, eights("train", 64), eights("val", 40), images=[other])
        train(two, other, eights("val", 40))
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))

    def test_named_images_of_another_size_are_refused(self, eights, make_set):
        other = make_set(torch.rand(40, 1, 9, 9), torch.zeros(40))
        with pytest.raises(GauntletError, match="give the set `shape"):
            train(tiny(), eights("train", 64), images=[other])

    def test_a_batch_of_one_is_one_sentence(self):
        with pytest.raises(GauntletError, match="batch_size >= 2"):
            RECIPES.create("simclr", batch_size=1)

    def test_a_model_without_a_projection_is_refused(self, eights, make_net):
        with pytest.raises(GauntletError, match="projection head"):
            train(make_net(), eights("train", 64))

    def test_steps_are_switched_in_a_named_policy_only(self):
        with pytest.raises(GauntletError, match="a policy by name"):
            RECIPES.create("simclr", drop=["flip"])


class TestProbe:
    def test_the_encoder_stays_as_it_is_batch_norm_included(self, eights):
        probe = MODELS.create("linear-probe", encoder=tiny(), classes=10, shape=(1, 8, 8))
        before = {name: value.clone() for name, value in probe.encoder.state_dict().items()}
        history = RECIPES.create("standard", epochs=3, batch_size=64, lr=0.05).train(
            probe, eights("train", 400), eights("val"), device=CPU, seed=0
        )
        assert all(torch.equal(before[name], value) for name, value in probe.encoder.state_dict().items())
        assert history[-1]["accuracy"] > history[0]["accuracy"]

    def test_gradients_reach_the_image(self):
        probe = MODELS.create("linear-probe", encoder=tiny(), classes=10, shape=(1, 8, 8)).eval()
        x = torch.rand(2, 1, 8, 8, requires_grad=True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(probe(x), torch.tensor([0, 1])), x)
        assert gradient.abs().sum() > 0

    def test_logistic_regression_gives_the_layer_of_scikit_learn(self, eights):
        from sklearn.linear_model import LogisticRegression

        probe = MODELS.create("linear-probe", encoder=nn.Flatten(), classes=10, shape=(1, 8, 8)).eval()
        images, val, test = eights("train", 500), eights("val"), eights("test")
        (log,) = RECIPES.create("logistic-regression").train(probe, images, val, device=CPU, seed=0)
        x = images.images.flatten(1).numpy()
        mean, std = x.mean(0), np.where(x.std(0) < 1e-8, 1, x.std(0))
        peer = LogisticRegression(C=1 / (log["strength"] * 500), max_iter=5000).fit((x - mean) / std, images.labels)
        agree = probe(test.images).argmax(1).numpy() == peer.predict((test.images.flatten(1).numpy() - mean) / std)
        assert agree.mean() > 0.98
        assert log["val_accuracy"] > 0.9

    def test_two_classes_and_absent_classes_are_told_apart(self):
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 2, 200) + 1
        features = generator.normal(size=(200, 3)) + 4 * labels[:, None]
        fit = fit_logistic(features, labels, features, labels, classes=4)
        assert set(fit.predict(features)) == {1, 2}
        assert fit.val_accuracy > 0.95

    def test_an_encoder_that_gives_maps_is_refused(self):
        with pytest.raises(GauntletError, match="a vector an image"):
            MODELS.create("linear-probe", encoder=nn.Conv2d(1, 2, 3), shape=(1, 8, 8))


class TestBaselines:
    def test_principal_components_are_those_of_scikit_learn(self, eights):
        from sklearn.decomposition import PCA

        model = MODELS.create("pca", components=5, shape=(1, 8, 8))
        images = eights("train")
        (log,) = RECIPES.create("pca").train(model, images, images, device=CPU, seed=0)
        peer = PCA(5).fit(images.images.flatten(1).double().numpy())
        theirs = torch.from_numpy(peer.transform(images.images.flatten(1).double().numpy())).float()
        ours = model(images.images)
        torch.testing.assert_close(ours * (ours * theirs).sum(0).sign(), theirs, rtol=1e-3, atol=1e-4)
        assert log["variance_kept"] == pytest.approx(peer.explained_variance_ratio_.sum(), rel=1e-6)

    def test_fewer_images_than_components_are_refused(self, eights):
        with pytest.raises(GauntletError, match="fewer than the 20 components"):
            RECIPES.create("pca").train(
                MODELS.create("pca", components=20, shape=(1, 8, 8)), eights("train", 9), eights("val"),
                device=CPU, seed=0,
            )  # fmt: skip

    def test_pixels_are_pixels(self):
        x = torch.rand(2, 3, 4, 4)
        assert torch.equal(MODELS.create("pixels")(x), x.reshape(2, -1))


@pytest.mark.slow
def test_simclr_on_digits_beats_a_random_encoder_by_four_points_of_knn_accuracy():
    """30 epochs of the profile `digits`, 20 neighbours, 540 test images: about two minutes on one core."""
    from pathlib import Path

    from gauntlet.bench.kernels_representation import knn_predictions
    from gauntlet.datasets import DataSource, resolve

    digits = resolve("digits", DataSource(root=Path("absent"), cache=Path("absent")))
    images, val, test = (digits.load(split) for split in ("train", "val", "test"))

    def accuracy(model: nn.Module) -> float:
        with torch.no_grad():
            bank, queries = model.eval()(images.images), model(test.images)
        found = knn_predictions(bank, images.labels, queries, classes=10, neighbours=[20])[20]
        return float((found == test.labels).float().mean())

    model = tiny((1, 28, 28))
    before = accuracy(model)
    profile = {"views": "digits", "temperature": 0.2, "epochs": 30, "warmup": 2, "lr": 3e-3, "batch_size": 128}
    RECIPES.create("simclr", **profile).train(model, images, val, device=CPU, seed=0)
    assert accuracy(model) >= before + 0.04
