"""The seed of a model from a file: it draws the dropout passes, whichever seed ran first."""

from __future__ import annotations

import numpy as np
import torch

from gauntlet.bench.runner import run_suite
from gauntlet.models.cnn_small import CNNSmall
from gauntlet.results.frame import load_results
from gauntlet.results.store import Store

from .conftest import small_suite


def scores(tmp_path, monkeypatch, name: str, seeds: list[int]) -> dict[int, np.ndarray]:
    monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / f"cache {name}"))
    path = tmp_path / "weights.pt"
    if not path.exists():
        torch.manual_seed(0)
        torch.save(CNNSmall().state_dict(), path)
    suite = small_suite(
        models=[{"name": "cnn-small", "label": "CNN", "weights": str(path)}],
        ood={"far": [{"uniform-noise": {"limit": 100}}]},
        detectors=["mc-dropout"],
        evaluators=["ood"],
        attacks=None,
        seeds=seeds,
    )
    run_suite(suite, out=tmp_path / name)
    keys = load_results(tmp_path / name).drop_duplicates("key").set_index("seed")["key"]
    with Store.open(tmp_path / name / "store.sqlite") as store:
        return {seed: store.result(keys[seed]).arrays["id_score"] for seed in seeds}


def test_dropout_passes_follow_the_seed_and_not_the_order(tmp_path, monkeypatch) -> None:
    there, back = (scores(tmp_path, monkeypatch, *run) for run in [("there", [0, 1]), ("back", [1, 0])])
    assert not np.array_equal(there[0], there[1])
    for seed in (0, 1):
        np.testing.assert_array_equal(there[seed], back[seed])
