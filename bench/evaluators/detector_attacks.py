"""One detector under one attack: its score driven up or down, and driven together with the classifier's answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...attacks import Attack, PerImageRNG, Victim, build_attack
from ...attacks.score import JointVictim, Score, ScoreVictim
from ...registry import ATTACKS, GauntletError, NotAvailable, Obstacle
from ..tapped_score import differentiable, from_outside
from .accuracy import checked_logits
from .attack_measures import attack_and_ask

if TYPE_CHECKING:
    from ...datasets import ImageSet
    from ..context import RowContext
    from ..fitted_detector import FittedDetector
    from .robust_ood import RobustJob

#: Runs of each attack, each from a random start of its own; the most extreme score of an image counts.
STARTS = 2
#: Share of images without a gradient from which on a score counts as masked, and is searched from outside.
_MASKED = 0.5
_TRIED = 16  # images on which gradients are looked at
_QUERIES = 300  # of square search, a start
_KEPT = 0.95  # of the ID images, by the threshold of the joint attack


@dataclass
class Side:
    """Images of one side: their scores as they are (N,), and the most extreme ones by budget."""

    clean: np.ndarray
    attacked: dict[float, np.ndarray]


class DetectorAttack:
    """One detector under one attack.

    Attributes:
        label: The detector's.
        has_gradient: Whether attacks by gradients see its score.
        reason: What was done instead, where they do not.
    """

    def __init__(
        self, job: RobustJob, label: str, fitted: FittedDetector, epsilons: Sequence[float], context: RowContext
    ) -> None:
        self._job, self.label, self._fitted = job, label, fitted
        self._epsilons, self._context = epsilons, context
        self._like = context.outputs(job.row.dataset, "test")
        scores = fitted.scores(self._like)
        self._scale = float(scores.std()) or 1.0
        self._threshold = float(np.quantile(scores, _KEPT, method="higher"))
        self._score = differentiable(fitted.detector, self._like)
        self._attack = build_attack(job.attack.attack.entry, job.attack.attack.parameters)
        why = self._why_no_gradient()
        self.has_gradient = not why
        self.reason = (
            f"{why}: attacked from outside, by transfer from the largest probability and by square search."
            if why
            else ""
        )

    def _why_no_gradient(self) -> Obstacle:
        """What keeps gradients of the score from the images."""
        context, row = self._context, self._job.row
        some = context.images(row.dataset, "test").subset(torch.arange(min(_TRIED, len(self._like))))
        x = some.images.to(context.device)
        try:
            with self._victim(self._score) as victim:
                gradient = victim.gradient(x, torch.ones(len(x), dtype=torch.int64, device=x.device))[0]
        except (GauntletError, RuntimeError, TypeError, AssertionError, AttributeError, KeyError):
            return f"The score of {self.label} has no gradient"
        lost = float((gradient.flatten(1).abs().amax(1) == 0).float().mean())
        return f"The gradient of the score of {self.label} is 0 for {lost:.0%} of the images" if lost > _MASKED else ""

    def _victim(self, score: Score, scale: float | None = None) -> Victim:
        context = self._context
        settings: dict[str, Any] = {"device": context.device, "batch_size": context.batch_size}
        return ScoreVictim(context.module(), score, scale=self._scale if scale is None else scale, **settings)

    def _rng(self, images: ImageSet, start: int) -> PerImageRNG:
        stream = f"{self._job.row.seed}/{images.name}/{self._attack.name}/robust-ood/{start}"
        return PerImageRNG(stream, images.indices.to(self._context.device))

    def side(self, images: ImageSet, label: int) -> Side:
        """Scores of images as they are and as attacked: driven up where the label is 0, down where it is 1."""
        x = images.images.to(self._context.device).float()
        score = self._score if self.has_gradient else from_outside(self._fitted, images, self._context)
        ask = partial(_asked, score, self._context.batch_size)
        clean = ask(x)
        worst = torch.maximum if label == 0 else torch.minimum
        found = dict.fromkeys(self._epsilons, clean)
        for attack, victim in self._attempts(score):
            y = torch.full((len(x),), label, dtype=torch.int64, device=x.device)
            for start in range(STARTS):
                with victim() as entered:
                    given = attack, self.label, entered, x, y, self._epsilons, self._rng(images, start), ask
                    for epsilon, made in zip(self._epsilons, attack_and_ask(*given), strict=True):
                        found[epsilon] = worst(found[epsilon], made.answer)
        attacked = {epsilon: scores.double().cpu().numpy() for epsilon, scores in found.items()}
        return Side(clean.double().cpu().numpy(), attacked)

    def _attempts(self, score: Score) -> Iterator[tuple[Attack, Any]]:
        """The attack itself; where it does not see the score, on the largest probability, and square search."""
        if self.has_gradient or self._job.attack.attack.entry.meta.get("access") in ("score", "none"):
            yield self._attack, partial(self._victim, score)
            return
        yield self._attack, partial(self._victim, self._probability, 1.0)
        if self._attack.norm in ("linf", "l2"):
            square = build_attack(ATTACKS.get("square"), {"norm": self._attack.norm, "queries": _QUERIES})
            yield square, partial(self._victim, score)

    def _probability(self, images: Tensor) -> Tensor:
        """Minus the log of the largest probability (N,): higher is more OOD."""
        assert self._like.tap is not None
        return -self._like.tap(images)["logits"].log_softmax(1).amax(1)

    def joint(self, images: ImageSet) -> dict[float, tuple[int, int]]:
        """By budget, how many ID images are accepted and wrong once both are attacked together, of how many."""
        context = self._context
        x, y = images.images.to(context.device).float(), images.labels.to(context.device)
        settings: dict[str, Any] = {"device": context.device, "batch_size": context.batch_size}
        make = partial(JointVictim, context.module(), self._score, threshold=self._threshold, scale=self._scale)
        outputs = context.outputs_of(images)
        checked_logits(outputs.logits, self._job.row.model.label)
        with make(**settings) as victim:
            lost = {epsilon: victim.fooled(x, y) for epsilon in self._epsilons}
            for start in range(STARTS):
                given = self._attack, self.label, victim, x, y, self._epsilons, self._rng(images, start)
                for epsilon, made in zip(
                    self._epsilons, attack_and_ask(*given, partial(_fooled, victim, y)), strict=True
                ):
                    lost[epsilon] = lost[epsilon] | made.answer
        return {epsilon: (int(found.sum()), len(x)) for epsilon, found in lost.items()}


def _asked(score: Score, batch_size: int, images: Tensor) -> Tensor:
    """Scores (N,) without gradients.

    Raises:
        NotAvailable: Some are no numbers.
    """
    with torch.no_grad():
        found = torch.cat([score(part) for part in images.split(batch_size)])
    if not bool(found.isfinite().all()):
        raise NotAvailable("The detector's score is NaN or infinite for some images.")
    return found


def _fooled(victim: Victim, labels: Tensor, images: Tensor) -> Tensor:
    return victim.fooled(images, labels)
