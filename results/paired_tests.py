"""Two measurements on the same images: how much of their difference may be chance.

Detectors are compared by DeLong's test of two correlated curves. A baseline keeps its values image by image in a file
beside it (`NAME.samples.npz`), if it was made with samples; against those the drift check pairs a metric.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from ..registry import GauntletError
from ..registry.safe_files import reading
from .comparison import sample_of
from .estimates import computed
from .frame import write_bytes
from .intervals import Interval, around, normal_interval
from .joint import joint_auroc
from .layout import header
from .metrics import METRICS
from .multiple import worse_than_best
from .records import LABEL_COLUMNS
from .roc_intervals import auroc_interval, delong_variance, placements
from .samples import Sample, Scores, Values
from .store import Store

Arrays = Mapping[str, np.ndarray]
_Z95 = 1.959963984540054
_REPLICATES = 400
_MAX_BYTES = 2**30  # that a file of samples may unpack to


class Comparison(NamedTuple):
    """How two AUROCs on the same images differ.

    Attributes:
        difference: AUROC of a minus AUROC of b.
        low: Lower end of the interval of the difference.
        high: Upper end.
        p_value: Chance of at least such a difference if there were none, two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_auroc(id_a: Any, ood_a: Any, id_b: Any, ood_b: Any, level: float = 0.95) -> Comparison:
    """Compare the AUROCs of two detectors on the same images (DeLong, DeLong, Clarke-Pearson 1988).

    Normal approximation of the difference, clipped to [-1, 1]. Where the difference has no variance (both detectors
    place every image alike, such as two perfect ones), the p-value is 1 if there is no difference either, and the
    interval is what the exact intervals of both AUROCs allow; p is then 1 minus the largest level that excludes 0.

    Args:
        id_a: Scores (N,) of detector a on the ID images, higher = more OOD.
        ood_a: Its scores (M,) on the OOD images.
        id_b: Scores (N,) of detector b on the same ID images in the same order.
        ood_b: Its scores (M,) on the same OOD images.
        level: Coverage of the interval.

    Raises:
        GauntletError: The detectors scored different numbers of images, or a score is NaN or infinite.
    """
    a, b = placements(id_a, ood_a), placements(id_b, ood_b)
    if len(a.of_id) != len(b.of_id) or len(a.of_ood) != len(b.of_ood):
        raise GauntletError(
            "Detectors are compared on the same images, but one scored "
            f"{len(a.of_id)} ID and {len(a.of_ood)} OOD images, the other {len(b.of_id)} and {len(b.of_ood)}."
        )
    difference = float(a.of_id.mean() - b.of_id.mean())
    variance = delong_variance(a.of_id - b.of_id, a.of_ood - b.of_ood)
    if variance == 0:
        return _without_variance(difference, (id_a, ood_a), (id_b, ood_b), level)
    low, high = normal_interval(difference, variance, level, low=-1.0)
    return Comparison(difference, low, high, float(2 * special.ndtr(-abs(difference) / np.sqrt(variance))))


def tied_with_best(scores: Mapping[str, tuple[Any, Any]], level: float = 0.95) -> list[str]:
    """The detectors whose AUROC is not significantly below the best one's (DeLong, Holm), the best first.

    Args:
        scores: (ID scores, OOD scores) of each detector on the same images.
        level: Of all comparisons together (Holm): so rarely is a detector left out that is as good as the best.

    Raises:
        GauntletError: The detectors scored different numbers of images, or a score is NaN or infinite.

    Example:
        >>> flat, sharp = np.zeros(40), np.arange(40.0)
        >>> tied_with_best({"blind": (flat, flat), "sharp": (sharp, 50 + sharp), "fine": (sharp, 90 + sharp)})
        ['sharp', 'fine']
    """
    if not scores:
        return []
    names = list(scores)
    joint = joint_auroc(*zip(*scores.values(), strict=True))
    worse = worse_than_best(joint, level)
    return [names[place] for place in np.argsort(-joint.values, kind="stable") if not worse[place]]


