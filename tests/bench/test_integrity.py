"""What is read back is what was written, and what was stored is of the model that is there: else it is made again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from gauntlet.bench.execution import Reporter
from gauntlet.bench.runner import run_suite
from gauntlet.results.frame import load_results

from .conftest import small_suite

SUITE = small_suite(attacks=None, epsilons=None, attack_images=None, evaluators=["accuracy", "ood"], examples=2)
FIGURES = ["evaluator", "detector", "ood_dataset", "class", "metric", "value", "ci_low", "ci_high", "status"]


class Notes(Reporter):
    """Keeps what a user reads."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def flip(path: Path) -> None:
    """Change one bit near the end of a file."""
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content))


def flip_all(pattern: str) -> Callable[[Path, Path], None]:
    """Change one bit of every file of the cache that the pattern picks."""

    def damage(cache: Path, _: Path) -> None:
        found = list(cache.glob(pattern))
        assert found
        for path in found:
            flip(path)

    return damage


def flip_array(_: Path, out: Path) -> None:
    """Change one byte of a stored score."""
    with sqlite3.connect(out / "store.sqlite") as connection:
        row, data = connection.execute("SELECT rowid, data FROM arrays WHERE name = 'ood_score' LIMIT 1").fetchone()
        data = bytes([data[0] ^ 1]) + data[1:]
        connection.execute("UPDATE arrays SET data = ? WHERE rowid = ?", (data, row))


def flip_examples(_: Path, out: Path) -> None:
    """Change one byte of a file of image examples."""
    found = list(out.rglob("*.safetensors"))
    assert found
    flip(found[0])


def figures(out: Path) -> pd.DataFrame:
    return load_results(out)[FIGURES]


@pytest.mark.parametrize(
    ("damage", "again", "said"),
    [
        (flip_all("models/*/weights.safetensors"), "second", "is trained again"),
        (flip_all("models/*/training.json"), "second", "is trained again"),
        (flip_all("outputs/*/*.safetensors"), "second", "again"),
        (flip_array, "first", "damaged in the store"),
        (flip_examples, "first", "damaged in the store"),
    ],
    ids=["weights", "facts", "outputs", "array", "examples"],
)
def test_a_flipped_bit_is_noticed_and_what_it_spoils_is_made_again(tmp_path, monkeypatch, damage, again, said):
    monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / "cache"))
    run_suite(SUITE, out=tmp_path / "first")
    before = figures(tmp_path / "first")
    damage(tmp_path / "cache", tmp_path / "first")
    notes = Notes()
    assert run_suite(SUITE, out=tmp_path / again, reporter=notes).complete, set(
        load_results(tmp_path / again)["reason"]
    )
    assert any(said in note for note in notes.said), notes.said
    pd.testing.assert_frame_equal(figures(tmp_path / again), before)


def test_force_computes_again_what_the_pattern_picks(tmp_path):
    run_suite(SUITE, out=tmp_path)
    assert run_suite(SUITE, out=tmp_path).counts == {"cached": 5}
    assert run_suite(SUITE, out=tmp_path, force="msp").counts == {"cached": 3, "ok": 2}


def test_a_model_whose_answers_changed_without_its_source_is_evaluated_again(tmp_path, write_plugin):
    """State that no file of source holds: the probe outputs tell."""
    weights = tmp_path / "scale.txt"
    plugin = write_plugin(f'''
        from pathlib import Path
        import torch
        from gauntlet import model

        @model("from-elsewhere")
        class FromElsewhere(torch.nn.Module):
            """A linear layer whose weights lie in a file that nothing names."""

            def __init__(self, *, classes: int = 10):
                super().__init__()
                torch.manual_seed(int(open({str(weights)!r}).read()))
                self.layer = torch.nn.Linear(784, classes)

            def forward(self, x):
                return self.layer(x.flatten(1))
    ''')
    suite = {**SUITE, "models": [{"name": "from-elsewhere", "recipe": "none"}]}
    found = []
    for seed in ("1", "2"):
        weights.write_text(seed)
        notes = Notes()
        run_suite(suite, out=tmp_path / "out", plugins=[plugin], reporter=notes)
        found.append(figures(tmp_path / "out"))
    weights.write_text("2")
    run_suite(suite, out=tmp_path / "fresh", plugins=[plugin])
    assert not found[0]["value"].equals(found[1]["value"])
    pd.testing.assert_frame_equal(found[1], figures(tmp_path / "fresh"))
