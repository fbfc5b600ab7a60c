"""Results to wandb and tensorboard, after the fact and without an account."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gauntlet.results import Store, load_results
from gauntlet.results.trackers import log_tensorboard, log_wandb


@pytest.fixture
def filled(make: SimpleNamespace, store: Store) -> Store:
    make.fill(store, [make.accuracy(0.98), make.attacked(0.5, "pgd", 0.1), make.broken("failed", "x", evaluator="ood")])
    store.put_history("key", "cnn", [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    return store


def test_tensorboard_reads_back_scalars_curves_and_pictures(filled: Store, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_tensorboard(load_results(filled.path), filled, tmp_path / "logs")
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    accuracy = events.Scalars("accuracy/cnn/digits/seed 0/accuracy")
    assert [event.value for event in accuracy] == [pytest.approx(0.98)]
    assert [(e.step, e.value) for e in events.Scalars("training/cnn/loss")] == [(1, 2.0), (2, 1.0)]
    assert "plots/robust-heatmap" in events.Tags()["images"]


@pytest.mark.slow
def test_wandb_writes_offline_without_an_account(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    log_wandb(load_results(filled.path), filled, tmp_path / "logs", project="gauntlet")
    (record,) = (tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb")
    for name in (b"accuracy/cnn/digits/seed 0/accuracy", b"training/cnn/loss", b"plots/robust-heatmap"):
        assert name in record.read_bytes()
    (table,) = record.parent.glob("files/media/table/*.json")
    assert '"robust_accuracy",0.5' in table.read_text(encoding="utf-8")
