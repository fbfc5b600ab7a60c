"""What metrics are computed from, image by image, and what their kernels see of it.

A sample holds one number or more of each image. A kernel sees *statistics* of it, in which every image has a weight:
1 for the metric itself, whole numbers where images repeat, random ones in a bootstrap replicate. Weights may have
leading axes (replicates, say); a kernel works along the last one and returns one value for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ..registry import GauntletError
from .intervals import check_sample
from .statistics import Ranking, Reliability, ratio

BINS = 15  # of confidence


class Sample:
    """One or more numbers of each image.

    Attributes:
        kinds: The statistics that it has, as kernels name them in their arguments.
        sizes: Number of images of each set of images in it.
        n: Independent trials behind a share of it, for exact bounds.
    """

    kinds: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def n(self) -> int:
        """Of two sets, the pairs that share no image."""
        return min(self.sizes)

    @property
    def statistics(self) -> Mapping[str, Any]:
        """By kind, every image with weight 1."""
        raise NotImplementedError

    def weights(self, rng: np.random.Generator, replicates: int) -> tuple[np.ndarray, ...]:
        """Random weights (replicates, N) of mean 1 for each set of images in it (Bayesian bootstrap, Rubin 1981)."""
        return tuple(_shares(rng, np.ones(size), replicates) for size in self.sizes)

    def weighted(self, *weights: np.ndarray) -> Mapping[str, Any]:
        """The statistics with these weights (..., N) of the images, one array for each set of images in it."""
        raise NotImplementedError

    def replicates(self, rng: np.random.Generator, replicates: int) -> Mapping[str, Any]:
        """The statistics of bootstrap replicates, along a leading axis; by default image by image."""
        return self.weighted(*self.weights(rng, replicates))


class Scores(Sample):
    """Scores of ID and OOD images.

    Args:
        inside: (N,) scores of ID images, higher = more OOD.
        outside: (M,) scores of OOD images.
        correct: (N,) whether each ID image is classified right, where that is known.
        images: Whole numbers (N,) and (M,) that tell which image each score is of; None where all differ.

    Raises:
        GauntletError: A side is empty or has scores that are not finite, or ``correct`` has another length.
    """

    def __init__(
        self,
        inside: Any,
        outside: Any,
        correct: Any = None,
        images: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.inside, self.outside = check_sample(inside, "ID scores"), check_sample(outside, "OOD scores")
        self.correct = None if correct is None else np.asarray(correct, dtype=bool).ravel()
        self.images = images
        self.kinds = ("ranking",) if correct is None else ("ranking", "right")
        self.sizes = len(self.inside), len(self.outside)
        if self.correct is not None and len(self.correct) != len(self.inside):
            raise GauntletError(
                f"The OSCR needs one outcome per ID score, got {len(self.correct)} for {len(self.inside)}."
            )

    @cached_property
    def ranking(self) -> Ranking:
        """Every image with weight 1."""
        # numpy sorts values faster than positions: each side is sorted by value, and the stable sort of positions
        # finds two sorted runs and only merges them.
        negated = np.concatenate([_negated(self.outside), _negated(self.inside)])
        order = np.argsort(negated, kind="stable")
        ordered = negated[order]
        ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        caught = np.cumsum(order < len(self.outside), dtype=np.float64)[ends]
        return Ranking.from_counts(-ordered[ends], caught, ends + 1)

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Every image with weight 1."""
        return self._statistics(self.ranking, np.ones(len(self.inside)))

    def _statistics(self, ranking: Ranking, weights: np.ndarray) -> dict[str, Any]:
        if self.correct is None:
            return {"ranking": ranking}
        right = _sums(self._groups(self.inside), weights * self.correct, len(ranking.score))
        return {"ranking": ranking, "right": right}

    def _groups(self, scores: np.ndarray) -> np.ndarray:
        return np.searchsorted(-self.ranking.score, -scores)

    def weighted(self, *weights: np.ndarray) -> Mapping[str, Any]:
        """Weights of the ID images and of the OOD images."""
        score = self.ranking.score
        sides = zip((self.inside, self.outside), weights, strict=True)
        ranking = Ranking.from_weights(
            score, *(_sums(self._groups(side), weight, len(score)) for side, weight in sides)
        )
        return self._statistics(ranking, weights[0])

    def weights(self, rng: np.random.Generator, replicates: int) -> tuple[np.ndarray, ...]:
        """Random weights (replicates, N) and (replicates, M) of mean 1; all scores of one image have the same."""
        if self.images is None:
            return super().weights(rng, replicates)
        _, place = np.unique(np.concatenate(self.images), return_inverse=True)
        drawn = rng.standard_gamma(1.0, size=(replicates, place.max() + 1))[:, place]
        sides = drawn[:, : self.sizes[0]], drawn[:, self.sizes[0] :]
        return tuple(side / side.mean(axis=1, keepdims=True) for side in sides)  # how many each has is no chance

    def replicates(self, rng: np.random.Generator, replicates: int) -> Mapping[str, Any]:
        """Of at most 512 groups of the ranking: a group of k images weighs Gamma(k), so few numbers are drawn.

        Where images have several scores, weights are drawn image by image instead.
        """
        groups = self.ranking.compressed()
        if self.images is not None:
            return self._clustered(groups, rng, replicates)
        inside = _shares(rng, groups.inside, replicates)
        drawn = Ranking.from_weights(groups.score, inside, _shares(rng, groups.outside, replicates))
        if self.correct is None:
            return {"ranking": drawn}
        at = np.searchsorted(-groups.score, -self.inside)
        right = np.bincount(at[self.correct], minlength=len(groups.score))
        # Given what a group weighs, the share of its right images is Beta distributed.
        parts = [rng.standard_gamma(count, size=inside.shape) for count in (right, groups.inside - right)]
        return {"ranking": drawn, "right": inside * ratio(parts[0], parts[0] + parts[1])}

    def _clustered(self, groups: Ranking, rng: np.random.Generator, replicates: int) -> dict[str, Any]:
        at = [np.searchsorted(-groups.score, -side) for side in (self.inside, self.outside)]
        count, parts = len(groups.score), []
        for _ in range(replicates):  # one by one: all weights of all images at once would take gigabytes
            inside, outside = (weights[0] for weights in self.weights(rng, 1))
            right = inside * (1.0 if self.correct is None else self.correct)
            drawn = ((at[0], inside), (at[1], outside), (at[0], right))
            parts.append([np.bincount(place, weights, count) for place, weights in drawn])
        inside, outside, right = np.swapaxes(parts, 0, 1)
        ranking = {"ranking": Ranking.from_weights(groups.score, inside, outside)}
        return ranking if self.correct is None else {**ranking, "right": right}


