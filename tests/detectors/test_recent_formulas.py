"""Detectors of 2023 to 2026 that pytorch-ood 0.4.0 lacks, against their authors' formulas computed slowly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp, softmax
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from gauntlet import GauntletError
from gauntlet.detectors import Head, Outputs, build_detector
from gauntlet.detectors.adascale import channel_deviations
from gauntlet.detectors.weiper import perturbed
from gauntlet.registry import DETECTORS

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(4, 12)), RNG.normal(size=4)
MIX = RNG.normal(size=(12, 12))


def outputs(n: int, shift: float = 0.0) -> Outputs:
    features = np.maximum(RNG.normal(size=(n, 12)) @ MIX + shift, 0) + RNG.random((n, 12)) / 10
    logits = features @ WEIGHT.T + BIAS
    tensors = (torch.as_tensor(part) for part in (logits.argmax(1), logits, features))
    return Outputs(*tensors, head=Head(torch.as_tensor(WEIGHT), torch.as_tensor(BIAS)))


TRAIN, TEST = outputs(200), outputs(30, shift=1.0)


def arrays(side: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits."""
    return side.features.numpy(), side.logits.numpy()


def score(name: str, train: Outputs = TRAIN, test: Outputs = TEST, **parameters) -> np.ndarray:
    built = build_detector(DETECTORS.get(name), parameters)
    built.fit(train, None, train.head)
    return built.score(test).numpy()


class TestNECO:
    @pytest.mark.parametrize("max_logit", [False, True])
    def test_is_the_share_inside_scikit_learns_principal_components(self, max_logit):
        (train, _), (test, logits) = arrays(TRAIN), arrays(TEST)
        scaler = StandardScaler().fit(train)
        pca = PCA(n_components=5).fit(scaler.transform(train))
        standard = scaler.transform(test)
        share = np.linalg.norm(pca.transform(standard), axis=1) / np.linalg.norm(standard, axis=1)
        expected = -share * (logits.max(1) if max_logit else 1)
        assert_allclose(score("neco", dim=5, max_logit=max_logit), expected, rtol=1e-9)

    def test_takes_the_directions_of_nine_tenths_of_the_variance_unless_told_otherwise(self):
        train = StandardScaler().fit_transform(arrays(TRAIN)[0])
        kept = PCA(n_components=0.9, svd_solver="full").fit(train).n_components_
        assert 1 < kept < 12
        assert (score("neco") == score("neco", dim=int(kept))).all()

    def test_all_directions_hold_everything(self):
        assert_allclose(score("neco", dim=12), -np.ones(30), rtol=1e-9)


class TestCARef:
    def means(self) -> np.ndarray:
        features, logits = arrays(TRAIN)
        return np.stack([features[logits.argmax(1) == label].mean(0) for label in range(4)])

    def test_is_the_relative_l1_distance_to_the_mean_of_the_predicted_class(self):
        features, logits = arrays(TEST)
        gap = np.abs(features - self.means()[logits.argmax(1)]).sum(1)
        assert_allclose(score("caref"), gap / np.abs(features).sum(1), rtol=1e-9)

    def test_predictions_count_and_labels_do_not(self):
        wrong = Outputs((TRAIN.labels + 1) % 4, TRAIN.logits, TRAIN.features, head=TRAIN.head)
        assert (score("caref", wrong) == score("caref")).all()

    def test_a_class_that_is_never_predicted_has_the_mean_of_all(self):
        label = int(TEST.logits.argmax(1)[0])
        part = TRAIN.subset(TRAIN.logits.argmax(1) != label)
        test = TEST.subset(TEST.logits.argmax(1) == label)
        features = test.features.numpy()
        gap = np.abs(features - part.features.numpy().mean(0)).sum(1)
        assert_allclose(score("caref", part, test), gap / np.abs(features).sum(1), rtol=1e-9)

    def test_cadref_divides_what_raises_the_logit_by_its_own_level_and_the_rest_by_the_mean_level(self):
        features, logits = arrays(TEST)
        expected = []
        for z, own in zip(features, logits, strict=True):
            gap, signs = z - self.means()[own.argmax()], np.sign(WEIGHT[own.argmax()])
            raising = sum(abs(g) for g, s in zip(gap, signs, strict=True) if g * s > 0) / np.abs(z).sum()
            lowering = sum(abs(g) for g, s in zip(gap, signs, strict=True) if g * s < 0) / np.abs(z).sum()
            expected.append(raising / logsumexp(own) + lowering / logsumexp(arrays(TRAIN)[1], axis=1).mean())
        assert_allclose(score("cadref"), expected, rtol=1e-9)

    def test_both_parts_of_cadref_at_level_one_are_caref(self):
        def level_one(side: Outputs) -> Outputs:
            logits = side.logits - side.logits.logsumexp(1, keepdim=True) + 1
            return Outputs(side.labels, logits, side.features, head=side.head)

        parts = level_one(TRAIN), level_one(TEST)
        assert_allclose(score("cadref", *parts), score("caref", *parts), rtol=1e-9)


