"""Many comparisons at once: which of k rows can be told apart, their rank sets, and letters for groups.

Everything is read off one matrix (k, k): whether row i is *shown* to be above row j, so that with probability 95 % not
a single one of these statements is wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .joint import Joint

_DRAWS = 8000


class RankSets(NamedTuple):
    """Between which ranks each row is, (k,) each; 1 is the highest value."""

    low: np.ndarray
    high: np.ndarray


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p-values (m,) of m tests: none of those under the level is wrong with probability 1 - level (Holm 1979).

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def worse_than_best(joint: Joint, level: float = 0.95) -> np.ndarray:
    """(k,) whether a row's value is significantly below the highest one's, by Holm over the k - 1 comparisons."""
    worse = np.zeros(len(joint.values), dtype=bool)
    best = int(np.argmax(joint.values))
    others = np.arange(len(worse)) != best
    worse[others] = holm(joint.p_values()[best, others]) < 1 - level
    return worse


def shown_above(joint: Joint, level: float = 0.95, seed: int = 0) -> np.ndarray:
    """(k, k) whether row i is above row j, so that all these statements hold together with this probability.

    Over images alone by the step-down procedure of Romano and Wolf (2005) with the distribution of the largest
    standardised difference, drawn from the covariance (Mogstad, Romano, Shaikh, Wilhelm 2024, "Inference for ranks with
    applications to mobility across neighbourhoods and academic achievement across countries", section 3). With seeds
    there are too few of them for a covariance of k rows: Holm over all pairs, each by Student's t.
    """
    values, k = joint.values, len(joint.values)
    if k < 2 or joint.n < 2:
        return np.zeros((k, k), dtype=bool)
    above = values[:, None] > values
    if np.isfinite(joint.degrees):
        pairs = np.triu_indices(k, 1)
        apart = np.zeros((k, k), dtype=bool)
        apart[pairs] = holm(joint.p_values()[pairs]) < 1 - level
        return above & (apart | apart.T)
    error = np.sqrt(joint.variances())
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, (values[:, None] - values) / error, 0.0)
    return _step_down(t, error, _drawn(joint, seed), level)


def _step_down(t: np.ndarray, error: np.ndarray, drawn: np.ndarray, level: float) -> np.ndarray:
    """Reject what exceeds the largest of all hypotheses that are not rejected yet, until nothing does."""
    active = error > 0
    shown = np.zeros_like(active)
    while active.any():
        new = active & (t > np.quantile(_largest(drawn, error, active), level))
        if not new.any():
            break
        shown, active = shown | new, active & ~new
    return shown


def _drawn(joint: Joint, seed: int) -> np.ndarray:
    """(draws, k) normal errors with this covariance, over the error of a variance that so many images estimate."""
    rng = np.random.default_rng(seed)
    weights, directions = np.linalg.eigh(joint.covariance)
    normal = rng.standard_normal((_DRAWS, len(weights)))
    drawn = np.asarray((normal * np.sqrt(np.maximum(weights, 0.0))) @ directions.T)
    if np.isfinite(joint.n):
        drawn /= np.sqrt(rng.chisquare(joint.n - 1, (_DRAWS, 1)) / (joint.n - 1))
    return drawn


def _largest(drawn: np.ndarray, error: np.ndarray, active: np.ndarray) -> np.ndarray:
    """(draws,) of each draw the largest standardised difference among the active pairs; row by row, to spare memory."""
    largest = np.full(len(drawn), -np.inf)
    for row, pairs in enumerate(active):
        if pairs.any():
            np.maximum(largest, ((drawn[:, [row]] - drawn[:, pairs]) / error[row, pairs]).max(axis=1), out=largest)
    return largest


def rank_sets(shown: np.ndarray) -> RankSets:
    """Simultaneous confidence sets for ranks: below all that are shown above, and above all that are shown below.

    Args:
        shown: (k, k) whether row i is shown to be above row j (:func:`shown_above`).

    Example:
        >>> rank_sets(np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)).high.tolist()
        [2, 2, 3]
    """
    return RankSets(1 + shown.sum(axis=0), len(shown) - shown.sum(axis=1))


def letters(shown: np.ndarray, order: np.ndarray) -> list[str]:
    """Letters for groups that cannot be told apart: two rows share one if and only if neither is shown above the other.

    By insertion and absorption (Piepho 2004, "An algorithm for a letter-based representation of all-pairwise
    comparisons"); capitals, as small letters are those of footnotes.

    Args:
        shown: (k, k) whether row i is shown to be above row j.
        order: Rows from the highest value down, in which letters are given.
    """
    k = len(shown)
    groups = [frozenset(range(k))]
    for i, j in zip(*np.nonzero(shown), strict=True):
        split = [group - {gone} for group in groups if {i, j} <= group for gone in (i, j)]
        kept = [group for group in groups if not {i, j} <= group]
        for group in split:
            if not any(group <= other for other in kept):
                kept = [other for other in kept if not other <= group] + [group]
        groups = kept
    place = {int(row): at for at, row in enumerate(order)}
    ordered = sorted(groups, key=lambda group: sorted(place[row] for row in group))
    names = [_letter(number) for number in range(len(ordered))]
    return ["".join(name for name, group in zip(names, ordered, strict=True) if row in group) for row in range(k)]


def _letter(number: int) -> str:
    """A to Z, then A2 to Z2, and so on."""
    turn, place = divmod(number, 26)
    return chr(ord("A") + place) + (str(turn + 1) if turn else "")