class Confidences(Sample):
    """Confidence of each image and whether it is classified right.

    Args:
        confidence: (N,) largest probabilities, in [0, 1].
        correct: (N,) whether the prediction is right.
        bins: Number of bins of equal width.

    Raises:
        GauntletError: There are no images, or a confidence is not a finite number.
    """

    kinds = ("reliability",)

    def __init__(self, confidence: Any, correct: Any, bins: int = BINS) -> None:
        self.confidence = check_sample(confidence, "confidences")
        self.correct = np.asarray(correct, dtype=np.float64).ravel()
        self.bins, self.sizes = bins, (len(self.confidence),)

    @cached_property
    def bin_of(self) -> np.ndarray:
        """(N,) which bin each image belongs to."""
        return np.searchsorted(np.arange(1, self.bins) / self.bins, self.confidence, side="left")

    @property
    def unanimous(self) -> bool:
        """Whether all images are right, or all wrong."""
        return bool(np.ptp(self.correct) == 0)

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Every image with weight 1."""
        return {"reliability": self.reliability}

    @cached_property
    def reliability(self) -> Reliability:
        """Every image with weight 1."""
        sums = (np.bincount(self.bin_of, part, self.bins) for part in (self.confidence, self.correct))
        return Reliability(np.bincount(self.bin_of, minlength=self.bins), *sums)

    def weighted(self, *weights: np.ndarray) -> Mapping[str, Any]:
        """Weights of the images."""
        parts = (weights[0], weights[0] * self.confidence, weights[0] * self.correct)
        return {"reliability": Reliability(*(_sums(self.bin_of, part, self.bins) for part in parts))}

    def replicates(self, rng: np.random.Generator, replicates: int) -> Mapping[str, Any]:
        """Of groups of images of like confidence (in one of about 256 steps) and outcome."""
        steps = -(-256 // self.bins)  # per bin
        step = np.clip((self.confidence * self.bins - self.bin_of) * steps, 0, steps - 1).astype(np.int64)
        index = (self.bin_of * steps + step) * 2 + (self.correct > 0.5)
        counts = np.bincount(index)
        used = np.flatnonzero(counts)
        sums = (np.bincount(index, part)[used] / counts[used] for part in (self.confidence, self.correct))
        weights = _shares(rng, counts[used], replicates)  # (replicates, groups)
        belongs = ((used // (2 * steps))[:, None] == np.arange(self.bins)).astype(np.float64)
        return {"reliability": Reliability(weights @ belongs, *(weights @ (belongs * part[:, None]) for part in sums))}


class Values(Sample):
    """One number of each image, such as whether it is classified right.

    Args:
        values: (N,) numbers or flags.
        weight: (..., N) what each image counts; None where all count 1.
    """

    kinds = ("values",)

    def __init__(self, values: Any, weight: np.ndarray | None = None) -> None:
        self.values = np.asarray(values, dtype=np.float64).ravel()
        self.weight, self.sizes = weight, (len(self.values),)

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Every image with weight 1."""
        return {"values": self}

    def weighted(self, *weights: np.ndarray) -> Mapping[str, Any]:
        """Weights of the images."""
        return {"values": Values(self.values, weights[0])}


def _negated(scores: np.ndarray) -> np.ndarray:
    """The scores times -1, sorted."""
    negated = np.negative(scores)
    negated.sort()
    return negated


def _shares(rng: np.random.Generator, counts: np.ndarray, replicates: int) -> np.ndarray:
    """(replicates, groups) random weights of groups of so many images; each row sums to the number of images."""
    weights = rng.standard_gamma(counts.astype(np.float64), size=(replicates, len(counts)))
    return weights * (counts.sum() / weights.sum(axis=1, keepdims=True))


def _sums(group: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """(..., count) sums by group (N,) of weights (..., N)."""
    rows = [np.bincount(group, row, count) for row in np.atleast_2d(weights)]
    return np.array(rows).reshape(*weights.shape[:-1], count)
