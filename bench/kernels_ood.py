"""Metrics of out-of-distribution detection, all read off one sort of the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..registry import GauntletError

Counts = NDArray[np.int64]


def ood_metrics(id_scores: Any, ood_scores: Any) -> dict[str, float]:
    """How well scores tell OOD images (positive, higher scores) from ID images; equal scores share one threshold.

    Args:
        id_scores: Scores of ID images, shape (N,), a tensor or array; a CUDA tensor is sorted where it lies.
        ood_scores: Scores of OOD images, shape (M,).

    Returns:
        Numbers in [0, 1]:

        - ``auroc``: chance that an OOD image scores higher than an ID image, ties 1/2;
        - ``aupr_out``, ``aupr_in``: average precision with OOD (by high scores) or ID (by low scores) positive;
        - ``fpr95``: share of ID flagged at the highest threshold that catches 95 % of OOD;
        - ``fpr95_id``: share of OOD accepted at the lowest threshold that keeps 95 % of ID;
        - ``detection_error``: least mean of the shares of missed OOD and flagged ID (Liang et al. 2017, 1706.02690);
        - ``aupr_out_trapezoid``, ``aupr_in_trapezoid``: the same precision-recall curves by the trapezoidal rule, from
          (recall 0, precision 1) on, as OpenOOD and pytorch-ood report them;
        - ``autc``: mean of the areas under the shares of flagged ID and of missed OOD over all thresholds, scores
          scaled to [0, 1] (Humblot-Renaux, Escalera, Moeslund 2023, 2306.14658); 1/2 for constant scores.

    Raises:
        GauntletError: A side is empty or has scores that are not finite.
    """
    inside, outside = _scores(id_scores, "ID"), _scores(ood_scores, "OOD")
    ood, id_ = _flagged(inside, outside)
    # What scores at most a threshold is what the thresholds above it do not flag; read from the lowest score up.
    kept_ood, kept_id = ((counts[-1] - _before(counts))[::-1] for counts in (ood, id_))
    n_ood, n_id = int(ood[-1]), int(id_[-1])
    aupr_in, aupr_in_trapezoid = _aupr(kept_id, kept_ood)
    aupr_out, aupr_out_trapezoid = _aupr(ood, id_)
    return {
        "auroc": _auroc(ood, id_),
        "aupr_in": aupr_in,
        "aupr_out": aupr_out,
        "fpr95": _errors_at_95(ood, id_),
        "fpr95_id": _errors_at_95(kept_id, kept_ood),
        # With nothing flagged every OOD image is missed, which is an error of 1/2.
        "detection_error": 0.5 + min(0, int((id_ * n_ood - ood * n_id).min())) / (2 * n_ood * n_id),
        "aupr_in_trapezoid": aupr_in_trapezoid,
        "aupr_out_trapezoid": aupr_out_trapezoid,
        "autc": _autc(inside, outside.to(inside.device)),
    }


def oscr(id_scores: Any, ood_scores: Any, correct: Any) -> float:
    """Open-set classification rate (Dhamija, Guenther, Boult 2018, arXiv 1811.04110).

    The area under the share of ID images that are accepted and classified correctly over the share of OOD images
    accepted; equal scores share one threshold. It is the chance that an ID image is classified correctly and scores
    lower than an OOD image, ties 1/2.

    Args:
        id_scores: Scores of ID images, shape (N,), higher = more OOD.
        ood_scores: Scores of OOD images, shape (M,).
        correct: Whether each ID image is classified correctly, shape (N,).

    Raises:
        GauntletError: A side is empty, has scores that are not finite, or ``correct`` has another length.
    """
    inside = _scores(id_scores, "ID").cpu().numpy() + 0.0
    outside = np.sort(_scores(ood_scores, "OOD").cpu().numpy() + 0.0)
    right = np.asarray(torch.as_tensor(correct).cpu(), dtype=bool).reshape(-1)
    if len(right) != len(inside):
        raise GauntletError(f"The OSCR needs one outcome per ID score, got {len(right)} for {len(inside)}.")
    chosen = inside[right]
    at_most = np.searchsorted(outside, chosen, "left") + np.searchsorted(outside, chosen, "right")
    return float((2 * len(outside) - at_most).sum() / (2 * len(outside) * len(inside)))


def _scores(values: Any, side: str) -> Tensor:
    # Lists pass through numpy, which reads them in float64; torch would round them to float32.
    scores = torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).detach().reshape(-1)
    scores = (scores if scores.device.type == "cuda" else scores.cpu()).double()
    if not len(scores):
        raise GauntletError(f"OOD metrics need at least one {side} score, got none.")
    bad = int((~scores.isfinite()).sum())
    if bad:
        raise GauntletError(f"OOD metrics need finite scores, but {bad} of {len(scores)} {side} scores are not.")
    return scores


def _flagged(id_scores: Tensor, ood_scores: Tensor) -> tuple[Counts, Counts]:
    """How many OOD and ID images score at least each distinct score, from the highest score down."""
    sort = _sort_on_gpu if id_scores.device.type == "cuda" else _sort_on_cpu
    from_ood, ends = sort(id_scores, ood_scores.to(id_scores.device))
    return from_ood, ends + 1 - from_ood


def _sort_on_cpu(id_scores: Tensor, ood_scores: Tensor) -> tuple[Counts, Counts]:
    """Per distinct score, highest first: how many OOD scores reach it, and the position of its last one."""
    # numpy sorts several times faster than torch on a CPU, and values faster than positions: each side is sorted by
    # value, and the stable sort of positions finds two sorted runs and only merges them.
    descending = np.concatenate([_descending(ood_scores), _descending(id_scores)])
    order = np.argsort(descending, kind="stable")
    ordered = descending[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return np.cumsum(order < len(ood_scores), dtype=np.int64)[ends], ends


def _descending(scores: Tensor) -> NDArray[np.float64]:
    """The scores times -1, sorted."""
    negated = np.negative(scores.numpy())
    negated += 0.0  # turns -0.0 into 0.0
    negated.sort()
    return negated


def _sort_on_gpu(id_scores: Tensor, ood_scores: Tensor) -> tuple[Counts, Counts]:
    """The same where the scores lie."""
    ordered, order = (torch.cat([ood_scores, id_scores]) + 0.0).sort(descending=True)
    ends = torch.cat([(ordered[1:] != ordered[:-1]).nonzero()[:, 0], order.new_tensor([len(order) - 1])])
    return (order < len(ood_scores)).cumsum(0)[ends].cpu().numpy(), ends.cpu().numpy()


def _gained(counts: Counts) -> Counts:
    """How much each threshold adds."""
    return np.diff(counts, prepend=0)


def _before(counts: Counts) -> Counts:
    """The cumulative count before each threshold."""
    return np.concatenate([[0], counts[:-1]])


def _auroc(ood: Counts, id_: Counts) -> float:
    """Area under the ROC curve, as a quotient of two exact integers."""
    doubled = int(np.einsum("i,i", _gained(id_), ood + _before(ood)))
    return doubled / (2 * int(ood[-1]) * int(id_[-1]))


def _aupr(positives: Counts, negatives: Counts) -> tuple[float, float]:
    """Area under precision over recall: by steps (average precision), and by trapezoids from (0, 1) on."""
    precision = positives / (positives + negatives)
    gained = _gained(positives).astype(np.float64)
    total = float(positives[-1])
    # Not `@`: a BLAS wakes its threads for a product of this size, which takes longer than the product.
    at_end = float(np.einsum("i,i", gained, precision)) / total
    at_start = float(gained[0] + np.einsum("i,i", gained[1:], precision[:-1])) / total
    return at_end, (at_end + at_start) / 2


def _autc(inside: Tensor, outside: Tensor) -> float:
    low = min(float(inside.min()), float(outside.min()))
    width = max(float(inside.max()), float(outside.max())) - low
    # Moved to 0 one by one: the difference of two means far from 0 would round more than that of these.
    return 0.5 + float((inside - low).mean() - (outside - low).mean()) / (2 * width) if width > 0 else 0.5


def _errors_at_95(positives: Counts, negatives: Counts) -> float:
    """Share of negatives taken at the first threshold that takes 95 % of the positives."""
    enough = -(-95 * int(positives[-1]) // 100)  # rounded up, in whole numbers: 95 % of 20 is 19 and not 19.000...1
    return float(negatives[np.searchsorted(positives, enough)] / negatives[-1])
