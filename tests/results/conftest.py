"""A small store of one run, with hostile names, several statuses, seeds and OOD groups as tests ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from gauntlet.results import CellResult, Facts, Identity, Measurement, PlannedCell, Store, load_results
from gauntlet.results.frame import load_coded

Cell = tuple[PlannedCell, CellResult | None]

HOSTILE = ("<script>alert(1)</script>", r"\input{/etc/passwd}", "a|b", "two\nlines", "=cmd()", "50%_$#&~^ µ")


def measured(metric: str, value: float, half: float = 0.01, n: int | None = 100, class_name: str = "") -> Measurement:
    return Measurement(metric, value, value - half, value + half, n, class_name)


def cell(
    result: CellResult | None, *, facts: Facts | None = None, params: dict[str, Any] | None = None, **identity: object
) -> Cell:
    identity = {"model": "cnn", "dataset": "digits", **identity}
    key = repr(sorted((name, str(value)) for name, value in identity.items()))
    return PlannedCell(Identity(**identity), key, facts or Facts(), params or {"steps": 3}), result  # type: ignore[arg-type]


def ok(*measurements: Measurement) -> CellResult:
    return CellResult(measurements=measurements, seconds=0.5, device="cpu")


def accuracy(value: float = 0.98, **identity: object) -> Cell:
    return cell(
        ok(measured("accuracy", value), measured("accuracy", 0.5, class_name="1")), evaluator="accuracy", **identity
    )


def attacked(value: float, attack: str, epsilon: float, **identity: object) -> Cell:
    result = ok(measured("robust_accuracy", value), measured("forwards", 20.0))
    return cell(result, facts=Facts(norm="linf"), evaluator="attack", attack=attack, epsilon=epsilon, **identity)


def detected(value: float, detector: str, ood_dataset: str, group: str = "", **identity: object) -> Cell:
    result = ok(measured("auroc", value), measured("fpr95", 1 - value))
    names = {"detector": detector, "ood_dataset": ood_dataset}
    return cell(result, facts=Facts(ood_group=group), evaluator="ood", **names, **identity)


def held_out(result: CellResult, detector: str, digit: int, **identity: object) -> Cell:
    """A cell of a dataset that leaves out one digit after the other."""
    where = {"dataset": f"digits without {digit}", "ood_dataset": str(digit), "detector": detector, "role": "held-out"}
    params = {"held_out": {"of": "digits", "class": str(digit)}}
    return cell(result, facts=Facts(ood_group="held-out"), params=params, evaluator="ood", **where, **identity)


def calibrated(ece: float = 0.05, **identity: object) -> Cell:
    values = [("ece", ece), ("ece_scaled", ece / 2), ("nll", 0.3), ("temperature", 1.2)]
    return cell(ok(*(measured(name, value) for name, value in values)), evaluator="calibration", **identity)


def broken(status: str, reason: str, **identity: object) -> Cell:
    return cell(CellResult(status, reason), **identity)


def fill(store: Store, cells: Iterable[Cell], suite: str = "quickstart") -> str:
    cells = list(cells)
    run_id = store.begin_run(suite, f"name: {suite}", {"git": "abc"})
    store.plan(run_id, [planned for planned, _ in cells])
    for planned, result in cells:
        if result is not None:
            store.put(run_id, planned.key, result)
    store.end_run(run_id, "finished")
    return run_id


@pytest.fixture
def make() -> SimpleNamespace:
    """The builders above; conftest cannot be imported in importlib mode."""
    builders = (accuracy, attacked, broken, calibrated, cell, detected, fill, held_out, measured, ok)
    return SimpleNamespace(**{builder.__name__: builder for builder in builders})


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def store(tmp_path: Path) -> Iterable[Store]:
    with Store.open(tmp_path / "out" / "store.sqlite") as opened:
        yield opened


@pytest.fixture
def frame_of(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Tidy frames with text as categories, as the command line has them."""
    return lambda *cells: _frame(tmp_path, cells, load_coded)


@pytest.fixture
def text_frame_of(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """The same as users get them from ``load_results``."""
    return lambda *cells: _frame(tmp_path, cells, load_results)


def _frame(folder: Path, cells: Iterable[Cell], load: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    out = folder / f"out{len(list(folder.iterdir()))}"
    with Store.open(out / "store.sqlite") as opened:
        fill(opened, cells)
    return load(out)
