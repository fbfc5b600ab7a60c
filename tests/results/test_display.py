"""Numbers read alike on the page and in tables, by decimal rounding; intervals stay inside what a metric can be."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet.results.display import number, numbers, rounded, shown_intervals
from gauntlet.results.estimates import bootstrap_intervals
from gauntlet.results.layout import pivot
from gauntlet.results.metrics import METRICS
from gauntlet.results.page.leaderboards import boards
from gauntlet.results.samples import Confidences
from gauntlet.results.table import Cell, Cells

Builder = Callable[..., pd.DataFrame]


def by_hand(value: Fraction, decimals: int) -> str:
    """Halves away from zero, in whole numbers."""
    whole = (abs(value) * 10**decimals * 2 + 1).__floor__() // 2
    return str((Decimal(whole) * (-1 if value < 0 else 1)).scaleb(-decimals) + 0)


def by_browser(sent: Any, metric: dict[str, Any]) -> str:
    """What ECMAScript's toFixed makes of a number that the page was sent: of the exact binary value, halves up."""
    value = Decimal(sent / 100 if metric["percent"] else sent)
    return str(value.quantize(Decimal(1).scaleb(-metric["decimals"]), ROUND_HALF_UP))


@pytest.mark.parametrize("n", [3, 7, 200, 540, 2000, 10_000])
def test_shares_are_rounded_as_fractions(n: int) -> None:
    shown = numbers([100 * (k / n) for k in range(n + 1)], 1)
    assert shown == [by_hand(Fraction(100 * k, n), 1) for k in range(n + 1)]


@given(st.decimals(-(10**6), 10**6, places=4), st.integers(0, 5))
def test_decimals_are_rounded_as_on_paper(value: Decimal, decimals: int) -> None:
    assert Decimal(number(float(value), decimals)) == Decimal(by_hand(Fraction(value), decimals))


@given(st.floats(allow_subnormal=False), st.integers(-4, 6))
def test_what_is_rounded_is_shown_as_it_is(value: float, decimals: int) -> None:
    once = rounded(np.array([value]), decimals)
    assert numbers(once, decimals) == numbers([value], decimals)
    assert not np.signbit(once[once == 0]).any()


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("accuracy", [k / n for n in (200, 540, 1000, 2000) for k in range(n + 1)]),
        ("signed_gap", [-k / 10_000 for k in range(500)]),
        ("nll", [k / 10_000 for k in range(500)] + [1234.5675, 99999.9995, 2.0**60, 1e-9]),
        ("reconstruction_mse", [k / 1e6 for k in range(500)]),
    ],
)
def test_the_page_shows_what_the_table_shows(
    metric: str, values: list[float], make: SimpleNamespace, frame_of: Builder
) -> None:
    measured = [make.measured(metric, value, abs(value) / 3) for value in values]
    frame = frame_of(*(make.cell(make.ok(one), evaluator="e", model=f"m{i}") for i, one in enumerate(measured)))
    body = pivot(frame, ["model"], ["metric"], metric).body
    (board,) = boards(frame)
    (known,), sent = board["metrics"], board["views"]["each"]["metrics"][metric]
    assert [by_browser(value, known) for value in sent["value"]] == body.fragments.number[:, 0].tolist()
    halves = [half if isinstance(half, str) else by_browser(half, known) for half in sent["half"]]
    assert halves == [spread or "n too small" for spread in body.fragments.spread[:, 0].tolist()]


INTERVALS = [
    ("accuracy", 0.9, 0.5, 1.8, (0.5, 1.0), False),
    ("accuracy", 0.6, -1.3, 2.5, (0.0, 1.0), False),  # the range itself
    ("auroc@far", 0.4, -1.5, 2.3, (0.0, 1.0), False),
    ("signed_gap", 0.1, -3.0, 0.3, (-1.0, 0.3), False),
    ("temperature", 17.0, 5.4e-05, 5.4e06, (5.4e-05, 5.4e06), True),
    ("temperature", 1.7, 1.5, 1.9, (1.5, 1.9), False),
    ("median_norm", 0.5, 0.3, np.inf, (0.3, np.inf), True),
    ("nll", 0.5, -40.0, 41.0, (0.0, 41.0), True),
    ("median_score", 3.0, -90.0, 96.0, (-90.0, 96.0), False),
    ("an unknown one", 3.0, -90.0, 96.0, (-90.0, 96.0), False),
]


@pytest.mark.parametrize(("metric", "value", "low", "high", "ends", "vague"), INTERVALS)
def test_an_interval_is_no_wider_than_what_can_be(
    metric: str, value: float, low: float, high: float, ends: tuple[float, float], vague: bool
) -> None:
    rows = pd.DataFrame({"metric": [metric], "value": [value], "ci_low": [low], "ci_high": [high]})
    found = shown_intervals(rows)
    assert (found[0][0], found[1][0]) == ends
    assert found[2][0] == vague


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_no_table_shows_more_than_the_range_of_any_metric(
    metric: str, make: SimpleNamespace, frame_of: Builder
) -> None:
    known = METRICS[metric]
    value = known.low if np.isfinite(known.low) else 1.0
    frame = frame_of(make.cell(make.ok(make.measured(metric, value, 458499514.0)), evaluator="e"))
    table = pivot(frame, ["model"], ["metric"], metric)
    spread = table.body.fragments.spread[0, 0]
    widest = (known.high - known.low) / 2 * table.body.scale[0, 0]
    assert "n too small" in table.cells[0][0] if np.isposinf(known.high) and np.isfinite(known.low) else True
    assert not spread or not np.isfinite(widest) or float(spread) <= widest


def test_an_interval_that_says_nothing_is_words() -> None:
    cells = Cells.of([[Cell(17.04, 1e-3, 1e3)], [Cell(1.5, 1.4, 1.6)]])
    assert cells.texts == (("17.040 ± 500.000",), ("1.500 ± 0.100",))
    vague = Cells(cells.value, cells.low, cells.high, cells.scale, cells.digits, cells.words, vague=[[True], [False]])
    assert vague.texts == (("17.040 (n too small)",), ("1.500 ± 0.100",))


@pytest.mark.parametrize("n", [1, 25, 540])
@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-4])
def test_a_saturated_model_has_the_exact_bound_of_its_accuracy(n: int, noise: float) -> None:
    """Clopper and Pearson's for n of n: the n-th root of 2.5 %. Confidence cannot be below the accuracy then."""
    confidence = 1 - noise * np.random.default_rng(0).random(n)
    gap = float(confidence.mean() - 1)
    found = bootstrap_intervals(Confidences(confidence, np.ones(n)), {"signed_gap": gap, "ece": -gap, "rms": -gap})
    most = 1 - 0.025 ** (1 / n)
    for name in found:
        low, high = found[name]
        assert high == pytest.approx(most, abs=2e-4)
        assert low == pytest.approx(0 if name == "ece" else gap, abs=2e-4)


def test_a_model_that_is_always_wrong_has_the_mirrored_bound() -> None:
    found = bootstrap_intervals(Confidences(np.ones(25), np.zeros(25)), {"signed_gap": 1.0, "ece": 1.0})
    assert found["signed_gap"] == pytest.approx((0.025 ** (1 / 25), 1.0))
    assert found["ece"] == pytest.approx(found["signed_gap"])
