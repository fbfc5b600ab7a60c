"""Rows of a table against each other: which are not significantly worse than the best, and between which ranks each is.

Where a store holds what was measured image by image, rows on the same images are compared image by image; others by
their intervals alone, which takes them as independent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..registry import GauntletError
from .joint import Joint, apart, joint_auroc, joint_bootstrap, joint_means
from .metrics import METRICS, Metric, kernel, metric_named
from .multiple import letters, rank_sets, shown_above, worse_than_best
from .samples import Confidences, Sample, Scores, Values
from .selective import Selective

#: Per-image arrays of a cell by name, from its key.
Arrays = Callable[[str], Mapping[str, np.ndarray]]
OVER = ("images", "seeds", "both")
MOST_RANKED = 200  # rows; sets of more say little and take long
_EXACT, _PAIRED = "McNemar's exact test, image by image", "paired, image by image"
_ROUNDING = 1e-4
_Z95 = 1.959963984540054
_SCENE = ("index", "label", "id_label", "id_image", "ood_image")  # arrays that tell which images they are


@dataclass(frozen=True)
class Row:
    """One row of a comparison: a cell of each of its seeds.

    Attributes:
        images: What its images are, in words; rows of other images are never paired.
        keys: Of its cells in the store.
        seeds: Of each cell.
        values: Of each cell.
        halves: Half the width of each cell's 95 % interval, NaN where it has none.
    """

    images: tuple[str, ...]
    keys: Sequence[str]
    seeds: Sequence[int]
    values: np.ndarray
    halves: np.ndarray


@dataclass(frozen=True)
class Standing:
    """How rows stand to each other.

    Attributes:
        tied: (k,) which rows are not significantly worse than the best.
        low: (k,) first rank that a row may have, 1 the best; 0 where nothing can be said.
        high: (k,) last rank.
        groups: Letters; rows that share one cannot be told apart.
        how: The test, over what.
        detectable: Median over the comparisons with the best of the smallest difference that would be found with
            probability 0.8 (before Holm).
    """

    tied: np.ndarray
    low: np.ndarray
    high: np.ndarray
    groups: Sequence[str]
    how: str
    detectable: float


def stand(
    metric: str, rows: Sequence[Row], arrays: Arrays | None = None, *, over: str = "", ranks: bool = False
) -> Standing:
    """Compare rows by one metric that has a better direction.

    Args:
        metric: What the values are.
        rows: At least one; a row without any interval is compared by its value alone, and gets no rank set.
        arrays: Reads the per-image arrays of a cell.
        over: What is random: ``images`` of this test set, ``seeds``, or ``both``; by default both where every row has
            several seeds, else images.
        ranks: Whether to compute rank sets and groups, too.

    Raises:
        GauntletError: ``over`` is something else, or there are no seeds to compare over.
    """
    seeds = all(len(row.values) > 1 for row in rows)
    over = over or ("both" if seeds else "images")
    if over not in OVER:
        raise GauntletError(f"Rows are compared over images, seeds or both, got {over!r}.")
    if over != "images" and not seeds:
        raise GauntletError("A comparison over seeds needs several seeds of every row; choose --over images.")
    sign = -1.0 if metric_named(metric).higher_is_better is False else 1.0
    joint, how = _joint(metric, rows, arrays, over)
    joint = replace(joint, values=sign * joint.values)
    known = np.isfinite(joint.values) & np.isfinite(np.diagonal(joint.images))
    k, inside = len(rows), np.flatnonzero(known)
    own = _rows(joint, inside)
    low, high, groups = np.zeros(k, dtype=int), np.zeros(k, dtype=int), [""] * k
    if ranks and 1 < len(inside) <= MOST_RANKED:
        shown = shown_above(own)
        low[inside], high[inside] = rank_sets(shown)
        for place, text in zip(inside, letters(shown, np.argsort(-own.values, kind="stable")), strict=True):
            groups[place] = text
    return Standing(_tied(joint.values, own, inside), low, high, groups, how, _detectable(own))


def _tied(values: np.ndarray, own: Joint, inside: np.ndarray) -> np.ndarray:
    """Rows not significantly below the best; one without an interval only where no value is above its own."""
    tied = values == np.nanmax(values) if np.isfinite(values).any() else np.zeros(len(values), dtype=bool)
    if len(inside) and own.values.max() >= np.nanmax(values):
        tied[inside] = ~worse_than_best(own)
    return np.asarray(tied)


def _detectable(own: Joint) -> float:
    """(1.96 + 0.84) standard deviations of a difference to the best."""
    if len(own.values) < 2:
        return float("nan")
    best = int(np.argmax(own.values))
    errors = np.sqrt(np.delete(own.variances()[best], best))
    return float(np.median(errors) * 2.801585)


def _rows(joint: Joint, chosen: np.ndarray) -> Joint:
    """Some of the rows."""
    pairs = np.ix_(chosen, chosen)
    seeds = joint.seeds[pairs] if isinstance(joint.seeds, np.ndarray) else joint.seeds
    counted = None if joint.counted is None else joint.counted[chosen]
    return replace(joint, values=joint.values[chosen], images=joint.images[pairs], seeds=seeds, counted=counted)


def _joint(metric: str, rows: Sequence[Row], arrays: Arrays | None, over: str) -> tuple[Joint, str]:
    """Values of the rows with their covariance over what is random, and in words how it was found."""
    values = np.array([np.mean(row.values) for row in rows])
    variances = np.array([np.mean((row.halves / _Z95) ** 2) for row in rows])
    joint, how = apart(values, variances), "unpaired, by their intervals"
    if over != "seeds" and (found := _paired(metric, rows, arrays)):
        paired, where, test = found
        joint = _placed(paired, where, joint)
        how = _PAIRED if test == _EXACT and (over == "both" or joint.counted is None) else test
        if len(where) < len(rows):
            how += "; rows without values of these images unpaired, by their intervals"
    if over == "images":
        trained = "the trainings taken as they are" if len(rows[0].values) > 1 else "this training taken as it is"
        return joint, f"{how}, over images ({trained})"
    seeds, degrees, paired_seeds = _over_seeds(rows)
    kind = "Student's t, the seeds paired" if paired_seeds else "Welch's t"
    if over == "seeds":
        blank = replace(joint, images=np.zeros_like(joint.images), counted=None, smallest=0.0)
        return replace(blank, seeds=seeds, degrees=degrees), f"{kind}, over seeds (these images taken as they are)"
    return replace(joint, seeds=seeds, degrees=degrees, counted=None), f"{how}, over images and seeds ({kind})"


def _over_seeds(rows: Sequence[Row]) -> tuple[np.ndarray, float, bool]:
    """Covariance (k, k) of the means over seeds, its degrees of freedom, and whether all rows have the same seeds."""
    if len({tuple(row.seeds) for row in rows}) == 1:
        values = np.array([row.values for row in rows])
        return np.atleast_2d(np.cov(values)) / values.shape[1], values.shape[1] - 1, True
    variances = [np.var(row.values, ddof=1) / len(row.values) for row in rows]
    return np.diag(variances), min(len(row.values) for row in rows) - 1, False


def _placed(paired: Joint, where: np.ndarray, others: Joint) -> Joint:
    """The paired rows among the others, with which they share nothing."""
    if len(where) == len(others.values):
        return paired
    values, images = others.values.copy(), others.images.copy()
    values[where], images[np.ix_(where, where)] = paired.values, paired.images
    return Joint(values, images, smallest=paired.smallest, n=paired.n)


def _paired(metric: str, rows: Sequence[Row], arrays: Arrays | None) -> tuple[Joint, np.ndarray, str] | None:
    """The joint of the rows on the same images (the most that there are), where they are, and the test in words."""
    known = METRICS.get(metric)
    if arrays is None or known is None or not known.stored or len(rows) > MOST_RANKED:
        return None
    found = [_cells(known, row, arrays) for row in rows]
    scenes = [None if cells is None else cells[1] for cells in found]
    most = max((scene for scene in scenes if scene), key=scenes.count, default=None)
    chosen = [place for place, cells in enumerate(found) if cells is not None and cells[1] == most]
    if len(chosen) < 2:
        return None
    joint, test = joint_of(metric, [sample for place in chosen for sample in found[place][0]])  # type: ignore[index]
    joint, where = averaged(joint, [len(rows[place].values) for place in chosen]), np.array(chosen)
    # What a row shows may be of some of the images only, such as those of one class.
    agree = np.abs(joint.values - np.array([rows[place].values.mean() for place in chosen])) < _ROUNDING
    return (_rows(joint, np.flatnonzero(agree)), where[agree], test) if agree.sum() > 1 else None


def joint_of(metric: str, samples: Sequence[Sample]) -> tuple[Joint, str]:
    """Values of samples of the same images with their covariance, and the test in words."""
    first = samples[0]
    if isinstance(first, Values):
        numbers = np.array([sample.values for sample in samples if isinstance(sample, Values)])
        if np.isin(numbers, (0.0, 1.0)).all():
            return joint_means(numbers, shares=True), _EXACT
        return joint_means(numbers), _PAIRED
    if metric == "auroc" and isinstance(first, Scores):
        sides = [(sample.inside, sample.outside) for sample in samples if isinstance(sample, Scores)]
        return joint_auroc(*zip(*sides, strict=True), *(first.images or ())), "DeLong's paired test"
    return joint_bootstrap(metric, samples), "joint bootstrap of the images"


def averaged(joint: Joint, counts: Sequence[int]) -> Joint:
    """Means of so many neighbouring rows each, such as the seeds of one."""
    if set(counts) == {1}:
        return joint
    weights = np.repeat(np.eye(len(counts)), counts, axis=1) / np.array(counts)[:, None]
    images = weights @ joint.images @ weights.T
    return replace(joint, values=weights @ joint.values, images=images, counted=None)


def _cells(known: Metric, row: Row, arrays: Arrays) -> tuple[list[Sample], bytes] | None:
    """The samples of a row's cells and what tells their images; None where one has no values or other images."""
    read = [arrays(key) for key in row.keys]
    scenes = {scene(cell) for cell in read}
    if len(scenes) != 1 or not all(name in cell for cell in read for name in known.stored):
        return None
    samples = [sample_of(known, cell) for cell in read]
    return samples, scenes.pop() + repr((samples[0].sizes, row.images)).encode()


def scene(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A fingerprint of what tells which images the arrays of a cell are of."""
    told = hashlib.sha256()
    for name in _SCENE:
        if name in arrays and not (name == "label" and "index" in arrays):  # an attack's labels are of fooled images
            told.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return told.digest()


def sample_of(known: Metric, arrays: Mapping[str, np.ndarray]) -> Sample:
    """What a metric is computed from, made anew from the arrays of a cell."""
    parts = [np.asarray(arrays[name], dtype=np.float64) for name in known.stored]
    if known.stored[0] == "attacked":  # right after the attack: attacked, since right before it, and not fooled
        right = parts[0].copy()
        right[parts[0] > 0] = (1 - parts[1]) * (1 - arrays.get("broken", np.zeros(1)))
        return Values(right)
    kind = kernel(known.name).needs[0]
    if kind == "ranking":
        images = (arrays["id_image"], arrays["ood_image"]) if "id_image" in arrays else None
        return Scores(parts[0], parts[1], images=images)
    if kind == "selection":
        return Selective(parts[0], parts[1])
    return Confidences(parts[0], parts[1]) if kind == "reliability" else Values(parts[0])
