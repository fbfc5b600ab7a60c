"""One kernel a metric: whole weights are repeated images, leading axes are replicates, and pairs follow from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet.registry import GauntletError
from gauntlet.results import METRICS, Confidences, Sample, Scores, Values, estimate, metric_named
from gauntlet.results.estimates import computed
from gauntlet.results.metrics import fitting, kernel
from gauntlet.results.paired_tests import paired_half_width

#: Few distinct scores, confidences on the edges of bins, and values that repeat.
COLUMNS = {
    "scores": st.integers(-3, 3).map(float),
    "confidences": st.integers(0, 45).map(lambda step: step / 45),
    "values": st.sampled_from([0.0, 0.25, 1.0, 3.5]),
}
KINDS = ("ranking", "right", "reliability", "values")
ALL = [entry.name for entry in fitting(KINDS)]
#: One metric of each kernel: accuracies share theirs, so do metrics before and after temperature scaling.
DISTINCT = sorted({entry.factory: entry.name for entry in reversed(fitting(KINDS))}.values())


def images(column: str) -> st.SearchStrategy[list[tuple[float, bool, int]]]:
    """Of each image a number, an outcome and a weight; not all weigh nothing."""
    one = st.tuples(COLUMNS[column], st.booleans(), st.integers(0, 3))
    return st.lists(one, min_size=1, max_size=12).filter(lambda found: any(weight for _, _, weight in found))


def sample_of(name: str, *sides: list[tuple[float, bool, int]]) -> tuple[Sample, Sample, list[np.ndarray]]:
    """A sample for a metric, the one with repeated images, and the weights that say how often each is repeated."""
    columns = [[np.array(column) for column in zip(*side, strict=True)] for side in sides]
    repeated = [[column.repeat(weight) for column in (number, right)] for number, right, weight in columns]
    weights = [weight for _, _, weight in columns]
    if metric_kind(name) == "ranking":
        (inside, right, _), (outside, _, _) = columns
        return Scores(inside, outside, right), Scores(repeated[0][0], repeated[1][0], repeated[0][1]), weights
    if metric_kind(name) == "reliability":
        return Confidences(*columns[0][:2]), Confidences(*repeated[0]), weights[:1]
    return Values(columns[0][0]), Values(repeated[0][0]), weights[:1]


def metric_kind(name: str) -> str:
    return kernel(name).needs[0]


def drawn(data: st.DataObject, name: str) -> tuple[Sample, Sample, list[np.ndarray]]:
    column = {"ranking": "scores", "reliability": "confidences"}.get(metric_kind(name), "values")
    return sample_of(name, data.draw(images(column)), data.draw(images(column)))


def test_every_metric_that_is_a_function_of_images_has_a_kernel() -> None:
    assert {"auroc", "oscr", "autc", "ece", "mce_scaled", "accuracy", "median_norm", "nll", "purity"} - set(ALL) == {
        "purity"
    }
    with pytest.raises(GauntletError, match="'purity' has no kernel: its evaluator computes it"):
        kernel("purity")


@pytest.mark.parametrize("name", DISTINCT)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whole_weights_are_repeated_images(name: str, data: st.DataObject) -> None:
    sample, repeated, weights = drawn(data, name)
    expected = float(computed(name, repeated.statistics))
    assert float(computed(name, sample.weighted(*weights))) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    if name.startswith("ece_corrected"):  # what chance adds depends on how many images there are
        return
    assert float(computed(name, sample.weighted(*(0.5 * part for part in weights)))) == pytest.approx(
        expected, abs=1e-12, nan_ok=True
    )


@pytest.mark.parametrize("name", DISTINCT)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_row_of_weights_is_a_replicate_of_its_own(name: str, data: st.DataObject) -> None:
    sample, _, weights = drawn(data, name)
    rows = [np.stack([part, np.ones_like(part)]) for part in weights]
    found = computed(name, sample.weighted(*rows))
    assert found.shape == (2,)
    assert found[0] == pytest.approx(float(computed(name, sample.weighted(*weights))), abs=1e-12)
    assert found[1] == pytest.approx(float(computed(name, sample.statistics)), abs=1e-12)


@pytest.mark.parametrize("name", DISTINCT)
def test_replicates_scatter_about_the_value(name: str) -> None:
    """The mean of many replicates is the metric up to what compression and the bootstrap's bias add."""
    rng = np.random.default_rng(0)
    right = rng.random(2000) < 0.8
    sample: Sample = {
        "ranking": Scores(rng.normal(size=2000), rng.normal(1, 1, 1500), right),
        "reliability": Confidences(rng.uniform(0.5, 1, 2000), right),
    }.get(metric_kind(name), Values(rng.random(2000)))
    draws = computed(name, sample.replicates(np.random.default_rng(0), 200))
    assert draws.shape == (200,)
    assert draws.mean() == pytest.approx(float(computed(name, sample.statistics)), abs=0.02)
    assert 0 < draws.std() < 0.05


