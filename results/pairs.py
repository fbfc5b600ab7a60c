"""Paired comparison: how much the difference of two measurements on the same images may be chance.

A baseline keeps its per-sample values in a file beside it (`NAME.samples.npz`), if it was made with samples.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError
from .frame import write_bytes
from .layout import header
from .records import LABEL_COLUMNS
from .store import Store

Arrays = Mapping[str, np.ndarray]
_Z95 = 1.959963984540054
_REPLICATES = 400


def paired_half_width(metric: str, before: Arrays, after: Arrays) -> float | None:
    """Half the 95 % interval of the difference of a metric over the same images; None where it cannot be paired.

    Shares by the t statistic of the per-image difference, AUROC by DeLong's test of two correlated curves (DeLong et
    al. 1988), ECE by a bootstrap that weighs both sides alike.
    """
    for names, width in _METHODS.get(metric, ()):
        if all(name in side for name in names for side in (before, after)):
            pairs = [(before[name], after[name]) for name in names]
            # `success` is of the attacked images alone, which may be more on one side: `attacked` puts them in place.
            aligned = pairs[:1] if names[0] == "attacked" else pairs
            if all(old.shape == new.shape and len(old) > 1 for old, new in aligned):
                return width(*(np.asarray(array, dtype=float) for pair in pairs for array in pair))
    return None


def _share(before: np.ndarray, after: np.ndarray) -> float:
    return _Z95 * float((after - before).std(ddof=1)) / float(np.sqrt(len(before)))


def _robust(attacked_before: np.ndarray, attacked_after: np.ndarray, *kept: np.ndarray) -> float:
    """Right after the attack, image by image: attacked (it was right before) and not fooled."""
    sides = []
    for attacked, fooled in ((attacked_before, kept[0]), (attacked_after, kept[1])):
        right = attacked.astype(bool).astype(float)
        right[attacked.astype(bool)] = 1 - fooled
        sides.append(right)
    return _share(*sides)


def _auroc(id_before: np.ndarray, id_after: np.ndarray, ood_before: np.ndarray, ood_after: np.ndarray) -> float:
    (inside, outside), (inside_new, outside_new) = _placements(id_before, ood_before), _placements(id_after, ood_after)
    first, second = inside_new - inside, outside_new - outside
    return _Z95 * float(np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second)))


def _placements(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the other side that each image is ranked right against, ties one half."""

    def below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
        others = np.sort(others)
        left, right = np.searchsorted(others, scores, "left"), np.searchsorted(others, scores, "right")
        return (left + right) / (2 * len(others))

    return 1 - below(inside, outside), below(outside, inside)


def _ece(confidence: np.ndarray, confidence_new: np.ndarray, correct: np.ndarray, correct_new: np.ndarray) -> float:
    weights = np.random.default_rng(0).standard_gamma(1.0, (_REPLICATES, len(confidence)))
    weights /= weights.sum(axis=1, keepdims=True)
    draws = _weighted_ece(confidence_new, correct_new, weights) - _weighted_ece(confidence, correct, weights)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(high - low) / 2


def _weighted_ece(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray, bins: int = 15) -> np.ndarray:
    index = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    gaps = np.zeros((len(confidence), bins))
    gaps[np.arange(len(confidence)), index] = confidence - correct
    return np.abs(weights @ gaps).sum(axis=1)


_Method = tuple[tuple[str, ...], Callable[..., float]]
_METHODS: dict[str, tuple[_Method, ...]] = {
    "accuracy": ((("success",), _share),),
    "robust_accuracy": ((("attacked", "success"), lambda a, b, s, t: _robust(a, b, s, t)),),
    "auroc": ((("id_score", "ood_score"), _auroc),),
    "ece": ((("confidence", "correct"), _ece),),
}
_KEPT = sorted({name for methods in _METHODS.values() for names, _ in methods for name in names})


def samples_path(baseline: Path) -> Path:
    """Where the per-sample values of a baseline are."""
    return baseline.with_suffix(".samples.npz")


def write_samples(store: Store, frame: pd.DataFrame, path: Path) -> Path:
    """Write the per-sample values of the frame's ok cells, by identity, without pickle."""
    kept: dict[str, Any] = {}
    for _, cell in frame[frame["status"] == "ok"].drop_duplicates("key").iterrows():
        for name, array in store.arrays(cell["key"]).items():
            if name in _KEPT:
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
    try:
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                where, _, array = name.rpartition("/")
                found.setdefault(where, {})[array] = stored[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise GauntletError(
            f"The samples {path} cannot be read ({error}); `gauntlet baseline --samples` writes them."
        ) from None
    return found


def _address(row: Any) -> str:
    """Identity as a name inside the file; hex, since labels may hold anything."""
    parts = [header(name, row[name]) for name in LABEL_COLUMNS]
    return "\x1f".join(parts).encode().hex()
