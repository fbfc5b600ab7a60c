"""The runner: each cell once, stored at once, failing alone, and the same table whatever happened on the way."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from gauntlet.bench.execution import Reporter
from gauntlet.bench.runner import run_suite
from gauntlet.datasets import ResolvedDataset
from gauntlet.registry import ATTACKS, GauntletError
from gauntlet.results.frame import COLUMNS, load_results, read_csv
from gauntlet.results.store import Store

from .conftest import small_suite

VALUES = [
    "evaluator",
    "model",
    "dataset",
    "detector",
    "attack",
    "epsilon",
    "ood_dataset",
    "class",
    "metric",
    "value",
    "n",
]


def values(out: Path) -> pd.DataFrame:
    """What a run measured, without times, keys and run ids."""
    frame = load_results(out)
    return frame[[*VALUES, "ci_low", "ci_high", "status"]].sort_values(VALUES[:9], ignore_index=True)


def test_a_run_measures_every_cell_and_writes_the_tidy_frame_and_the_tables(tmp_path):
    outcome = run_suite(small_suite(), out=tmp_path)
    assert outcome.complete
    assert outcome.counts == {"ok": 10}
    frame = read_csv(tmp_path / "results.csv")
    assert tuple(frame.columns) == tuple(COLUMNS)
    assert set(frame["status"]) == {"ok"}
    for name in ("attack-grid", "ood", "calibration"):
        assert (tmp_path / f"{name}.md").read_text(encoding="utf-8").count("|") > 5
        assert "\\toprule" in (tmp_path / f"{name}.tex").read_text(encoding="utf-8")
    bounded = frame[frame["metric"].isin(["accuracy", "robust_accuracy", "auroc", "fpr95", "ece"])]
    assert len(bounded)
    assert (bounded["ci_low"] <= bounded["value"]).all()
    assert (bounded["value"] <= bounded["ci_high"]).all()
    assert (bounded["ci_low"] < bounded["ci_high"]).all(), "an interval never has zero width by accident"
    assert (bounded["n"] > 0).all()
    per_class = frame[(frame["metric"] == "accuracy") & (frame["class"] != "")]
    assert sorted(per_class["class"]) == [str(digit) for digit in range(10)]


def test_epsilon_zero_gives_clean_accuracy_on_the_attacked_images(tmp_path):
    run_suite(small_suite(), out=tmp_path)
    frame = load_results(tmp_path)
    zero = frame[(frame["metric"] == "robust_accuracy") & (frame["epsilon"] == 0)]
    assert zero["value"].nunique() == 1
    with Store.open(tmp_path / "store.sqlite") as store:
        for key in zero["key"]:
            arrays = store.arrays(key)
            assert not arrays["success"].any()
            assert np.isclose(arrays["attacked"].mean(), zero["value"].iloc[0])


def test_each_split_goes_through_the_model_once(tmp_path, forwards, own_cache):
    run_suite(small_suite(attacks=None, epsilons=None), out=tmp_path)  # trains, if no test before did
    shutil.rmtree(own_cache / "outputs")
    forwards.clear()
    again = small_suite(
        attacks=None,
        epsilons=None,
        detectors=["msp", "energy", "entropy", "mahalanobis", {"knn": {"k": 7}}, {"knn": {"k": 9}}],
    )
    run_suite(again, out=tmp_path / "again")
    test, val, train, glyphs, noise = 540, 180, 1077, 100, 100
    probes = (
        2 + 4 + 4 + 16
    )  # does the model fit the data; which layer is the last; is it the head; is it the same model
    assert sum(forwards) == test + val + train + glyphs + noise + probes


def test_a_new_detector_costs_no_forward_pass(tmp_path, forwards):
    """Outputs come from the disk; whatever the detector, its numbers are those of a run that made its own passes."""
    suite = {"attacks": None, "epsilons": None}
    run_suite(small_suite(**suite, detectors=["msp", "vim", {"knn": {"k": 5}}]), out=tmp_path / "first")
    forwards.clear()
    outcome = run_suite(small_suite(**suite, detectors=["msp", "energy", "mahalanobis", "dice"]), out=tmp_path / "new")
    assert outcome.complete
    assert forwards == [16]  # nothing but the probe that tells whether it is the same model


def test_a_new_detector_loads_no_image_and_no_attack(tmp_path, write_plugin, monkeypatch):
    suite = small_suite(attacks=None, epsilons=None)
    run_suite(suite, out=tmp_path)
    plugin = write_plugin('''
        from gauntlet import detector

        @detector("own-energy")
        def own_energy(logits):
            """Energy."""
            return -logits.logsumexp(1)
    ''')

    def refuse(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(ResolvedDataset, "load", refuse)
    monkeypatch.setattr(ATTACKS, "discover", refuse)
    assert run_suite(suite, out=tmp_path, plugins=[plugin]).counts["ok"] == 2


def test_a_second_run_computes_nothing_and_gives_the_same_table(tmp_path, forwards):
    first = run_suite(small_suite(), out=tmp_path)
    before = values(tmp_path)
    forwards.clear()
    second = run_suite(small_suite(), out=tmp_path)
    assert forwards == [16]  # the probe
    assert second.counts == {"cached": first.counts["ok"]}
    pd.testing.assert_frame_equal(values(tmp_path), before)


def test_the_same_suite_repeats_bit_for_bit_and_batch_size_changes_no_count(tmp_path):
    run_suite(small_suite(), out=tmp_path / "one")
    run_suite(small_suite(), out=tmp_path / "two")
    pd.testing.assert_frame_equal(values(tmp_path / "one"), values(tmp_path / "two"))
    run_suite(small_suite(batch_size=33), out=tmp_path / "three")
    pd.testing.assert_frame_equal(values(tmp_path / "one"), values(tmp_path / "three"), rtol=1e-4)


def test_the_six_lines_of_the_readme_join_and_compute_their_own_cells_only(tmp_path, write_plugin):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = readme.split("`neg_margin.py`", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    assert len(code.splitlines()) <= 6
    run_suite(small_suite(), out=tmp_path)
    plugin = write_plugin(code)
    outcome = run_suite(small_suite(), out=tmp_path, plugins=[plugin])
    assert outcome.counts == {"cached": 10, "ok": 2}
    assert "neg-margin" in set(load_results(tmp_path)["detector"])
    assert "neg-margin" in (tmp_path / "ood.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('no idea')", "bad: ValueError: no idea"),
        ("return logits[:, 0] * float('nan')", "Detector 'bad' gave 540 of 540 scores that are not finite"),
        ("return logits[:, 0] / 0", "scores that are not finite"),
        ("return logits", "gave scores of shape (540, 10)"),
    ],
)
def test_a_failing_detector_takes_only_its_own_cells_with_it(tmp_path, write_plugin, body, reason):
    plugin = write_plugin(f"from gauntlet import detector\n@detector('bad')\ndef bad(logits):\n    {body}\n")
    outcome = run_suite(small_suite(attacks=None, epsilons=None), out=tmp_path, plugins=[plugin])
    assert outcome.counts == {"ok": 6, "failed": 2}
    assert not outcome.complete
    frame = load_results(tmp_path)
    failed = frame[frame["status"] == "failed"]
    assert set(failed["detector"]) == {"bad"}
    assert failed["value"].isna().all()
    assert failed["reason"].str.contains(reason, regex=False).all()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("open('absent.npy')", "FileNotFoundError: "),
        ("return np.full((4, 8, 8), 255.0)", "in [0, 1], got values from 255 to 255"),
        ("return np.zeros((4, 8, 9, 9))", "cannot be converted from 8x9x9"),
        ("return np.zeros((4, 8, 8, 3))", "put channels first"),
        ("return np.zeros((4, 8, 8)), [0, 1]", "labels must be (4,) int64"),
    ],
)
def test_a_broken_set_of_a_plugin_takes_only_its_own_cells_with_it(tmp_path, write_plugin, body, reason):
    code = "import numpy as np\nfrom gauntlet import dataset\n@dataset('bad', splits=('train', 'test'))\n"
    plugin = write_plugin(f"{code}def bad(split):\n    {body}\n")
    ood = ["bad", {"uniform-noise": {"limit": 100}}]
    suite = small_suite(datasets=["digits", "bad"], detectors=["msp"], ood=ood, attacks=None, epsilons=None)
    run_suite(suite, out=tmp_path, plugins=[plugin])
    cells = load_results(tmp_path).drop_duplicates("key")
    own = (cells["dataset"] == "bad") | (cells["ood_dataset"] == "bad")
    assert set(cells[~own]["status"]) == {"ok"}
    if "cannot be converted" in reason:  # as an ID set these are images of eight channels
        own &= cells["dataset"] != "bad"
    assert set(cells[own]["status"]) == {"failed"}
    assert all("'bad'" in said and reason in said and "plugin.py:3" in said for said in cells[own]["reason"])


def test_failed_cells_are_tried_again_by_the_next_run(tmp_path, write_plugin):
    flag = tmp_path / "mended"
    plugin = write_plugin(
        f"""
        from pathlib import Path
        from gauntlet import detector
        @detector("flaky")
        def flaky(logits):
            assert Path({str(flag)!r}).exists(), "not yet"
            return -logits.max(1).values
        """
    )
    suite = small_suite(attacks=None, epsilons=None)
    assert run_suite(suite, out=tmp_path, plugins=[plugin]).counts["failed"] == 2
    flag.touch()
    assert run_suite(suite, out=tmp_path, plugins=[plugin]).counts == {"cached": 6, "ok": 2}


ATTACK = '''
import torch
from gauntlet import attack
from gauntlet.attacks import Attack, AttackResult

@attack("mine", norm="linf", kind="fixed", access="none")
class Mine(Attack):
    """An attack of a test."""
    norm, kind = "linf", "fixed"

    def attack(self, victim, images, labels, epsilons, rng):
        return [AttackResult(epsilon, self.move(victim, images, epsilon), torch.ones(len(labels), dtype=bool),
                torch.zeros(len(labels)), 0, 0) for epsilon in epsilons]

    def move(self, victim, images, epsilon):
        {body}
'''


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return (images + 2 * epsilon).clamp(0, 1)", "0.2"),
        ("return images - epsilon", "[0, 1]"),
        ("return images * float('nan')", "hold NaN or infinite pixels"),
        ("raise RuntimeError('boom')", "mine: RuntimeError: boom"),
    ],
)
def test_an_attack_that_breaks_the_rules_fails_alone(tmp_path, write_plugin, body, reason):
    plugin = write_plugin(ATTACK.format(body=body))
    outcome = run_suite(small_suite(epsilons=[0.1]), out=tmp_path, plugins=[plugin])
    assert outcome.counts == {"ok": 8, "failed": 1}
    frame = load_results(tmp_path)
    (row,) = frame[frame["status"] == "failed"].to_dict("records")
    assert row["attack"] == "mine"
    assert reason in row["reason"]


def test_success_is_recomputed_and_not_believed(tmp_path, write_plugin):
    plugin = write_plugin(ATTACK.format(body="return images.clone()"))
    run_suite(small_suite(epsilons=[0.1]), out=tmp_path, plugins=[plugin])
    frame = load_results(tmp_path)
    mine = frame[(frame["attack"] == "mine") & (frame["metric"] == "attack_success_rate")]
    assert mine["value"].tolist() == [0.0]


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path, write_plugin):
    body = """
        if victim.batch_size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.clone()"""
    plugin = write_plugin(ATTACK.format(body=body.strip()))
    outcome = run_suite(small_suite(epsilons=[0.1]), out=tmp_path, plugins=[plugin])
    assert outcome.counts == {"ok": 9}


def test_out_of_memory_with_one_image_is_the_status_of_its_cells(tmp_path, write_plugin):
    plugin = write_plugin(ATTACK.format(body='raise torch.OutOfMemoryError("CUDA out of memory")'))
    outcome = run_suite(small_suite(epsilons=[0.1]), out=tmp_path, plugins=[plugin])
    assert outcome.counts == {"ok": 8, "out-of-memory": 1}


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="time limits need SIGALRM")
def test_a_job_that_passes_its_time_limit_fails_alone(tmp_path, write_plugin):
    plugin = write_plugin(ATTACK.format(body="\n        while True: images.sum()"))
    run_suite(small_suite(epsilons=[0.1]), out=tmp_path)  # trains, so that the limit meets the attack alone
    started = time.monotonic()
    outcome = run_suite(small_suite(epsilons=[0.1], timeout=2), out=tmp_path, plugins=[plugin])
    assert outcome.counts == {"cached": 8, "timeout": 1}
    assert time.monotonic() - started < 20
    frame = load_results(tmp_path)
    assert frame[frame["status"] == "timeout"]["reason"].tolist() == ["mine passed its time limit of 2 s."]


def test_what_is_absent_is_skipped_with_a_reason_and_does_not_spoil_the_exit_status(tmp_path):
    outcome = run_suite(small_suite(ood=["notmnist", {"uniform-noise": {"limit": 100}}]), out=tmp_path)
    assert outcome.counts == {"ok": 8, "skipped": 2}
    assert outcome.complete
    frame = load_results(tmp_path)
    skipped = frame[frame["status"] == "skipped"]
    assert set(skipped["ood_dataset"]) == {"notmnist"}
    assert skipped["reason"].str.contains("notMNIST").all()
    assert "skipped" in (tmp_path / "ood.md").read_text(encoding="utf-8")


def test_a_model_without_a_head_skips_head_detectors(tmp_path, write_plugin):
    plugin = write_plugin(
        """
        import torch
        from gauntlet import detector, model

        @model("no-head")
        class NoHead(torch.nn.Module):
            def __init__(self, *, classes: int = 10):
                super().__init__()
                self.conv = torch.nn.Conv2d(1, classes, 7, stride=7)
            def forward(self, x):
                return self.conv(x).mean((2, 3))

        @detector("head-energy")
        def head_energy(features, head):
            return -(features @ head.weight.T + head.bias).logsumexp(1)
        """
    )
    suite = small_suite(
        attacks=None,
        epsilons=None,
        models=[{"name": "no-head", "recipe": {"standard": {"epochs": 1}}}],
        detectors=["msp", {"knn": {"k": 5}}, "head-energy"],
    )
    outcome = run_suite(suite, out=tmp_path, plugins=[plugin])
    frame = load_results(tmp_path)
    reasons = frame[frame["status"] == "skipped"].groupby("detector")["reason"].first()
    assert "no final linear layer" in reasons["head-energy"]
    assert "features" in reasons["knn k=5"]
    assert outcome.complete


def test_a_diverging_training_is_one_sentence_and_other_rows_go_on(tmp_path):
    bad = {"name": "cnn-small", "label": "bad", "recipe": {"standard": {"epochs": 2, "optimizer": "sgd", "lr": 1e9}}}
    good = small_suite()["models"][0]
    outcome = run_suite(small_suite(models=[bad, good], attacks=None, epsilons=None), out=tmp_path)
    frame = load_results(tmp_path)
    failed = frame[frame["status"] == "failed"]
    assert set(failed["model"]) == {"bad"}
    assert failed["reason"].str.contains("Training diverged").all()
    assert outcome.counts["ok"] == 6


def test_class_count_mismatch_is_one_sentence(tmp_path, write_plugin):
    plugin = write_plugin(
        "import torch\nfrom gauntlet import model\n"
        "@model('seven', trained=True)\ndef seven():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 7))\n"
    )
    suite = small_suite(models=["seven"], attacks=None, epsilons=None, detectors=None, ood=None)
    run_suite(suite, out=tmp_path, plugins=[plugin])
    reasons = set(load_results(tmp_path)["reason"])
    assert reasons == {
        "Model 'seven' gives 7 logits but dataset 'digits' has 10 classes; set the model's number of classes, or "
        "choose another dataset."
    }


class StopAfter(Reporter):
    """Presses Ctrl-C after some cells."""

    def __init__(self, cells: int) -> None:
        self._left = cells

    def cell(self, key: str, result: Any) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_completes_the_table(tmp_path):
    outcome = run_suite(small_suite(), out=tmp_path / "stopped", reporter=StopAfter(4))
    assert outcome.interrupted
    assert not outcome.complete
    statuses = load_results(tmp_path / "stopped").groupby("key")["status"].first().value_counts()
    assert statuses.to_dict() == {"ok": 4, "missing": 6}
    assert run_suite(small_suite(), out=tmp_path / "stopped").counts == {"cached": 4, "ok": 6}
    run_suite(small_suite(), out=tmp_path / "whole")
    pd.testing.assert_frame_equal(values(tmp_path / "stopped"), values(tmp_path / "whole"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_loses_no_finished_cell_and_the_next_one_equals_an_uninterrupted_one(tmp_path, own_cache):
    suite = tmp_path / "small.yaml"
    suite.write_text(yaml.safe_dump(small_suite()), encoding="utf-8")
    script = textwrap.dedent(
        """
        import os, signal, sys
        from gauntlet.bench.execution import Reporter
        from gauntlet.bench.runner import run_suite
        from gauntlet.attacks.pgd import PGD

        class Kill(Reporter):
            def job(self, job, cells):
                if job.label.startswith("pgd"):
                    PGD.run = lambda *arguments, **named: os.kill(os.getpid(), signal.SIGKILL)

        run_suite(sys.argv[1], out=sys.argv[2], reporter=Kill())
        """
    )
    killed = subprocess.run([sys.executable, "-c", script, str(suite), str(tmp_path / "out")], env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    counts = run_suite(suite, out=tmp_path / "out").counts
    assert counts == {"cached": 8, "ok": 2}
    run_suite(suite, out=tmp_path / "whole")
    pd.testing.assert_frame_equal(values(tmp_path / "out"), values(tmp_path / "whole"))


def test_an_interrupted_training_leaves_no_checkpoint(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("GAUNTLET_CACHE", str(cache))

    class Stop(Reporter):
        def training(self, model: str, done: int, total: int, figures: dict[str, Any]) -> None:
            if done == total:
                raise KeyboardInterrupt

    outcome = run_suite(small_suite(), out=tmp_path / "out", reporter=Stop())
    assert outcome.interrupted
    left = list((cache / "models").glob("*"))
    assert [path.name.split(".", 2)[2] for path in left] == ["epoch.safetensors"]  # to go on from


def test_a_broken_plugin_that_was_named_stops_the_run(tmp_path, write_plugin):
    plugin = write_plugin("from gauntlet import detector\n\nraise RuntimeError('half-baked')\n")
    with pytest.raises(GauntletError, match=r"plugin\.py:3: RuntimeError: half-baked"):
        run_suite(small_suite(), out=tmp_path / "out", plugins=[plugin])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(GauntletError) as caught:
        run_suite(small_suite(), out=blocker / "out")
    assert "\n" not in str(caught.value)


def test_two_seeds_are_two_trainings(tmp_path):
    suite = small_suite(seeds=[0, 1], attacks=None, epsilons=None, detectors=None, ood=None)
    run_suite(suite, out=tmp_path)
    frame = load_results(tmp_path)
    nll = frame[frame["metric"] == "nll"].set_index("seed")["value"]
    assert nll[0] != nll[1]
    assert math.isfinite(nll[0] + nll[1])


@pytest.mark.gpu
def test_the_same_suite_runs_on_a_gpu_and_agrees(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    run_suite(small_suite(), out=tmp_path / "cpu", device="cpu")
    run_suite(small_suite(), out=tmp_path / "gpu", device="cuda")  # the weights come from the cache
    one, two = values(tmp_path / "cpu"), values(tmp_path / "gpu")
    pd.testing.assert_frame_equal(one, two, atol=0.03, rtol=1e-3)