@pytest.mark.parametrize("name", [name for name in ALL if METRICS[name].interval])
def test_an_estimate_holds_its_value(name: str) -> None:
    rng = np.random.default_rng(1)
    flags = rng.random(50) < 0.7
    sample: Sample = {
        "ranking": Scores(rng.normal(size=50), rng.normal(1, 1, 40), flags),
        "reliability": Confidences(rng.uniform(0.5, 1, 50), flags),
    }.get(metric_kind(name), Values(rng.random(50)))
    value, low, high = estimate([name], sample)[name]
    assert low is not None
    assert high is not None
    assert low <= value <= high
    assert low < high


def test_the_median_of_few_values_has_the_metrics_own_bounds() -> None:
    assert estimate(["median_h"], Values([0.2, 0.4]))["median_h"] == (pytest.approx(0.3), 0.0, 1.0)
    assert estimate(["median_score"], Values([0.2]))["median_score"] == (0.2, -np.inf, np.inf)


class TestPairs:
    """The paired difference of every metric whose arrays a cell keeps."""

    PAIRED = tuple(name for name in ALL if METRICS[name].stored)

    @staticmethod
    def arrays(rng: np.random.Generator, size: int = 300) -> dict[str, np.ndarray]:
        scores = {"id_score": rng.normal(size=size), "ood_score": rng.normal(1, 1, size)}
        confidence = rng.uniform(0.4, 1, size)
        right = rng.random(size) < confidence
        both = {"confidence": confidence, "confidence_scaled": confidence**0.8, "correct": right}
        return {
            **scores,
            **both,
            "attacked": np.ones(size, bool),
            "success": rng.random(size) < 0.4,
            "covered": rng.random(size) < 0.9,
        }

    @pytest.mark.parametrize("name", PAIRED)
    def test_the_same_images_measured_twice_do_not_differ(self, name: str) -> None:
        same = self.arrays(np.random.default_rng(0))
        assert paired_half_width(name, same, same) == 0

    @pytest.mark.parametrize("name", PAIRED)
    def test_pairs_that_share_noise_are_sharper_than_pairs_that_do_not(self, name: str) -> None:
        before, other = (self.arrays(np.random.default_rng(seed)) for seed in (0, 1))
        rng = np.random.default_rng(2)
        near = {key: np.where(rng.random(len(value)) < 0.05, other[key], value) for key, value in before.items()}
        widths = [paired_half_width(name, before, after) for after in (near, other)]
        assert 0 < widths[0] < widths[1]

    def test_other_sizes_and_metrics_that_are_not_kept_cannot_be_paired(self) -> None:
        few, many = (self.arrays(np.random.default_rng(0), size) for size in (30, 40))
        assert all(paired_half_width(name, few, many) is None for name in self.PAIRED)
        assert paired_half_width("nll", few, few) is None
        assert paired_half_width("nll_scaled", few, few) is None
        assert paired_half_width("oscr", few, few) is None
        assert paired_half_width("no-such-metric", few, few) is None


def test_a_sample_without_what_a_kernel_reads_is_one_sentence() -> None:
    with pytest.raises(GauntletError, match="'ece' needs reliability, and the sample has ranking"):
        estimate(["ece"], Scores([0.0], [1.0]))
    with pytest.raises(GauntletError, match="Unknown metric 'auorc'; did you mean 'auroc'"):
        estimate(["auorc"], Scores([0.0], [1.0]))
    with pytest.raises(GauntletError, match="one outcome per ID score, got 2 for 1"):
        Scores([0.0], [1.0], [True, False])
    assert metric_named("auroc@near").title == "AUROC"