def _without_variance(difference: float, a: tuple[Any, Any], b: tuple[Any, Any], level: float) -> Comparison:
    def ends(at: float) -> Interval:
        (low_a, high_a), (low_b, high_b) = auroc_interval(*a, at), auroc_interval(*b, at)
        return around(difference, low_a - high_b, high_a - low_b)

    low, high = ends(level)
    if difference == 0:
        return Comparison(0.0, low, high, 1.0)
    inside, outside = 0.0, 1.0  # levels whose interval excludes 0, and whose interval holds it
    for _ in range(40):
        middle = (inside + outside) / 2
        low_end, high_end = ends(middle)
        inside, outside = (inside, middle) if low_end <= 0 <= high_end else (middle, outside)
    return Comparison(difference, low, high, 1 - inside)


# -- against a baseline with samples --------------------------------------------------------------------------


def paired_half_width(name: str, before: Arrays, after: Arrays) -> float | None:
    """Half the 95 % interval of the difference of a metric over the same images; None where it cannot be paired.

    Means by the t statistic of the difference image by image, AUROC by DeLong's test of two correlated curves (DeLong
    et al. 1988), every other metric by a bootstrap that weighs the images of both sides alike.

    Args:
        name: A registered metric.
        before: Arrays of a cell by name, such as ``id_score`` (N,) and ``ood_score`` (M,).
        after: Those of the other one.
    """
    known = METRICS.get(name)
    if (
        known is None
        or not known.stored
        or not all(array in side for side in (before, after) for array in known.stored)
    ):
        return None
    first, second = (sample_of(known, side) for side in (before, after))
    if first.sizes != second.sizes or min(first.sizes) < 2:
        return None
    if isinstance(first, Values) and isinstance(second, Values):
        difference = second.values - first.values
        return _Z95 * float(difference.std(ddof=1)) / float(np.sqrt(len(difference)))
    if name == "auroc" and isinstance(first, Scores) and isinstance(second, Scores):
        a, b = (placements(side.inside, side.outside) for side in (first, second))
        return _Z95 * float(np.sqrt(delong_variance(b.of_id - a.of_id, b.of_ood - a.of_ood)))
    return _bootstrapped(name, first, second)


def _bootstrapped(name: str, first: Sample, second: Sample) -> float:
    weights = first.weights(np.random.default_rng(0), _REPLICATES)
    before, after = (computed(name, side.weighted(*weights)) for side in (first, second))
    low, high = np.quantile(after - before, [0.025, 0.975])
    return float(high - low) / 2


def samples_path(baseline: Path) -> Path:
    """Where the per-sample values of a baseline are."""
    return baseline.with_suffix(".samples.npz")


def write_samples(store: Store, frame: pd.DataFrame, path: Path) -> Path:
    """Write the per-sample values of the frame's ok cells, by identity, without pickle."""
    kept: dict[str, Any] = {}
    wanted = {name for known in METRICS.values() for name in known.stored}
    for _, cell in frame[frame["status"] == "ok"].drop_duplicates("key").iterrows():
        for name, array in store.arrays(cell["key"]).items():
            if name in wanted:
                small = array.astype("float32") if array.dtype == np.float64 else array
                kept[f"{_address(cell)}/{name}"] = small
    return write_bytes(lambda file: np.savez_compressed(file, allow_pickle=False, **kept), path)


def noise_of(samples: Path, store: Store, frame: pd.DataFrame) -> Callable[[Any], float | None]:
    """A function that gives half the interval of the paired difference of a measurement.

    Raises:
        GauntletError: The samples cannot be read.
    """
    keys = {_address(cell): cell["key"] for _, cell in frame[frame["status"] == "ok"].drop_duplicates("key").iterrows()}
    before = _read(samples)

    def noise(row: Any) -> float | None:
        where = _address(row)
        if where not in before or where not in keys:
            return None
        return paired_half_width(str(row["metric"]), before[where], store.arrays(keys[where]))

    return noise


def _read(path: Path) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    with reading(path, "cannot be read as samples ({error}); `gauntlet baseline --samples` writes them"):
        with zipfile.ZipFile(path) as packed:
            if (size := sum(part.file_size for part in packed.infolist())) > _MAX_BYTES:
                raise ValueError(f"it unpacks to {size} bytes")
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                where, _, array = name.rpartition("/")
                found.setdefault(where, {})[array] = stored[name]
    return found


def _address(row: Any) -> str:
    """Identity as a name inside the file; hex, since labels may hold anything."""
    parts = [header(name, row[name]) for name in LABEL_COLUMNS]
    return "\x1f".join(parts).encode().hex()
