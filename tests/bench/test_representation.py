"""What is said of an embedding: each kernel against a library or a slow formula, and the evaluator as a whole."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics
from sklearn.neighbors import KNeighborsClassifier

from gauntlet.bench import kernels_representation as kernels
from gauntlet.bench.runner import prepare, run_suite
from gauntlet.datasets import DataSource, resolve
from gauntlet.results import CellResult, Facts, Identity, Measurement, PlannedCell
from gauntlet.results.frame import load_results
from gauntlet.results.metrics import METRICS
from gauntlet.results.plots import Material, draw
from gauntlet.results.presets import PRESETS
from gauntlet.results.representation_table import R4_VERDICTS, _difference
from gauntlet.results.store import Store
from gauntlet.results.table import Cells


def difference(inside: pd.DataFrame, outside: pd.DataFrame) -> tuple[str, str]:
    """As a table shows it."""
    cell, verdict = _difference(inside, outside)
    return Cells.of([[cell]]).texts[0][0], verdict


def blobs(count: int = 240, size: int = 6, classes: int = 4, noise: float = 0.8, seed: int = 0):
    """Embeddings (N, D) around one direction a class, and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, size, generator=torch.Generator().manual_seed(99))
    return centres[labels] + noise * torch.randn(count, size, generator=generator), labels


class TestNeighbours:
    def test_votes_are_scikit_learns_with_the_same_weights(self):
        (bank, labels), (queries, _) = blobs(seed=1), blobs(100, seed=2)
        found = kernels.knn_predictions(bank, labels, queries, classes=4)
        for k in (1, 5, 20, 200):
            peer = KNeighborsClassifier(
                k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
            ).fit(bank.numpy(), labels.numpy())
            assert (found[k].numpy() == peer.predict(queries.numpy())).mean() > 0.985  # near ties in float32

    def test_more_neighbours_than_images_are_left_out(self):
        bank, labels = blobs(30)
        assert set(kernels.knn_predictions(bank, labels, bank, classes=4)) == {1, 5, 20}


class TestClusters:
    def test_separate_classes_are_found_whatever_their_length(self):
        embeddings, labels = blobs(noise=0.05)
        scaled = embeddings * torch.rand(len(labels), 1).add(0.1)
        found = kernels.clustering_metrics(kernels.clusters(scaled.numpy(), 4), labels.numpy())
        assert set(found.values()) == {1.0}

    def test_purity_and_matching_are_those_of_a_hand_made_case(self):
        """Clusters 0, 0, 0, 1, 1, 2 of labels a, a, b, b, b, b: purity 6 of 7 would need no match one to one."""
        cluster, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])
        found = kernels.clustering_metrics(cluster, labels)
        assert found["purity"] == pytest.approx(5 / 6)
        assert found["hungarian_accuracy"] == pytest.approx(4 / 6)

    def test_information_and_rand_index_are_the_formulas(self):
        generator = np.random.default_rng(0)
        cluster, labels = generator.integers(0, 3, 80), generator.integers(0, 4, 80)
        found = kernels.clustering_metrics(cluster, labels)
        joint = np.array([[((cluster == c) & (labels == y)).mean() for y in range(4)] for c in range(3)])
        p, q = joint.sum(1), joint.sum(0)
        mutual = sum(v * math.log(v / (p[i] * q[j])) for (i, j), v in np.ndenumerate(joint) if v)
        entropies = [-sum(v * math.log(v) for v in side if v) for side in (p, q)]
        assert found["nmi"] == pytest.approx(2 * mutual / sum(entropies))
        pairs = [(cluster[i] == cluster[j], labels[i] == labels[j]) for i in range(80) for j in range(i)]
        both, of_c, of_l = (sum(map(bool, side)) for side in ([a and b for a, b in pairs], *zip(*pairs, strict=True)))
        expected = of_c * of_l / len(pairs)
        assert found["ari"] == pytest.approx((both - expected) / ((of_c + of_l) / 2 - expected))

    def test_the_silhouette_is_the_mean_of_the_formula(self):
        embeddings, labels = blobs(60)
        points, cluster = F.normalize(embeddings.double(), dim=1).numpy(), labels.numpy()
        values = []
        for i, point in enumerate(points):
            distances = np.linalg.norm(points - point, axis=1)
            others = [distances[cluster == c].mean() for c in range(4) if c != cluster[i]]
            a = distances[cluster == cluster[i]].sum() / ((cluster == cluster[i]).sum() - 1)
            values.append((min(others) - a) / max(a, min(others)))
        assert kernels.silhouette(embeddings.numpy(), cluster) == pytest.approx(np.mean(values))

    def test_one_cluster_has_no_silhouette(self):
        assert math.isnan(kernels.silhouette(np.ones((5, 2)), np.zeros(5, dtype=int)))


