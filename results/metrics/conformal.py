"""Conformal prediction sets: how often they hold the true class, and how large they are."""

from __future__ import annotations

from . import UNBOUNDED
from .outcomes import average, given, share

share(
    "coverage",
    "Coverage",
    "Share of images whose prediction set holds the true class.",
    stored=("covered",),
)
given(
    "coverage_gap",
    "Coverage gap",
    "Coverage minus the nominal one; below 0 where the guarantee does not hold, as under shift and attack.",
    low=-1.0,
)
average("set_size", "Set size", "Mean number of classes in a prediction set.", higher_is_better=False, **UNBOUNDED)
given(
    "size_coverage",
    "Size-stratified coverage",
    "Lowest coverage of sets of like size: 0 to 1, 2 to 3, 4 to 10, 11 to 100 or more classes (Angelopoulos et al. "
    "2020, arXiv 2009.14193).",
)
CONFORMAL = ("coverage", "coverage_gap", "set_size", "size_coverage")
