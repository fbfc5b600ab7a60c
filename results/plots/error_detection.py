"""Risk-coverage curves of detectors as scores of confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..curves import risk_coverage
from ..metrics.selective import aurc
from ..selective import Selective
from .kinds import Material, common, few, labels, plot
from .style import figure, legend_below, line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REPLICATES = 200
_GRID = np.linspace(0.05, 1, 96)  # below, one image decides


@plot("error-detection")
def error_detection(material: Material) -> Figure:
    """Share of errors among the answered images against coverage, by detector, with 95 % bootstrap bands."""
    cells = material.cells("misclassification", "score", "loss")
    found = few([(cell, arrays) for cell, arrays in cells if not cell["ood_dataset"]], "curves")
    drawn, axes = figure(4.8, 3.8 + 0.2 * len(found))
    names = labels([cell for cell, _ in found])
    for i, ((_, arrays), name) in enumerate(zip(found, names, strict=True)):
        score, wrong = arrays["score"], arrays["loss"] > 0
        area = float(aurc(Selective(score, wrong).statistics["selection"]))
        coverage, risk = risk_coverage(-score, ~wrong)
        seen = coverage >= _GRID[0]
        axes.plot(100 * coverage[seen], 100 * risk[seen], label=f"{name} (AURC {100 * area:.2f} %)", **line(i))
        low, high = risk_band(score, wrong)
        axes.fill_between(100 * _GRID, 100 * low, 100 * high, color=line(i)["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel="Coverage (%)", ylabel="Errors among the answered (%)", xlim=(0, 100), ylim=(0, None))
    axes.set_title(f"Risk and coverage: {common([cell for cell, _ in found])}")
    legend_below(drawn, axes)
    return drawn


def risk_band(score: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % pointwise bootstrap band of the risk at coverages from 5 % on; images are resampled."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(_REPLICATES):
        again = rng.integers(0, len(score), len(score))
        drawn.append(np.interp(_GRID, *risk_coverage(-score[again], ~wrong[again])))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high