class TestRetrieval:
    def test_average_precision_is_scikit_learns_and_precision_a_count(self):
        embeddings, labels = blobs(80, noise=1.5)
        pixels, queries = torch.rand(80, 30, generator=torch.Generator().manual_seed(3)), torch.arange(0, 80, 7)
        found = kernels.retrieval(embeddings, labels, pixels, queries, (1, 5))
        cosine = F.normalize(embeddings, dim=1) @ F.normalize(embeddings, dim=1).T
        for place, query in enumerate(queries.tolist()):
            others = [i for i in range(80) if i != query]
            same = (labels[others] == labels[query]).numpy()
            scores = cosine[query, others].numpy()
            assert found.average_precision[place] == pytest.approx(metrics.average_precision_score(same, scores))
            assert found.precision[place, 1] == pytest.approx(same[np.argsort(-scores)[:5]].mean())
        assert not found.duplicates.any()

    def test_near_duplicates_of_the_query_are_left_out_and_counted(self):
        embeddings, _ = blobs(20)
        pixels = torch.rand(20, 9)
        pixels[1] = 0.5 * pixels[0]  # the same picture, darker
        embeddings[1] = embeddings[0]
        order, similarity, twins = kernels.ranking(embeddings, pixels, torch.tensor([0]))
        assert twins.tolist() == [1]
        assert set(order[0, -2:].tolist()) == {0, 1}
        assert similarity[0, -2:].isinf().all()

    def test_a_class_with_a_single_image_has_no_average_precision(self):
        found = kernels.retrieval(torch.eye(3), torch.tensor([0, 1, 1]), torch.eye(3), torch.arange(3))
        assert np.isnan(found.average_precision[0])
        assert np.isfinite(found.average_precision[1:]).all()


class TestSphere:
    def test_uniformity_and_alignment_are_the_double_loop(self):
        first, second = blobs(30)[0], blobs(30, seed=5)[0]
        points = F.normalize(first.double(), dim=1)
        pairs = [math.exp(-2 * float((points[i] - points[j]).square().sum())) for i in range(30) for j in range(i)]
        assert kernels.uniformity(first) == pytest.approx(math.log(sum(pairs) / len(pairs)))
        others = F.normalize(second.double(), dim=1)
        expected = sum(float((a - b).square().sum()) for a, b in zip(points, others, strict=True)) / 30
        assert float(kernels.alignments(first, second).mean()) == pytest.approx(expected)

    def test_equal_embeddings_are_as_far_from_uniform_as_can_be(self):
        assert kernels.uniformity(torch.ones(8, 3)) == pytest.approx(0)


ENCODER = {"name": "simclr", "trunk": "tiny"}
BRIEF = {"simclr": {"profile": "digits", "epochs": 1, "warmup": 0}}


