"""Results of pytest-benchmark as tidy rows, so that speed is gated like every other measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ..registry import GauntletError
from .frame import COLUMNS, as_tidy


def read_benchmarks(path: Path | str) -> pd.DataFrame:
    """Median seconds of every benchmark of a `pytest --benchmark-json` file, with its quartiles as interval.

    Raises:
        GauntletError: The file is absent or not of pytest-benchmark.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [_row(entry) for entry in content["benchmarks"]]
    except OSError as error:
        raise GauntletError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise GauntletError(f"{path} is not of pytest-benchmark; `pytest --benchmark-json FILE` writes one.") from None
    if not rows:
        raise GauntletError(f"{path} holds no benchmarks; run pytest with tests that use the benchmark fixture.")
    return as_tidy(pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype(object).fillna(dict.fromkeys(_TEXTS, "")))


_TEXTS = [
    name
    for name in COLUMNS
    if name not in ("epsilon", "severity", "value", "ci_low", "ci_high", "n", "seconds", "seed")
]


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    stats = entry["stats"]
    return {
        "evaluator": "benchmark",
        "role": "measured",
        "model": entry.get("fullname") or entry["name"],
        "seed": 0,
        "metric": "seconds",
        "value": float(stats["median"]),
        "ci_low": float(stats["q1"]),
        "ci_high": float(stats["q3"]),
        "n": int(stats["rounds"]),
        "status": "ok",
        "params": "{}",
        "key": str(entry.get("fullname")),
    }
