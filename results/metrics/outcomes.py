"""Shares, means and medians over images (outcomes, norms, scores, errors), and what evaluators compute themselves."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..samples import Values
from . import REAL, UNBOUNDED, by_its_evaluator, register


def mean(values: Values) -> np.ndarray:
    """Mean over images."""
    if values.weight is None:
        return np.asarray(values.values.mean())
    return (values.weight * values.values).sum(-1) / values.weight.sum(-1)


def median(values: Values) -> np.ndarray:
    """Median over images; of an even number the middle between the two in the middle."""
    if values.weight is None:
        return np.asarray(np.median(values.values))
    order = np.argsort(values.values, kind="stable")
    ordered, below = values.values[order], values.weight[..., order].cumsum(-1)
    # The first value with at least half of the weight up to it, and the first with more than half.
    ends = [sign(2 * below, below[..., -1:]).sum(-1) for sign in (np.less, np.less_equal)]
    return (ordered[ends[0]] + ordered[ends[1]]) / 2


share = partial(register, kernel=mean, interval="clopper-pearson")
average = partial(register, kernel=mean)
middle = partial(register, kernel=median, interval="order-statistics", higher_is_better=None)
given = partial(register, kernel=by_its_evaluator)

share("accuracy", "Accuracy", "Share of images classified correctly.", headline=True, stored=("success",))
share(
    "robust_accuracy",
    "Robust accuracy",
    "Share of all evaluated images still classified correctly after the attack; a clean error counts as an error.",
    headline=True,
    stored=("attacked", "success"),
)
share(
    "attack_success_rate",
    "Attack success rate",
    "Share of the images classified correctly before the attack that are not after it.",
    higher_is_better=False,
)
given(
    "corruption_error",
    "mCE",
    "Mean over corruptions of the error, summed over severities, divided by that of a baseline model (Hendrycks, "
    "Dietterich 2019, arXiv 1903.12261).",
    higher_is_better=False,
    **UNBOUNDED,
)
given(
    "relative_corruption_error",
    "relative mCE",
    "The same of what corruptions add to the clean error (Hendrycks, Dietterich 2019, arXiv 1903.12261).",
    higher_is_better=False,
    **REAL,
)
middle(
    "median_norm",
    "Median norm",
    "Median over images of the smallest perturbation that fools the model, in the attack's norm with pixels in "
    "[0, 1]; infinite where most are never fooled (Schott et al. 2018, arXiv 1805.09190).",
    higher_is_better=True,
    **UNBOUNDED,
)
given(
    "forwards",
    "Forward passes",
    "Mean number of forward passes that the attack made per image.",
    higher_is_better=None,
    **UNBOUNDED,
)
given(
    "backwards",
    "Backward passes",
    "Mean number of backward passes that the attack made per image.",
    higher_is_better=None,
    **UNBOUNDED,
)
given(
    "broken_outputs",
    "NaN outputs",
    "Share of the attacked images for which the model's logits are NaN: neither robust nor fooled.",
    higher_is_better=False,
)
given(
    "lost_gradients",
    "NaN gradients",
    "Share of the entries of the attack's input gradients that are NaN or infinite; they count as 0.",
    higher_is_better=None,
)
given(
    "check_passed",
    "Check passed",
    "1 where a sanity check found nothing against a model's robust figures, 0 where it did; `reason` says what.",
    percent=False,
)
given(
    "check_figure",
    "Figure of the check",
    "The number behind a sanity check's verdict, such as the share of images without a gradient.",
    higher_is_better=None,
    **REAL,
)
share(
    "open_accuracy",
    "Open-set accuracy",
    "Share of ID and OOD images that get their own class, where all OOD images are one class more.",
)
share("open_accuracy_id", "Accuracy, ID", "Share of ID images that are classified right and not flagged as OOD.")
share("ood_rejected", "OOD rejected", "Share of OOD images that are flagged as OOD.")
share("false_alarm_rate", "False alarms", "Share of ID images that are flagged as OOD.", higher_is_better=False)
middle("median_score", "Median score", "Median of the detector's score over the images of a class.", **REAL)
middle(
    "median_h",
    "Median h",
    "Median over the images of a class of the output of the model's discriminator, near 1 for fakes.",
    percent=False,
)
middle(
    "median_max_2_max",
    "Median Max-2-Max",
    "Median over the images of a class of the gap between the two largest probabilities, OOD among them.",
    percent=False,
)
average(
    "reconstruction_mse",
    "Reconstruction MSE",
    "Mean over images of the squared error of the reconstruction from the clean image, a mean over its pixels in "
    "[0, 1]; under attack, of the reconstruction of the attacked image from the clean one.",
    higher_is_better=False,
    percent=False,
    decimals=5,
)
average(
    "reconstruction_mse_input",
    "Reconstruction MSE to the input",
    "Mean over images of the squared error of the reconstruction of an attacked image from that same image: what "
    "the attack drives up.",
    higher_is_better=False,
    percent=False,
    decimals=5,
)
given(
    "seconds",
    "Time",
    "Median time of a round, in seconds, as pytest-benchmark measures it.",
    higher_is_better=False,
    **UNBOUNDED,
)