def suite(**changes):
    return {
        "name": "embeddings",
        "datasets": [{"digits": {"limit": 150}}],
        "models": [
            {**ENCODER, "label": "SimCLR", "recipe": BRIEF},
            {"name": "pixels", "label": "pixels"},
            {"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 1}}},
            {
                "name": "linear-probe",
                "label": "probe",
                "encoder": {**ENCODER, "recipe": BRIEF},
                "recipe": "logistic-regression",
            },
        ],
        "evaluators": ["accuracy", "representation", "attack", "ood"],
        "attacks": ["fgsm"],
        "epsilons": [0.1],
        "attack_images": 20,
        "detectors": ["msp", "mahalanobis"],
        "ood": [{"uniform-noise": {"limit": 50}}],
        "worst_case": False,
        "examples": 4,
        **changes,
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("embeddings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUNTLET_CACHE", str(folder / "cache"))
        outcome = run_suite(suite(), out=folder)
    assert outcome.complete, outcome.counts
    return folder, load_results(folder)


class TestEvaluator:
    def test_encoders_pixels_and_classifiers_are_judged_by_declared_metrics(self, results):
        _, frame = results
        rows = frame[frame["evaluator"] == "representation"]
        assert set(rows["model"]) == {"SimCLR", "pixels", "CNN"}
        assert set(rows["metric"]) <= set(METRICS)
        inside = [METRICS[m].low <= v <= METRICS[m].high for m, v in zip(rows["metric"], rows["value"], strict=True)]
        assert all(inside)
        assert rows.groupby("model")["metric"].nunique().min() >= 20

    def test_pixels_are_judged_as_scikit_learn_judges_them(self, results):
        _, frame = results
        rows = frame[(frame["evaluator"] == "representation") & (frame["model"] == "pixels")]
        digits = resolve({"digits": {"limit": 150}}, DataSource(root=Path("absent"), cache=Path("absent")))
        train, test = (digits.load(split) for split in ("train", "test"))
        peer = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
        peer.fit(train.images.flatten(1).numpy(), train.labels.numpy())
        expected = peer.score(test.images.flatten(1).numpy(), test.labels.numpy())
        assert rows[rows["metric"] == "knn1_accuracy"]["value"].item() == pytest.approx(expected, abs=0.003)

    def test_a_probe_is_attacked_and_scored_like_any_classifier_and_not_judged_twice(self, results):
        _, frame = results
        rows = frame[frame["model"] == "probe"]
        assert set(rows["evaluator"]) == {"accuracy", "attack", "ood"}
        assert set(rows["detector"]) >= {"msp", "mahalanobis"}
        plan, _ = prepare(suite())
        said = {item.what: item.reason for item in plan.left_out}
        assert "name simclr" in said["representation of probe on digits limit=150"]
        assert "mahalanobis of pixels on digits limit=150" in said

    def test_tables_show_every_embedding(self, results):
        _, frame = results
        tables = PRESETS["representation"](frame)
        assert [table.rows for table in tables] == [(("SimCLR",), ("pixels",), ("CNN",))] * 2

    def test_neighbours_and_the_map_are_drawn_from_the_store(self, results):
        folder, frame = results
        with Store.open(folder / "store.sqlite") as store:
            for name in ("neighbours", "embedding-map"):
                drawn = draw(name, Material(frame, store))
                assert len(drawn.axes) >= 3
            arrays = store.arrays(frame[frame["model"] == "pixels"]["key"].iloc[-1])
        assert arrays["map"].shape[1] == 50


class TestAblation:
    def frame(self, folder):
        """Three seeds of a policy, of one without its crop (10 points worse) and of one with noise (the same)."""
        models = {
            "policy": ({}, (0.90, 0.91, 0.92)),
            "no crop": ({"drop": ["resized-crop"]}, (0.80, 0.812, 0.818)),
            "noisy": ({"add": [{"noise": {"high": 0.1}}]}, (0.91, 0.90, 0.92)),
        }
        with Store.open(folder / "store.sqlite") as store:
            run = store.begin_run("ablation", "name: ablation", {})
            for label, (switched, values) in models.items():
                params = {"model": {"recipe": {"name": "simclr", "add": [], "drop": [], "epochs": 3, **switched}}}
                for seed, value in enumerate(values):
                    where = {"evaluator": "representation", "model": label, "dataset": "digits", "seed": seed}
                    cell = PlannedCell(Identity(**where), f"{label} {seed}", Facts(), params)
                    store.plan(run, [cell])
                    found = tuple(Measurement(name, value) for name in ("probe_accuracy", "knn20_accuracy"))
                    store.put(run, cell.key, CellResult(measurements=found))
            store.end_run(run, "finished")
        return load_results(folder)

    def test_each_switched_step_has_a_row_with_the_reports_word_and_ours(self, tmp_path):
        table = PRESETS["representation"](self.frame(tmp_path))[-1]
        assert table.rows == (("resized-crop", "on"), ("noise", "off"))
        crop, noise = table.cells
        assert crop[:3] == ("yes (random crop)", "91.0", "81.0")
        assert crop[3].startswith("10.0 ± ")
        assert crop[4] == "helps"
        assert noise[:3] == ("yes", "91.0", "91.0")
        assert noise[4] == "unclear"

    def test_what_takes_part_is_compared_with_what_does_not_seed_by_seed(self):
        def seeds(*values):
            return pd.DataFrame({"value": values, "n": 400})

        inside, outside = seeds(0.9, 0.91, 0.92), seeds(0.8, 0.812, 0.818)
        text, verdict = difference(inside, outside)
        differences = [10.0, 9.8, 10.2]
        assert text == f"10.0 ± {4.3027 * np.std(differences, ddof=1) / 3**0.5:.1f}"
        assert verdict == "helps"
        assert difference(outside, inside)[1] == "hurts"

    def test_a_single_seed_is_judged_by_the_choice_of_test_images(self):
        one, other = (pd.DataFrame({"value": [value], "n": [400]}) for value in (0.9, 0.85))
        text, verdict = difference(one, other)
        assert text == f"5.0 ± {196 * (0.9 * 0.1 / 400 + 0.85 * 0.15 / 400) ** 0.5:.1f}"
        assert verdict == "helps"
        assert difference(one, one) == (f"0.0 ± {196 * (2 * 0.9 * 0.1 / 400) ** 0.5:.1f}", "unclear")

    def test_the_report_speaks_of_transformations_that_policies_have(self):
        from gauntlet.models.training.view_policy import POLICIES

        for policy in POLICIES.values():
            assert set(R4_VERDICTS) <= {step.name for step in policy.steps}
