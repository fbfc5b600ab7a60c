"""What each score is, against independent formulas, and what must not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F
from torch.testing import assert_close

from gauntlet.detectors import Outputs, build_detector, search
from gauntlet.detectors.cross_entropy import cross_entropy
from gauntlet.detectors.energy import energy
from gauntlet.detectors.entropy import entropy
from gauntlet.detectors.gen import gen
from gauntlet.detectors.max_logit import max_logit
from gauntlet.detectors.msp import msp
from gauntlet.detectors.odin import confidence_gradient, odin
from gauntlet.registry import DETECTORS

LOGITS = hnp.arrays(np.float64, (6, 4), elements=st.floats(-30, 30)).map(torch.from_numpy)
exact = settings(deadline=None, max_examples=50)


def fitted(name: str, features: torch.Tensor, labels: torch.Tensor | None = None, **parameters):
    built = build_detector(DETECTORS.get(name), parameters)
    built.fit(Outputs(torch.zeros(len(features)) if labels is None else labels, features=features), None, None)
    return built


def on(features: torch.Tensor) -> Outputs:
    return Outputs(torch.zeros(len(features)), features=features)


class TestLogitScores:
    @given(LOGITS)
    @exact
    def test_msp_is_one_minus_the_largest_probability(self, logits):
        assert_close(msp(logits), 1 - logits.softmax(1).amax(1), rtol=0, atol=1e-12)

    def test_msp_at_temperature_1000_still_ranks_by_a_thousandth_of_a_logit(self):
        gaps = torch.linspace(0, 1, 1001)
        logits = torch.stack([gaps, torch.zeros(1001), torch.zeros(1001)], dim=1)
        scores = msp(logits, temperature=1000.0)
        assert (scores.diff() < 0).all()
        assert_close(scores, torch.full_like(scores, 2 / 3), rtol=0, atol=1e-3)

    @pytest.mark.parametrize("gap", [20.0, 37.0, 100.0, 700.0])
    def test_msp_of_a_saturated_model_is_the_probability_of_the_rest(self, gap):
        score = float(msp(torch.tensor([[gap, 0.0, 0.0]]))[0])
        assert score == pytest.approx(2 * math.exp(-gap), rel=1e-6)

    @given(LOGITS)
    @exact
    def test_cross_entropy_is_minus_torchs_with_uniform_targets(self, logits):
        uniform = torch.full_like(logits, 1 / 4)
        assert_close(cross_entropy(logits), -F.cross_entropy(logits, uniform, reduction="none"), rtol=1e-12, atol=1e-9)

    @given(LOGITS)
    @exact
    def test_cross_entropy_is_largest_for_the_uniform_prediction(self, logits):
        assert (cross_entropy(logits) <= -math.log(4) + 1e-12).all()
        assert float(cross_entropy(torch.full((1, 4), 7.0))[0]) == pytest.approx(-math.log(4), abs=1e-15)

    @given(LOGITS)
    @exact
    def test_entropy_is_scipys(self, logits):
        from scipy.stats import entropy as peer

        assert_close(entropy(logits), torch.from_numpy(peer(logits.softmax(1).numpy(), axis=1)), rtol=1e-9, atol=1e-12)

    @given(LOGITS, st.floats(-100, 100))
    @exact
    def test_a_common_shift_moves_energy_and_max_logit_only(self, logits, shift):
        for score in (msp, entropy, cross_entropy):
            assert_close(score(logits + shift), score(logits), rtol=1e-9, atol=1e-12)
        for score in (energy, max_logit):
            assert_close(score(logits + shift), score(logits) - shift, rtol=1e-9, atol=1e-9)

    @given(LOGITS)
    @exact
    def test_energy_falls_to_max_logit_as_the_temperature_falls(self, logits):
        assert_close(energy(logits, temperature=1e-3), max_logit(logits), rtol=0, atol=2e-3)

    @pytest.mark.parametrize("scale", [0.1, 1.0, 15.0])
    def test_float32_logits_cost_no_more_than_is_said(self, scale):
        logits = torch.randn(500, 10, generator=torch.Generator().manual_seed(0)) * scale
        assert_close(energy(logits), -torch.logsumexp(logits.double(), 1), rtol=0, atol=1e-6)
        assert_close(gen(logits), gen(logits.double()), rtol=1e-5, atol=0)

    @given(LOGITS, st.sampled_from([0.01, 0.1, 1.0]), st.integers(1, 5))
    @exact
    def test_gen_is_the_formula(self, logits, gamma, top):
        p = logits.softmax(1)
        rest = torch.stack([p[:, [c for c in range(4) if c != left]].sum(1) for left in range(4)], 1)
        chosen = p.topk(min(top, 4)).indices
        expected = ((p * rest) ** gamma).gather(1, chosen).sum(1)
        assert_close(gen(logits, gamma=gamma, top=top), expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("score", [msp, max_logit, energy, entropy, cross_entropy])
    def test_a_confident_image_scores_below_an_undecided_one(self, score):
        scores = score(torch.tensor([[8.0, 0.0, 0.0], [0.1, 0.0, 0.0]]))
        assert scores[0] < scores[1]

    @pytest.mark.parametrize("score", [msp, max_logit, energy, entropy, cross_entropy, gen])
    def test_scores_are_differentiable(self, score):
        logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        assert torch.autograd.gradcheck(score, logits)


class TestODIN:
    def test_with_epsilon_0_it_is_the_tempered_msp(self, net, test):
        scores = build_detector(DETECTORS.get("odin"), {"epsilon": 0, "temperature": 3}).score(test)
        assert_close(scores, msp(test.logits, temperature=3.0), rtol=1e-12, atol=0)

    def test_on_an_affine_model_the_gradient_has_a_closed_form(self):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 5)).double()
        images = torch.rand(4, 1, 3, 3, dtype=torch.float64)
        weight = model[1].weight.detach()
        p = (model(images) / 2).softmax(1).detach()
        predicted = p.argmax(1)
        expected = (weight[predicted] - p @ weight) / 2
        factor = (1 - p.amax(1))[:, None] / 2  # left out of ours, positive
        assert_close(confidence_gradient(images, model, 2.0).flatten(1) * factor, expected, rtol=1e-10, atol=1e-14)

    def test_the_step_raises_the_confidence(self, net, test):
        images = torch.cat(list(test.image_batches()))
        assert (odin(images, net, temperature=1.0, epsilon=1e-4) < msp(test.logits)).all()

    def test_confident_images_still_move(self, net, test):
        """At a gap of 1000 the softmax gradient itself is 0 in any precision."""
        with torch.no_grad():
            net.fc.weight *= 1e5
        images = torch.cat(list(test.image_batches()))
        assert confidence_gradient(images, net, 1.0).flatten(1).abs().amax(1).min() > 0

    def test_a_pixel_without_influence_stays_where_it_is(self):
        seen = []

        class Half(torch.nn.Module):
            def forward(self, images):
                seen.append(images.detach().clone())
                return torch.stack([images[:, 0, 0, 0], -images[:, 0, 0, 0]], dim=1)

        odin(torch.full((1, 1, 1, 2), 0.99), Half(), epsilon=0.5)
        assert seen[-1].flatten().tolist() == pytest.approx([1.49, 0.99])  # and nothing is clipped

    def test_a_tie_of_logits_is_no_problem(self):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
        torch.nn.init.zeros_(model[1].weight)
        torch.nn.init.zeros_(model[1].bias)
        assert odin(torch.rand(2, 1, 2, 2), model).tolist() == pytest.approx([2 / 3, 2 / 3], abs=1e-12)


class TestMahalanobis:
    def peer(self, features, labels, queries):
        """The textbook formula in numpy."""
        z, y, q = features.numpy(), labels.numpy(), queries.numpy()
        means = {c: z[y == c].mean(0) for c in np.unique(y)}
        centred = z - np.stack([means[c] for c in y])
        precision = np.linalg.pinv(centred.T @ centred / len(z), hermitian=True, rcond=1e-11)
        distances = [np.einsum("nd,de,ne->n", q - m, precision, q - m) for m in means.values()]
        return torch.from_numpy(np.min(distances, axis=0))

    @pytest.mark.parametrize("rank", [3, 8])
    def test_it_is_the_textbook_formula_of_any_rank(self, rank):
        generator = torch.Generator().manual_seed(rank)
        mixing = torch.randn(rank, 8, generator=generator, dtype=torch.float64)
        train = torch.randn(200, rank, generator=generator, dtype=torch.float64) @ mixing
        queries = torch.randn(30, 8, generator=generator, dtype=torch.float64)  # also off the span of the training
        labels = torch.randint(5, (200,), generator=generator)
        scores = fitted("mahalanobis", train, labels).score(on(queries))
        assert_close(scores, self.peer(train, labels, queries), rtol=1e-7, atol=1e-9)

    def test_it_does_not_depend_on_the_basis_of_the_features(self):
        generator = torch.Generator().manual_seed(0)
        train, queries = torch.randn(2, 100, 6, generator=generator, dtype=torch.float64)
        labels = torch.arange(100) % 4
        basis, shift = torch.randn(6, 6, generator=generator, dtype=torch.float64), 50.0
        expected = fitted("mahalanobis", train, labels).score(on(queries))
        moved = fitted("mahalanobis", train @ basis + shift, labels).score(on(queries @ basis + shift))
        assert_close(moved, expected, rtol=1e-8, atol=1e-8)

    def test_float32_features_with_a_far_origin_keep_their_distances(self):
        generator = torch.Generator().manual_seed(0)
        train = torch.randn(500, 5, generator=generator) + 1000
        labels = torch.arange(500) % 3
        scores = fitted("mahalanobis", train, labels).score(on(train[:50]))
        assert_close(scores, self.peer(train.double(), labels, train[:50].double()), rtol=2e-6, atol=2e-6)

    def test_a_chunked_score_is_the_whole_score(self, monkeypatch):
        train = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
        built = fitted("mahalanobis", train, torch.arange(100) % 4)
        whole = built.score(on(train))
        monkeypatch.setattr("gauntlet.detectors.numerics._CHUNK_ELEMENTS", 50)
        assert_close(built.score(on(train)), whole, rtol=1e-12, atol=1e-12)

    def test_reduced_features_are_taken_where_there_are_any(self):
        train, labels = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)), torch.arange(100) % 4
        wide = Outputs(labels, features=torch.rand(100, 50), projected=train)
        built = build_detector(DETECTORS.get("mahalanobis"))
        built.fit(wide, None, None)
        assert torch.equal(built.score(wide), fitted("mahalanobis", train, labels).score(on(train)))


class TestKNN:
    @pytest.mark.parametrize("k", [1, 7, 100])
    @pytest.mark.parametrize("normalize", [True, False])
    def test_it_is_sklearns_distance_to_the_kth_neighbour(self, k, normalize):
        generator = torch.Generator().manual_seed(k)
        train, queries = torch.randn(100, 10, generator=generator), torch.randn(30, 10, generator=generator)
        z, q = (F.normalize(v.double()) if normalize else v.double() for v in (train, queries))
        expected = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(z).kneighbors(q)[0][:, -1]
        scores = fitted("knn", train, k=k, normalize=normalize).score(on(queries))
        assert_close(scores, torch.from_numpy(expected), rtol=2e-6, atol=2e-6)

    def test_a_chunked_score_is_the_whole_score(self, monkeypatch):
        train, queries = torch.randn(2, 60, 5, generator=torch.Generator().manual_seed(0))
        built = fitted("knn", train, k=3)
        whole = built.score(on(queries))
        monkeypatch.setattr("gauntlet.detectors.numerics._CHUNK_ELEMENTS", 150)
        assert_close(built.score(on(queries)), whole, rtol=1e-6, atol=1e-7)

    def test_the_temporary_matrix_stays_small(self, monkeypatch):
        monkeypatch.setattr("gauntlet.detectors.numerics._CHUNK_ELEMENTS", 1000)
        sizes = []
        original = torch.mm
        monkeypatch.setattr(search.torch, "mm", lambda *a, out: sizes.append(original(*a, out=out).numel()))
        fitted("knn", torch.rand(100, 4), k=3).score(on(torch.rand(95, 4)))
        assert len(sizes) == 10
        assert max(sizes) == 1000

    def test_the_length_of_features_does_not_matter_when_normalized(self):
        train, queries = torch.randn(2, 60, 5, generator=torch.Generator().manual_seed(0))
        scales = torch.logspace(-3, 3, 60)[:, None]
        expected = fitted("knn", train, k=3).score(on(queries))
        assert_close(fitted("knn", train * scales, k=3).score(on(queries * 7)), expected, rtol=1e-5, atol=1e-6)

    def test_a_training_image_is_at_distance_zero_from_itself(self):
        train = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
        assert fitted("knn", train, k=1).score(on(train)).tolist() == [0.0] * 60

    def test_zero_features_stay_zero_and_are_at_distance_1_from_all_others(self):
        train = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
        train[0] = 0
        scores = fitted("knn", train, k=1).score(on(torch.zeros(1, 5)))
        assert scores.tolist() == [0.0]
        assert float(fitted("knn", train, k=2).score(on(torch.zeros(1, 5)))) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["mahalanobis", "knn"])
def test_feature_scores_are_differentiable(name):
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    built = fitted(name, train, torch.arange(50) % 3, **({"k": 5} if name == "knn" else {}))
    queries = torch.randn(6, 4, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: built.score(on(z)), queries)