@pytest.mark.parametrize("power", [1, 4])
def test_relation_sums_kernels_of_direction_and_prediction_above_the_threshold(power):
    (train, train_logits), (test, logits) = arrays(TRAIN), arrays(TEST)
    expected = []
    for z, own in zip(test, logits, strict=True):
        total = 0.0
        for other, other_l in zip(train, train_logits, strict=True):
            cosine = z @ other / np.linalg.norm(z) / np.linalg.norm(other)
            k = max(cosine, 0) * (softmax(own) @ softmax(other_l))
            total += k**power if k > 0.03 else 0
        expected.append(-total)
    assert_allclose(score("relation", power=power), expected, rtol=1e-9)


class TestCFOOD:
    def expected(self, width: float) -> list[float]:
        """As in OpenOOD, one image after the other."""
        train, test = (F.normalize(side.features, dim=1).numpy() for side in (TRAIN, TEST))
        n = len(train)
        shares = np.concatenate(
            [np.linspace(0.001, 0.1, 100), np.linspace(0.105, 0.5, 81), np.linspace(0.51, 0.99, 49)]
        )
        places = np.array(shares * n - 1, dtype=int)
        fresh = np.concatenate([[True], places[:-1] < places[1:]])
        shares, places = shares[fresh], places[fresh]
        reach = np.stack([np.sort(((one - train) ** 2).sum(1))[places + 1] for one in train])
        found = []
        for image in test:
            covering = (reach >= ((image - train) ** 2).sum(1)[:, None]).mean(0)
            enough = np.flatnonzero(covering >= width)
            found.append(shares[enough[0]] if len(enough) else 1.0)
        return found

    @pytest.mark.parametrize("width", [0.01, 0.25, 0.9])
    def test_is_the_least_share_at_which_enough_training_images_reach_the_image(self, width):
        assert_allclose(score("cfood", width=width), self.expected(width), rtol=1e-12)

    def test_an_image_beyond_all_reach_scores_one(self):
        far = Outputs(torch.zeros(1), features=-TRAIN.features.mean(0, keepdim=True))
        assert score("cfood", test=far) == [1.0]

    def test_one_training_image_is_one_sentence(self):
        with pytest.raises(GauntletError, match="'cfood' needs at least two training images, got 1"):
            score("cfood", TRAIN.subset(slice(0, 1)))


