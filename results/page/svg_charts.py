"""Small line drawings as SVG text, in the page's own colours so that they follow its theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from ..curves import reliability, roc_curve

WIDTH, HEIGHT, LEFT, BOTTOM = 220, 150, 34, 26
_POINTS = 64  # of a curve; finer is not seen at this size


def of_arrays(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The drawings that these per-sample arrays allow."""
    drawings = []
    if {"id_score", "ood_score"} <= arrays.keys():
        drawings += [roc(arrays["id_score"], arrays["ood_score"]), scores(arrays["id_score"], arrays["ood_score"])]
    for outcome in ("correct", "success"):
        if {"confidence", outcome} <= arrays.keys():
            drawings.append(diagram(arrays["confidence"], arrays[outcome]))
    return drawings


def roc(inside: np.ndarray, outside: np.ndarray) -> str:
    """ROC curve, ID images flagged against OOD images caught."""
    flagged, caught = roc_curve(inside, outside)
    return _frame("ROC curve", "ID flagged", "OOD caught", f"{_diagonal()}{_line(_thinned(flagged, caught), 's1')}")


def scores(inside: np.ndarray, outside: np.ndarray, bins: int = 24) -> str:
    """Histograms of the scores of ID and OOD images, each scaled to its own largest bin."""
    both = np.concatenate([inside, outside])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    bars = []
    for values, style in ((inside, "s1"), (outside, "s2")):
        counts = np.histogram(values, edges)[0] / max(np.histogram(values, edges)[0].max(), 1)
        bars += [_bar(i / bins, (i + 1) / bins, count, f"f{style}") for i, count in enumerate(counts) if count]
    key = _text(LEFT + 6, 12, "ID", "ks1") + _text(LEFT + 26, 12, "OOD", "ks2")
    return _frame("Scores of ID and OOD images", "score, higher is more OOD", "", "".join(bars) + key, (low, high))


def diagram(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> str:
    """Reliability diagram: accuracy by confidence, the diagonal is perfect."""
    centre, accuracy, share = reliability(confidence, correct, bins)
    bars = [
        _bar(middle - 0.45 / bins, middle + 0.45 / bins, height, "fs1")
        for middle, height, weight in zip(centre, accuracy, share, strict=True)
        if weight
    ]
    return _frame("Reliability diagram", "confidence", "accuracy", "".join(bars) + _diagonal())


def curve(title: str, horizontal: str, points: Sequence[tuple[float, float]], here: float) -> str:
    """A share (0 to 1) against evenly spaced steps, such as accuracy against epsilon; the own step is marked."""
    steps = np.linspace(0.08, 0.92, len(points)) if len(points) > 1 else np.array([0.5])
    spots = [(float(x), share) for x, (_, share) in zip(steps, points, strict=True)]
    marks = {True: 'r="4" class="dh"', False: 'r="2.5" class="d"'}
    dots = "".join(
        f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" {marks[value == here]}/>'
        for (x, y), (value, _) in zip(spots, points, strict=True)
    )
    labels = "".join(
        _text(_x(x), HEIGHT - 13, f"{value:g}", "m") for (x, _), (value, _) in zip(spots, points, strict=True)
    )
    return _frame(title, horizontal, "accuracy", _line(spots, "s1") + dots + labels, (None, None))


def _frame(
    title: str, horizontal: str, vertical: str, content: str, ends: tuple[float | None, float | None] = (0, 1)
) -> str:
    low, high = ("" if end is None else f"{end:.3g}" for end in ends)
    axes = f'<path class="ax" d="M{LEFT},8V{HEIGHT - BOTTOM}H{WIDTH - 6}"/>'
    ticks = _text(LEFT, HEIGHT - 14, low, "t") + _text(WIDTH - 6, HEIGHT - 14, high, "e")
    ticks += _text(LEFT - 4, HEIGHT - BOTTOM, "0", "e") + _text(LEFT - 4, 14, "1", "e")
    names = _text((LEFT + WIDTH) / 2, HEIGHT - 2, horizontal, "m")
    names += f'<g transform="translate(10,{(HEIGHT - BOTTOM) / 2}) rotate(-90)">{_text(0, 0, vertical, "m")}</g>'
    return (
        f'<figure><svg class="sketch" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{axes}{content}{ticks}{names}</svg><figcaption>{escape(title)}</figcaption></figure>"
    )


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - 6 - LEFT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 8)


def _line(points: Sequence[tuple[float, float]], style: str) -> str:
    path = "L".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
    return f'<path class="{style}" d="M{path}"/>'


def _diagonal() -> str:
    return _line([(0, 0), (1, 1)], "dg")


def _bar(left: float, right: float, height: float, style: str) -> str:
    x, y = _x(left), _y(height)
    return f'<path class="{style}" d="M{x:.1f},{_y(0):.0f}V{y:.1f}H{_x(right):.1f}V{_y(0):.0f}"/>'


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{style}">{escape(words)}</text>' if words else ""


def _thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """At most 64 points, spread along the length of the curve, both ends among them."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    places = np.unique(np.searchsorted(along, np.linspace(0, along[-1], _POINTS)).clip(0, len(x) - 1))
    return [(float(x[i]), float(y[i])) for i in places]
