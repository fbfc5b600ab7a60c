"""Detectors under attack: worst cases beside clean figures, and scores whose gradients attacks do not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from gauntlet.attacks import PerImageRNG, build_attack
from gauntlet.attacks.score import JointVictim, ScoreVictim
from gauntlet.bench.runner import run_suite
from gauntlet.registry import ATTACKS, REGISTRIES, load_plugins
from gauntlet.results.frame import load_results
from gauntlet.results.presets import PRESETS
from gauntlet.results.store import Store

ROUNDED = """
from gauntlet import detector

@detector("rounded", needs="logits")
def rounded(logits):
    '''Minus the largest logit in whole numbers: its gradient is 0.'''
    return -logits.amax(1).round()
"""
SUITE = {
    "name": "robust",
    "datasets": [{"name": "digits", "limit": 500}],
    "models": [{"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 10}}}],
    "evaluators": ["robust-ood"],
    "detectors": ["max-logit", "rounded", "openmax"],
    "ood": ["glyphs"],
    "attacks": [{"name": "pgd", "steps": 5}],
    "epsilons": [0.05, 0.2],
    "attack_images": 20,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The suite above, run once: its frame, and the arrays of each cell by key."""
    folder = tmp_path_factory.mktemp("robust")
    (folder / "rounded.py").write_text(ROUNDED, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUNTLET_CACHE", str(folder / "cache"))
        patch.delenv("GAUNTLET_DATA", raising=False)
        load_plugins([str(folder / "rounded.py")], [*REGISTRIES.values()])
        outcome = run_suite(SUITE, out=folder)
    frame = load_results(folder)
    assert outcome.complete, frame[["detector", "status", "reason"]].to_string()
    with Store.open(folder / "store.sqlite") as store:
        arrays = {key: store.arrays(key) for key in frame["key"].unique()}
    return frame, arrays


def test_an_attacked_auroc_is_that_of_the_arrays_and_never_above_the_clean_one(found):
    frame, arrays = found
    for key, cell in frame.groupby("key"):
        value, known = cell.set_index("metric")["value"], arrays[key]
        low, high = known["ood_attacked_score"], known["id_attacked_score"]
        truth = np.r_[np.zeros(len(high)), np.ones(len(low))]
        assert value["adaptive_auroc"] == pytest.approx(roc_auc_score(truth, np.r_[high, low]))
        assert (low <= known["ood_score"]).all()
        assert (high >= known["id_score"]).all()
        assert value["adaptive_auroc"] <= min(value["ood_attacked_auroc"], value["id_attacked_auroc"])
        assert max(value["ood_attacked_auroc"], value["id_attacked_auroc"]) <= value["auroc"]


def test_a_larger_budget_is_no_weaker_and_the_attack_works(found):
    frame, _ = found
    rows = frame[(frame["metric"] == "adaptive_auroc") & (frame["detector"] == "max-logit")].set_index("epsilon")
    clean = frame[(frame["metric"] == "auroc") & (frame["detector"] == "max-logit")]["value"].iloc[0]
    assert rows["value"][0.2] < rows["value"][0.05] < clean
    assert rows["value"][0.2] < 0.5


def test_a_rounded_score_is_flagged_and_attacked_from_outside_all_the_same(found):
    frame, _ = found
    rows = frame[frame["detector"] == "rounded"]
    assert rows["reason"].str.startswith("The gradient of the score of rounded is 0 for 100% of the images").all()
    value = rows[rows["epsilon"] == 0.2].set_index("metric")["value"]
    assert value["adaptive_auroc"] < value["auroc"] - 0.1


def test_a_score_without_gradient_says_what_is_done_instead(found):
    frame, _ = found
    (reason,) = frame[frame["detector"] == "openmax"]["reason"].unique()
    assert "openmax" in reason
    assert reason.endswith("attacked from outside, by transfer from the largest probability and by square search.")
    assert set(frame[frame["detector"] == "max-logit"]["reason"]) == {""}


def test_accepted_and_wrong_is_measured_where_both_have_gradients(found):
    frame, _ = found
    rows = frame[frame["metric"] == "accepted_and_wrong"]
    assert set(rows["detector"]) == {"max-logit"}
    by_epsilon = rows.set_index("epsilon")["value"]
    assert by_epsilon[0.05] <= by_epsilon[0.2]


def test_the_table_shows_clean_and_worst_case_side_by_side(found):
    frame, _ = found
    (table,) = PRESETS["robust-ood"](frame)
    assert table.title.startswith("OOD detection under attack on digits")


#: Two pixels; the logits are the pixels, and so is the score of the first one.
NET = torch.nn.Flatten()


def test_every_attack_of_a_loss_reaches_the_optimum_of_a_linear_score():
    images = torch.full((3, 1, 1, 2), 0.5)
    climbing = [entry for entry in ATTACKS if entry.meta.get("loss") == "any" and entry.plugin is None]
    for entry in climbing:
        if entry.meta.get("access") == "none" or "linf" not in entry.meta.get("norms", ()):
            continue
        with ScoreVictim(NET, lambda x: x.flatten(1)[:, 0], scale=0.1) as victim:
            for label, end in ((0, 0.7), (1, 0.3)):
                labels = torch.full((3,), label)
                (made,) = build_attack(entry, {}).run(
                    victim, images, labels, [0.2], rng=PerImageRNG("t", torch.arange(3))
                )
                assert made.images[:, 0, 0, 0].tolist() == pytest.approx([end] * 3, abs=1e-5), entry.name
                assert not made.success.any()


def test_together_an_image_must_be_accepted_and_wrong():
    settings = {"threshold": 0.62, "scale": 1.0}
    with JointVictim(NET, lambda x: x.flatten(1)[:, 1], **settings) as victim:
        images = torch.tensor([[0.6, 0.5], [0.4, 0.9], [0.5, 0.6]]).view(3, 1, 1, 2)
        # Right and accepted; wrong and rejected; wrong and accepted.
        assert victim.fooled(images, torch.zeros(3, dtype=torch.int64)).tolist() == [False, False, True]
        start, labels = images[:1], torch.zeros(1, dtype=torch.int64)
        (made,) = build_attack(ATTACKS.get("pgd"), {}).run(
            victim, start, labels, [0.1], rng=PerImageRNG("t", torch.arange(1))
        )
        assert made.success.tolist() == [True]
        assert made.images.flatten()[1] <= 0.62