class TestWeiPer:
    def density(self, values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
        return np.histogram(values, bins=bins, range=(low, high + 1e-8))[0] / len(values)

    def divergence(self, train: np.ndarray, values: np.ndarray, bins: int, size: int, floor: float) -> float:
        p = np.mean([self.density(row, train.min(), train.max(), bins) for row in train], axis=0) + floor
        q = self.density(values, train.min(), train.max(), bins)
        padded = np.concatenate([np.full((size - 1) // 2, q[0]), q, np.full(size // 2, q[-1])])
        q = np.convolve(padded, np.ones(size) / size, mode="valid") + floor
        p, q = p / p.sum(), q / q.sum()
        return float((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum())

    def test_is_two_divergences_less_the_mean_confidence(self):
        heads = perturbed(TRAIN.head, 7, 2.1)
        (train, _), (test, _) = arrays(TRAIN), arrays(TEST)
        wide, narrow = (side @ heads.weight.numpy().T + heads.bias.numpy() for side in (train, test))
        expected = [
            self.divergence(train, z, 30, 4, 0.01)
            + 0.7 * self.divergence(wide, own, 30, 4, 0.025)
            - 0.3 * softmax(own.reshape(7, 4), axis=1).max(1).mean()
            for z, own in zip(test, narrow, strict=True)
        ]
        found = score("weiper", repeats=7, bins=30, smoothing=4, weight=0.7, confidence=0.3)
        assert_allclose(found, expected, rtol=1e-6)

    def test_every_weight_is_moved_by_a_fixed_part_of_its_length_in_its_own_direction(self):
        heads = perturbed(TRAIN.head, 5, 2.1)
        steps = heads.weight.view(5, 4, 12) - TRAIN.head.weight
        assert_allclose(steps.norm(dim=2), 2.1 * TRAIN.head.weight.norm(dim=1).expand(5, 4), rtol=1e-6)
        assert torch.linalg.matrix_rank(steps.flatten(0, 1)) == 12

    def test_the_score_of_an_image_does_not_depend_on_the_others(self):
        alone = np.concatenate([score("weiper", test=TEST.subset([row])) for row in range(len(TEST))])
        assert_allclose(score("weiper"), alone, rtol=1e-9)


class TestIODIN:
    def test_moves_the_value_with_the_largest_gradient_and_no_other(self, net, test):
        images = torch.cat(list(test.image_batches()))
        pixels = images.clone().requires_grad_()
        logits = net(pixels) / 10
        F.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()
        moved = images.clone()
        for image, gradient in zip(moved, pixels.grad, strict=True):
            place = np.unravel_index(int(gradient.abs().argmax()), gradient.shape)
            image[place] -= 0.05 * gradient[place].sign()
        expected = 1 - (net(moved) / 10).softmax(1).amax(1)
        found = build_detector(DETECTORS.get("i-odin"), {"temperature": 10.0, "epsilon": 0.05}).score(test)
        assert ((moved != images).flatten(1).sum(1) == 1).all()
        assert_allclose(found, expected.detach(), rtol=1e-9)

    def test_without_a_step_it_is_msp(self, test):
        found = build_detector(DETECTORS.get("i-odin"), {"temperature": 2.0, "epsilon": 0.0}).score(test)
        assert_allclose(found, build_detector(DETECTORS.get("msp"), {"temperature": 2.0}).score(test), rtol=1e-12)


class TestGROOD:
    def test_is_the_distance_to_the_nearest_gradient_in_the_prototype_of_ood_images(self):
        """Autograd on the loss itself, as OpenOOD has it, with the mean of the class means as that prototype."""
        labels = (
            TRAIN.logits + 3 * torch.randn(TRAIN.logits.shape, generator=torch.Generator().manual_seed(0))
        ).argmax(1)
        train = Outputs(labels, TRAIN.logits, TRAIN.features)
        means = torch.stack([TRAIN.features[labels == label].mean(0) for label in range(4)])

        def gradients(side: Outputs) -> torch.Tensor:
            found = []
            for z, predicted in zip(side.features, side.logits.argmax(1), strict=True):
                noise = means.mean(0).requires_grad_()
                near = -(z - torch.cat([means, noise[None]])).norm(dim=1)
                found.append(torch.autograd.grad(F.cross_entropy(near[None], predicted[None]), noise)[0])
            return torch.stack(found)

        known = gradients(train)[TRAIN.logits.argmax(1) == labels]
        assert 0 < len(known) < len(labels)
        expected = torch.cdist(gradients(TEST), known).amin(1)
        assert_allclose(score("grood", train), expected, rtol=1e-6, atol=1e-9)

    def test_no_training_image_classified_right_is_one_sentence(self):
        wrong = Outputs((TRAIN.logits.argmax(1) + 1) % 4, TRAIN.logits, TRAIN.features)
        with pytest.raises(GauntletError, match="'grood' cannot be fitted: no training image is classified correctly"):
            score("grood", wrong)


class TestAdaScale:
    PARAMETERS = {"low": 0.3, "high": 0.8, "moved": 0.1, "active": 0.3, "shifted": 0.2, "weight": 4.0}  # noqa: RUF012

    def tapped(self, side: Outputs, net: torch.nn.Module) -> Outputs:
        def tap(images: torch.Tensor) -> dict[str, torch.Tensor]:
            features = net.features(images)
            return {"features": features, "logits": net.fc(features)}

        side.tap = tap
        return side

    def shift(self, image: torch.Tensor, step: float, net: torch.nn.Module) -> tuple[torch.Tensor, float]:
        pixels = image[None].clone().requires_grad_()
        z = net.features(pixels)
        (gradient,) = torch.autograd.grad(net.fc(z).amax(), pixels)
        moved = image.flatten().clone()
        for place in gradient.flatten().abs().argsort()[: int(36 * 0.1)]:
            moved[place] += step * gradient.flatten()[place].sign()
        there = net.features(moved.view(1, 1, 6, 6))
        order = z[0].argsort(descending=True)
        high = there[0].relu()[order[: int(8 * 0.3)]].sum()
        return z[0].detach(), (high + 4 * (z - there)[0].abs()[order[: int(8 * 0.2)]].sum()).item()

    @pytest.mark.parametrize("variant", ["a", "l"])
    def test_is_the_recipe_image_by_image(self, net, train, test, variant):
        val, test = self.tapped(train, net), self.tapped(test, net)
        known = torch.cat(list(val.image_batches()))
        step = 0.5 * float(known.std(correction=0))
        shifts = [self.shift(image, step, net)[1] for image in known]
        expected = []
        for image in torch.cat(list(test.image_batches())):
            z, shift = self.shift(image, step, net)
            q = 0.3 + (1 - np.mean(np.array(shifts) <= shift)) * 0.5
            kept = z.relu().sort(descending=True).values[: 8 - round(8 * q)].sum()
            r = z.relu().sum() / kept
            logits = net.fc(z * r.exp()) if variant == "a" else net.fc(z) * r**2
            expected.append(-logits.logsumexp(0).item())
        built = build_detector(DETECTORS.get("adascale"), {"variant": variant, **self.PARAMETERS})
        built.fit(train, val, train.head)
        assert len(set(expected)) > 30
        assert_allclose(built.score(test), expected, rtol=1e-6)

    def test_the_deviation_is_that_of_each_channel(self):
        images = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
        found = channel_deviations(images.split(7))
        assert_allclose(found.flatten(), images.std(dim=(0, 2, 3), correction=0), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("neco", {"dim": 0}, "dim of at least 1, got 0"),
        ("relation", {"power": 0}, "power of at least 1, got 0"),
        ("relation", {"threshold": 1.0}, "threshold of at least 0 and below 1, got 1"),
        ("cfood", {"share": 0.0}, "share and width above 0 and at most 1, got 0 and 0.01"),
        ("weiper", {"repeats": 0}, "repeats of at least 1, got 0"),
        ("weiper", {"bins": 10}, "smoothing of at most its 10 bins, got 20"),
        ("adascale", {"low": 0.9}, "0 <= low <= high < 1, got 0.9 and 0.85"),
        ("adascale", {"moved": 0.0}, "moved, active and shifted above 0 and at most 1, got 0, 0.05 and 0.01"),
        ("i-odin", {"temperature": 0.0}, "finite temperature above 0, got 0"),
    ],
)
def test_parameters_out_of_range_are_one_sentence(name, parameters, message):
    with pytest.raises(GauntletError, match=message):
        build_detector(DETECTORS.get(name), parameters)
