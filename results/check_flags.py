"""Which robust figures are in doubt, by the sanity checks of each model; tables mark them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from .records import ROLES

MARK = "†"
#: Metrics that an attack which does not work makes look better than they are.
ROBUST = ("robust_accuracy", "attack_success_rate", "median_norm")

#: (model, dataset) -> the checks that it fails, each with its finding.
FailedChecks = Mapping[tuple[str, str], Mapping[str, str]]


def checks_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the checks, to go along with any selection of a frame so that its tables are marked."""
    return frame[frame["evaluator"] == "checks"]


def failed_checks(frame: pd.DataFrame) -> FailedChecks:
    """The failed checks of every model in a tidy frame; models that pass, or were not checked, are left out."""
    verdicts = frame[(frame["evaluator"] == "checks") & (frame["metric"] == "check_passed") & (frame["value"] == 0)]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in verdicts.itertuples():
        found.setdefault((str(row.model), str(row.dataset)), {})[str(row.attack)] = str(row.reason)
    return found


def flagged_rows(chosen: pd.DataFrame, failed: FailedChecks) -> np.ndarray:
    """For each row, whether it is a robust figure of a model that fails a check."""
    robust = chosen["metric"].isin(ROBUST) & (chosen["evaluator"] == "attack") & (chosen["status"] == "ok")
    robust &= chosen["role"].isin(ROLES)  # not the clean images that a table puts beside them
    marked = np.zeros(len(chosen), dtype=bool)
    for place in np.flatnonzero(robust) if failed else ():
        marked[place] = (chosen["model"].iloc[place], chosen["dataset"].iloc[place]) in failed
    return marked


def footnotes(chosen: pd.DataFrame, failed: FailedChecks) -> list[str]:
    """One sentence for each model of the table that fails a check."""
    present = dict.fromkeys(zip(chosen["model"], chosen["dataset"], strict=True))
    return [
        f"{MARK} {model} on {dataset} fails the check{'s' if len(failed[model, dataset]) > 1 else ''} "
        f"{', '.join(failed[model, dataset])}: its robust figures are not to be trusted. "
        f"{next(iter(failed[model, dataset].values()))}"
        for model, dataset in present
        if (model, dataset) in failed
    ]
