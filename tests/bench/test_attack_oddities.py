"""Attacks in a suite: NaN logits, NaN gradients, classes too few for a loss, an attack that writes into its images."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from gauntlet.bench.runner import run_suite
from gauntlet.results import load_results
from gauntlet.results.footnotes import failed_checks, footnotes

from .conftest import small_suite

#: The distance to the mean image of each class, changed by BEFORE and AFTER.
PLUGIN = '''
import torch
from gauntlet import attack, dataset, model
from gauntlet.attacks import Attack
from gauntlet.datasets.digits import digits
from torch import nn

@dataset("few-digits", splits=("train", "test"), classes=tuple("012"[:COUNT]), shape=(1, 28, 28))
def few_digits(split):
    """Digits of the first classes."""
    data = digits(split)
    kept = data.labels < COUNT
    return data.images[kept], data.labels[kept]

@model("nearest-mean", trained=True)
class NearestMean(nn.Module):
    """One linear layer."""

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        data = digits("train")
        means = torch.stack([data.images[data.labels == k].float().mean(0).flatten() for k in range(classes)])
        self.layer = nn.Linear(784, classes)
        self.layer.weight.data, self.layer.bias.data = 2 * means, -means.square().sum(1)

    def forward(self, images):
        logits = self.layer((BEFORE).flatten(1))
        return AFTER
'''

ERASER = '''
@attack("eraser", norm="linf")
def eraser(images, epsilon):
    """Blackens what it is given."""
    made = (images + epsilon).clamp(0, 1)
    images.zero_()
    return made
'''
#: NaN as soon as an image leaves the grid of 8-bit values, as a table look-up would give.
OFF_GRID = "(images * 255 - (images * 255).round()).abs().flatten(1).amax(1) > 0.02"
BREAKS = "torch.where(({})[:, None], torch.nan, logits)"


def frame_of(
    tmp_path: Any,
    write_plugin: Any,
    *attacks: Any,
    before: str = "images",
    after: str = "logits",
    classes: int = 10,
    **more: Any,
) -> pd.DataFrame:
    changes = {"BEFORE": before, "AFTER": after, "COUNT": str(min(classes, 3))}
    source = PLUGIN + (ERASER if "eraser" in attacks else "")
    for name, text in changes.items():
        source = source.replace(name, text)
    given: dict[str, Any] = {"epsilons": [0.05], "attack_images": 60, **more}
    suite = small_suite(
        datasets=["digits" if classes == 10 else "few-digits"],
        models=[{"name": "nearest-mean", "classes": classes}],
        attacks=list(attacks),
        evaluators=["accuracy", "attack", *(["checks"] if "checks" in more else [])],
        detectors=None,
        ood=None,
        **given,
    )
    run_suite(suite, out=tmp_path, plugins=[write_plugin(source)])
    return load_results(tmp_path)


def values(frame: pd.DataFrame, metric: str) -> dict[str, float]:
    rows = frame[(frame["evaluator"] == "attack") & (frame["metric"] == metric)]
    return dict(zip(rows["attack"], rows["value"], strict=True))


ATTACKS = ["pgd", "foolbox/linf/pgd", {"name": "square", "queries": 20, "label": "square"}]


def test_a_model_whose_logits_are_nan_under_attack_has_no_robust_figure(tmp_path, write_plugin) -> None:
    frame = frame_of(tmp_path, write_plugin, *ATTACKS, after=BREAKS.format(OFF_GRID))
    attacked = frame[frame["evaluator"] == "attack"]
    assert set(attacked["status"]) == {"failed"}
    assert attacked["reason"].str.contains(r"logits are NaN for \d+ of \d+ images: neither robust nor fooled").all()
    assert attacked["reason"].str.contains("up to 5% are only counted").all()


@pytest.mark.parametrize("which", ["pgd", "foolbox/linf/pgd"])
def test_a_few_images_with_nan_logits_are_neither_robust_nor_fooled(tmp_path, write_plugin, which) -> None:
    """Off the grid those with most ink break."""
    broken = BREAKS.format(f"({OFF_GRID}) & (images.flatten(1).sum(1) > 166)")
    plain, frame = (
        frame_of(tmp_path / name, write_plugin, which, after=after, attack_images=300)
        for name, after in (("plain", "logits"), ("odd", broken))
    )
    (share,) = values(frame, "broken_outputs").values()
    assert 0 < share <= 0.05
    robust, success = (values(frame, metric)[which] for metric in ("robust_accuracy", "attack_success_rate"))
    before, fooled = (values(plain, metric)[which] for metric in ("robust_accuracy", "attack_success_rate"))
    assert robust <= before
    assert success <= fooled
    # Both are of what the model got right: what is left of it is neither.
    assert robust / (1 - success - share) == pytest.approx(before / (1 - fooled))


def test_nan_gradients_cost_no_success_and_are_recorded_and_flagged(tmp_path, write_plugin) -> None:
    attacks = [
        "fgm-l2",
        {"name": "pgd", "norm": "l2", "label": "pgd-l2"},
        "ddn",
        {"name": "deepfool", "label": "deepfool"},
    ]
    bad = frame_of(
        tmp_path / "bad", write_plugin, *attacks, before="(images * images).sqrt()", checks="standard", epsilons=[2.0]
    )
    good = frame_of(tmp_path / "good", write_plugin, *attacks, before="(images * images + 1e-9).sqrt()", epsilons=[2.0])
    found, expected = (values(frame, "attack_success_rate") for frame in (bad, good))
    assert all(found[name] == pytest.approx(expected[name], abs=0.05) for name in expected)
    assert min(expected.values()) > 0.3
    assert all(0.1 < share < 0.9 for share in values(bad, "lost_gradients").values())
    assert len(values(bad, "lost_gradients")) == 4
    assert not values(good, "lost_gradients")
    checks = bad[(bad["evaluator"] == "checks") & (bad["metric"] == "check_passed")].set_index("attack")["value"]
    assert checks["finite-gradients"] == 0
    assert checks["gradients"] == 1
    assert "NaN or infinite at" in bad[bad["attack"] == "finite-gradients"]["reason"].iloc[0]


@pytest.mark.parametrize(("classes", "skipped"), [(2, ["apgd-dlr", "apgd-t", "pgd-dlr"]), (3, ["apgd-t"])])
def test_what_few_classes_leave_out_is_skipped_beforehand_and_the_worst_case_is_of_the_rest(
    tmp_path, write_plugin, classes, skipped
) -> None:
    few = [{"name": name, "steps": 3, "label": name} for name in ("apgd-dlr", "apgd-t")]
    auto = {"name": "autoattack", "steps": 3, "queries": 10, "label": "autoattack"}
    attacks = ["pgd", *few, {"name": "pgd", "loss": "dlr", "label": "pgd-dlr"}, auto]
    frame = frame_of(tmp_path, write_plugin, *attacks, classes=classes, worst_case=True)
    lost = frame[(frame["status"] == "skipped") & (frame["role"] == "measured")]
    assert sorted(lost["attack"]) == sorted(skipped)
    assert lost["reason"].str.contains(f"needs at least [34] classes .* the model has {classes}").all()
    robust = values(frame, "robust_accuracy")
    assert robust["worst-case linf"] <= min(value for name, value in robust.items() if name != "worst-case linf")
    found = [(note.rows, note.text) for note in footnotes(frame, failed_checks(frame))]
    said = {text: set(frame[mask]["attack"]) for mask, text in found}
    assert {"worst-case linf"} in said.values()
    assert all(name in next(text for text, who in said.items() if who == {"worst-case linf"}) for name in skipped)
    assert any("autoattack" in who and "Without apgd-t (needs at least 4 classes" in text for text, who in said.items())


def test_an_attack_that_writes_into_its_images_fails_by_name_and_changes_no_other(tmp_path, write_plugin) -> None:
    alone = frame_of(tmp_path / "alone", write_plugin, "fgsm", "pgd")
    frame = frame_of(tmp_path, write_plugin, "eraser", "fgsm", "pgd")
    failed = frame[frame["attack"] == "eraser"]
    assert set(failed["status"]) == {"failed"}
    assert "eraser" in failed["reason"].iloc[0]
    assert "writes into the images" in failed["reason"].iloc[0]
    robust = values(frame, "robust_accuracy")
    assert values(alone, "robust_accuracy") == {name: robust[name] for name in ("fgsm", "pgd")}
