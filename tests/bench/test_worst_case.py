"""Worst-case rows: an image survives if it survives every attack of the norm."""

from __future__ import annotations

import numpy as np
import pytest

from gauntlet.bench.evaluators.base import proportion
from gauntlet.bench.evaluators.worst_case import _joined
from gauntlet.bench.runner import run_suite
from gauntlet.registry import GauntletError
from gauntlet.results.frame import load_results
from gauntlet.results.records import CellResult
from gauntlet.results.store import Store

from .conftest import small_suite

ATTACKS = [
    {"name": "fgsm", "label": "A"},
    {"name": "uniform-noise", "label": "B", "repeats": 5},
    {"name": "pgd", "label": "C", "norm": "l2", "steps": 3},
]


def suite(**changes):
    values = {"evaluators": ["attack"], "detectors": None, "ood": None, "attacks": ATTACKS, "epsilons": [0, 0.1, 0.2]}
    return small_suite(**{**values, "worst_case": True, **changes})


def robust(out, attack):
    frame = load_results(out)
    rows = frame[(frame["metric"] == "robust_accuracy") & (frame["attack"] == attack)]
    return rows.set_index("epsilon")["value"].to_dict()


def test_a_norm_with_several_attacks_gets_a_row_for_each_positive_epsilon(tmp_path) -> None:
    run_suite(suite(), out=tmp_path)
    worst, parts = robust(tmp_path, "worst-case linf"), [robust(tmp_path, name) for name in "AB"]
    assert sorted(worst) == [0.1, 0.2]
    assert all(value <= min(part[epsilon] for part in parts) for epsilon, value in worst.items())
    assert robust(tmp_path, "worst-case l2") == {}  # one attack alone is its own worst case


def test_survivors_are_joined_image_by_image(tmp_path) -> None:
    run_suite(suite(epsilons=[0.15]), out=tmp_path)
    frame = load_results(tmp_path)
    keys = {attack: rows["key"].iloc[0] for attack, rows in frame.groupby("attack")}
    with Store.open(tmp_path / "store.sqlite") as store:
        a, b, joined = (store.result(keys[name]).arrays for name in ("A", "B", "worst-case linf"))
    assert np.array_equal(a["attacked"], joined["attacked"])
    assert np.array_equal(a["success"] | b["success"], joined["success"])
    row = frame[(frame["attack"] == "worst-case linf") & (frame["metric"] == "robust_accuracy")].iloc[0]
    assert row["value"] == pytest.approx((~joined["success"]).sum() / 40)
    assert row["norm"] == "linf"
    assert row["n"] == 40


def test_attacks_on_fewer_images_are_joined_on_the_images_they_share(tmp_path) -> None:
    attacks = [{"name": "fgsm", "label": "A"}, {"name": "square", "label": "B", "queries": 5}]
    run_suite(suite(attacks=attacks, epsilons=[0.1], attack_images={"fast": 40, "full": 10}), out=tmp_path)
    frame = load_results(tmp_path)
    rows = frame[frame["metric"] == "robust_accuracy"].set_index("attack")["n"]
    assert rows.to_dict() == {"A": 40, "B": 10, "worst-case linf": 10}


def test_the_suite_may_name_the_attacks_or_turn_the_rows_off(tmp_path) -> None:
    third = {"name": "bim", "label": "D", "steps": 2}
    run_suite(suite(attacks=[*ATTACKS, third], worst_case={"linf": ["A", "B"]}, epsilons=[0.1]), out=tmp_path / "named")
    frame = load_results(tmp_path / "named")
    (params,) = set(frame[frame["attack"] == "worst-case linf"]["params"])
    assert '"of"' in params
    assert '"D"' not in params
    run_suite(suite(worst_case=False), out=tmp_path / "off")
    assert set(load_results(tmp_path / "off")["attack"]) == {"A", "B", "C"}


def test_an_unknown_label_is_one_sentence() -> None:
    with pytest.raises(GauntletError, match="no attack 'Z' of norm linf"):
        run_suite(suite(worst_case={"linf": ["A", "Z"]}), out="unused")


def test_a_row_waits_for_its_parts(tmp_path, write_plugin) -> None:
    """A part that failed leaves the row skipped, with the reason; it is joined once the part is there."""
    plugin = write_plugin(
        """
        from pathlib import Path
        from gauntlet import attack
        from gauntlet.attacks.fgsm import FGSM

        @attack("moody", norm="linf", kind="fixed", access="gradient", cost="fast")
        class Moody(FGSM):
            def attack(self, *arguments):
                if not Path(__file__).with_suffix(".calm").exists():
                    raise ValueError("not today")
                return super().attack(*arguments)
        """
    )
    chosen = suite(attacks=[ATTACKS[0], {"name": "moody", "label": "M"}], epsilons=[0.1])
    assert run_suite(chosen, out=tmp_path, plugins=[plugin]).counts == {"ok": 1, "failed": 1, "skipped": 1}
    frame = load_results(tmp_path)
    assert "1 of the 2 attacks" in frame[frame["attack"] == "worst-case linf"]["reason"].iloc[0]
    (tmp_path / "plugin.calm").touch()
    assert run_suite(chosen, out=tmp_path, plugins=[plugin]).counts == {"ok": 2, "cached": 1}


@pytest.mark.parametrize("turned", [False, True])
def test_nothing_survives_where_the_model_gets_no_shared_image_right(turned) -> None:
    """A part on few images, none of which the model gets right, has no arrays; the order of the parts is nothing."""
    attacked = np.arange(20) >= 5
    arrays = {"index": np.arange(20), "attacked": attacked, "success": np.zeros(15, dtype=bool)}
    many = CellResult(measurements=(proportion("robust_accuracy", 15, 20),), arrays=arrays)
    few = CellResult(measurements=(proportion("robust_accuracy", 0, 5),))
    (found,) = _joined([few, many] if turned else [many, few]).measurements
    assert (found.metric, found.value, found.n) == ("robust_accuracy", 0, 5)
