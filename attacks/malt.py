"""MALT: targets in the order in which an almost linear model would be reached."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError
from .apgd import APGDT, wrong_classes
from .budget import BudgetSearch, SearchBatch
from .native import native

_DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


@native("malt", "linf", "l2", "l1", reference="Melamed, Yehudai, Shamir 2024, arXiv 2407.02240", cost="standard")
class MALT(APGDT):
    """``apgd-t`` towards the classes whose boundary is nearest if the model is linear around the image.

    Melamed, Yehudai, Shamir 2024, arXiv 2407.02240: among the likeliest ``candidates``, by the gap to the label's logit
    over the norm of the gradient of that gap, here the norm dual to the attack's (the paper states it for L2 gradients;
    the authors' code was not at hand).

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        steps: Gradient steps for each target.
        targets: Classes to aim at, nearest first; at most all candidates.
        candidates: Classes that are ranked, likeliest first.
        restarts: Random starts for each target.
        eot: Passes over which gradient and loss are averaged, for models that are random.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self,
        norm: Literal["linf", "l2", "l1"] = "linf",
        steps: int = 100,
        targets: int = 9,
        candidates: int = 100,
        restarts: int = 1,
        eot: int = 1,
    ) -> None:
        super().__init__(norm, steps, targets, restarts, eot)
        if candidates < 1:
            raise GauntletError(f"malt needs candidates >= 1, got {candidates}.")
        self.candidates = candidates

    def targets(self, batch: SearchBatch, items: Tensor, state: BudgetSearch, restart: int) -> Tensor:
        """The wrong classes in turn, by their linearised distance from the original image."""
        victim = batch.victim
        batch.count_queries(items, 1)
        likely = wrong_classes(victim.outputs(state.clean), state.labels)[:, : self.candidates]
        slopes, outputs = victim.logit_difference_gradients(state.clean, likely, state.labels)
        batch.count_queries(items, 1, likely.shape[1])
        gaps = outputs.gather(1, state.labels[:, None]) - outputs.gather(1, likely)
        steepness = torch.linalg.vector_norm(slopes.flatten(2), ord=_DUAL[self.norm], dim=2).clamp_min(1e-12)
        order = (gaps / steepness).argsort(dim=1, stable=True)
        place = restart % min(self.most_targets, likely.shape[1])
        return likely.gather(1, order[:, place : place + 1]).squeeze(1)
