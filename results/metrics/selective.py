"""How well a score tells a classifier's errors from its right answers, and what it is worth to leave images unanswered.

Coverage is the share of images that are answered, the most certain first; risk is the mean loss of those. Images of one
score have no order: their risks are the means over all orders.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...registry import metric
from ..statistics import Selection, ratio
from . import UNBOUNDED, register
from .detection import aupr_in, aupr_out

Kernel = Callable[[Selection], np.ndarray]

#: Coverages and risks, in percent, at which accuracy and coverage are stated.
COVERAGES = (80, 90, 95)
RISKS = (1, 5)

#: Of errors (positive, higher scores) against right answers.
RANKED = ("auroc", "aupr_error", "aupr_success", "fpr95")
#: Of all answered images together.
SELECTIVE = (
    *("aurc", "e_aurc", "augrc", "aurra"),
    *(f"accuracy_at_{coverage}" for coverage in COVERAGES),
    *(f"coverage_at_risk_{risk}" for risk in RISKS),
)
_GEIFMAN = "Geifman, El-Yaniv 2017, arXiv 1705.08500"
_SLACK = 1e-6  # of sums of weights

register("aupr_error", "AUPR-error", "Average precision with errors positive, on the score.", kernel=aupr_out)
register(
    "aupr_success",
    "AUPR-success",
    "Average precision with right answers positive, on the negated score.",
    kernel=aupr_in,
)


@metric("aurc", title="AURC", higher_is_better=False, reference=_GEIFMAN)
def aurc(selection: Selection) -> np.ndarray:
    """Area under the risk-coverage curve: mean over k of the share of errors among the k most certain images."""
    from scipy.special import digamma

    before, lost = selection.answered - selection.count, selection.lost - selection.loss
    share = ratio(selection.loss, selection.count)
    # Sum over j = 1 ... g of (lost + j share) / (before + j), by the difference of two harmonic numbers.
    harmonic = digamma(selection.answered + 1) - digamma(before + 1)
    return (selection.loss + (lost - before * share) * harmonic).sum(-1) / selection.answered[..., -1]


@metric("e_aurc", title="E-AURC", higher_is_better=False, reference="Geifman, Uziel, El-Yaniv 2018, arXiv 1805.08206")
def e_aurc(selection: Selection) -> np.ndarray:
    """AURC minus the smallest one that any order of the same right and wrong answers has."""
    from scipy.special import digamma

    total, wrong = selection.answered[..., -1], selection.lost[..., -1]
    right = total - wrong
    # An order that is right to the last has none but rounding left.
    return np.maximum(aurc(selection) - (wrong - right * (digamma(total + 1) - digamma(right + 1))) / total, 0.0)


@metric("augrc", title="AUGRC", higher_is_better=False, high=0.5, reference="Traub et al. 2024, arXiv 2407.01032")
def augrc(selection: Selection) -> np.ndarray:
    """Area under the generalised risk-coverage curve: mean share of answered errors in all images."""
    lost = selection.lost - selection.loss / 2
    return (selection.count * lost).sum(-1) / selection.answered[..., -1] ** 2


@metric("aurra", title="AURRA", reference="Hendrycks, Lee, Mazeika 2019, arXiv 1901.09960")
def aurra(selection: Selection) -> np.ndarray:
    """Area under the response rate accuracy curve: mean accuracy over coverages, 1 - AURC."""
    return 1 - aurc(selection)


@metric(
    "scod_aurc",
    title="SCOD AURC",
    higher_is_better=False,
    reference="Xia, Bouganis 2022, arXiv 2207.07506",
    **UNBOUNDED,
)
def scod_aurc(selection: Selection) -> np.ndarray:
    """AURC over ID and OOD images together, where answering an error and answering an OOD image have a cost each."""
    return aurc(selection)


def accuracy_at(percent: int) -> Kernel:
    """The kernel of the accuracy on the most certain images, so many percent of all."""

    def accuracy(selection: Selection) -> np.ndarray:
        wanted = np.ceil(percent * selection.answered[..., -1:] / 100 - _SLACK)
        begun = np.clip(wanted - (selection.answered - selection.count), 0, selection.count)  # of each group
        return 1 - (begun * ratio(selection.loss, selection.count)).sum(-1) / wanted[..., 0]

    return accuracy


def coverage_at(percent: int) -> Kernel:
    """The kernel of the largest coverage of a threshold with a risk of at most so many percent; 0 where none has."""

    def coverage(selection: Selection) -> np.ndarray:
        within = 100 * selection.lost <= percent * selection.answered + _SLACK
        return np.where(within, selection.answered, 0).max(-1) / selection.answered[..., -1]

    return coverage


for each in COVERAGES:
    register(
        f"accuracy_at_{each}",
        f"Accuracy at {each} % coverage",
        f"Share of right answers among the {each} % of the images that are most certain ({_GEIFMAN}).",
        kernel=accuracy_at(each),
    )
for each in RISKS:
    register(
        f"coverage_at_risk_{each}",
        f"Coverage at {each} % risk",
        f"Largest share of images that can be answered with at most {each} % errors among them ({_GEIFMAN}).",
        kernel=coverage_at(each),
    )
