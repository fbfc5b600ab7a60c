"""A metric of a plug-in is one decorated kernel: it joins the evaluators that have such a sample."""

from __future__ import annotations

import numpy as np

from gauntlet.bench.runner import run_suite
from gauntlet.results import METRICS, load_results, metric_named

from .conftest import small_suite

METRIC_FILE = '''
from gauntlet import metric
from gauntlet.results.metrics.detection import flagged_at


@metric("fpr80", title="FPR80", higher_is_better=False)
def fpr80(ranking):
    """Share of ID images flagged at the highest threshold that catches at least 80 % of the OOD images."""
    return flagged_at(ranking, 80)


@metric("wrong_above_90", evaluators=("ood", "adversarial-detection"))
def nowhere(reliability):
    """A metric of confidences that names evaluators without any."""
    return reliability.gap.max(-1)


@metric("overconfidence", higher_is_better=False, percent=False)
def overconfidence(reliability):
    """Sum over bins of how far confidence is above accuracy."""
    excess = (reliability.confidences - reliability.right).clip(0)
    return {factor} * excess.sum(-1) / reliability.size.sum(-1)
'''


def test_its_values_and_intervals_stand_beside_the_others_and_only_its_cells_are_new(tmp_path, write_plugin) -> None:
    suite = small_suite(attacks=None, epsilons=None)
    plain = run_suite(suite, out=tmp_path)
    added = run_suite(suite, out=tmp_path, plugins=[write_plugin(METRIC_FILE.replace("{factor}", "1"))])
    assert added.counts == {"cached": 1, "ok": plain.counts["ok"] - 1}  # the accuracy has no such sample
    frame = load_results(tmp_path)
    rows = frame[frame["metric"] == "fpr80"]
    assert len(rows) == (frame["metric"] == "fpr95").sum() > 0
    assert ((rows["ci_low"] <= rows["value"]) & (rows["value"] <= rows["ci_high"])).all()
    with_sibling = rows.merge(frame[frame["metric"] == "fpr95"], on="key")
    assert (with_sibling["value_x"] <= with_sibling["value_y"]).all()
    (overconfidence,) = frame[frame["metric"] == "overconfidence"]["value"]
    value = dict(zip(frame["metric"], frame["value"], strict=True))
    np.testing.assert_allclose(2 * overconfidence, value["ece"] + value["signed_gap"], atol=1e-12)
    assert "wrong_above_90" not in set(frame["metric"])
    known = metric_named("fpr80")
    assert (known.title, known.higher_is_better, known.interval) == ("FPR80", False, "bootstrap")
    assert known.description.startswith("Share of ID images flagged")
    assert "fpr80" in METRICS


def test_a_changed_kernel_computes_its_cells_anew(tmp_path, write_plugin) -> None:
    suite = small_suite(attacks=None, epsilons=None, detectors=None, ood=None)
    first = write_plugin(METRIC_FILE.replace("{factor}", "1"))
    run_suite(suite, out=tmp_path, plugins=[first])
    assert run_suite(suite, out=tmp_path, plugins=[first]).counts == {"cached": 2}
    before = load_results(tmp_path).set_index("metric")["value"]["overconfidence"]
    doubled = write_plugin(METRIC_FILE.replace("{factor}", "2"))
    assert run_suite(suite, out=tmp_path, plugins=[doubled]).counts == {"cached": 1, "ok": 1}
    assert load_results(tmp_path).set_index("metric")["value"]["overconfidence"] == 2 * before
