"""SuperDeepFool: DeepFool, and then onto the normal of the boundary that it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .deepfool import DeepFoolState, to_nearest_boundary
from .minimum_norm import IterativeMinimumNormAttack
from .native import native
from .norms import per_image
from .victim import Victim


@dataclass
class SuperDeepFoolState(DeepFoolState):
    """State of the search.

    Attributes:
        origin: Where DeepFool began (M, C, H, W).
        inner: Steps that it has taken since (M,).
        outer: How often it began (M,).
        low: Share of the way to the image found that is known to be too short (M,); below 0 before that is searched.
        high: Share that is known to suffice.
    """

    origin: Tensor
    inner: Tensor
    outer: Tensor
    low: Tensor
    high: Tensor


@native(
    "superdeepfool",
    "l2",
    reference="Abdollahpoorrostam et al. 2023, arXiv 2303.12481",
    kind="minimum-norm",
    few={"rounds": 5, "steps": 10},
)
class SuperDeepFool(IterativeMinimumNormAttack):
    """DeepFool to the boundary, a projection of what it moved onto the boundary's normal, again until the image fools.

    Abdollahpoorrostam and others 2023, arXiv 2303.12481 (the variant that runs DeepFool to its end), with the bisection
    at the end of the authors' code, and images kept in [0, 1] as adversarial-library does.

    Args:
        rounds: Most runs of DeepFool with a projection each.
        steps: Most steps of each DeepFool.
        candidates: Classes to consider, likeliest first, with the predicted one.
        overshoot: Of DeepFool.
        bisections: Halvings of the way between original and image at the end.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "l2"

    def __init__(
        self, rounds: int = 100, steps: int = 100, candidates: int = 10, overshoot: float = 0.02, bisections: int = 10
    ) -> None:
        if min(rounds, steps) < 1 or candidates < 2 or bisections < 0:
            raise GauntletError(
                "superdeepfool needs rounds and steps >= 1, candidates >= 2 and bisections >= 0, got "
                f"{rounds}, {steps}, {candidates} and {bisections}."
            )
        self.rounds, self.steps, self.candidates = rounds, steps, candidates
        self.overshoot, self.bisections = overshoot, bisections

    def start(self, victim: Victim, fields: dict[str, Any]) -> SuperDeepFoolState:
        """With the likeliest classes as candidates."""
        outputs, clean, labels = victim.outputs(fields["clean"]), fields["clean"], fields["labels"]
        # The label first: it is what the image has to leave.
        ranked = outputs.scatter(1, labels[:, None], torch.inf).argsort(dim=1, descending=True)[:, : self.candidates]
        none = torch.zeros_like(fields["best_size"])
        return SuperDeepFoolState(
            **fields,
            classes=ranked,
            moved=torch.zeros_like(clean),
            origin=clean.clone(),
            inner=torch.zeros_like(fields["item"]),
            outer=torch.zeros_like(fields["item"]),
            low=none - 1,
            high=none + 1,
        )

    def step(self, victim: Victim, state: SuperDeepFoolState, rng: PerImageRNG) -> Tensor:
        """One step of DeepFool, and the projection where it has ended; one bisection where an image was found."""
        searching = state.low >= 0
        middle = state.clean + per_image((state.low + state.high) / 2, state.clean) * (state.best - state.clean)
        shorter = torch.where(per_image(searching, middle), middle, state.current)
        outputs = victim.outputs(shorter)
        fooled = victim.is_fooled(outputs, state.labels)
        return self._bisect(state, searching, fooled) | self._walk(victim, state, ~searching, fooled, outputs)

    def _bisect(self, state: SuperDeepFoolState, here: Tensor, fooled: Tensor) -> Tensor:
        half = (state.low + state.high) / 2
        state.high = torch.where(here & fooled, half, state.high)
        state.low = torch.where(here & ~fooled, half, state.low)
        state.inner = torch.where(here, state.inner + 1, state.inner)
        done = here & (state.inner >= self.bisections)
        last = state.clean + per_image(state.high, state.clean) * (state.best - state.clean)
        state.best = torch.where(per_image(done, last), last, state.best)
        return done

    def _walk(self, victim: Victim, state: SuperDeepFoolState, here: Tensor, fooled: Tensor, outputs: Tensor) -> Tensor:
        """Where an image fools between two runs of DeepFool it is the one; the others go on."""
        between = here & (state.inner == 0)
        over = state.keep_nearest(fooled & between, self.norm, outputs) & here
        found = between & fooled
        if self.bisections:
            state.low = state.low.masked_fill(found, 0.0)
        rest = here & ~found & ~over
        if rest.any():
            self._advance(victim, state, rest)
        return over | (rest & (state.outer >= self.rounds)) | (found & (self.bisections == 0))

    def _advance(self, victim: Victim, state: SuperDeepFoolState, rest: Tensor) -> None:
        part = state.select(rest)
        slope, distance = to_nearest_boundary(victim, part, "l2")
        part.moved = part.moved + per_image(distance, slope) * slope
        part.inner = part.inner + 1
        there = (part.origin + (1 + self.overshoot) * part.moved).clamp(0, 1)
        outputs = victim.outputs(there)
        ended = victim.is_over(outputs, part.labels) | (part.inner >= self.steps)
        part.current = there
        if ended.any():
            self._project(victim, part, ended, outputs)
        for name in ("moved", "inner", "current", "origin", "outer"):
            whole = getattr(state, name).clone()
            whole[rest] = getattr(part, name)
            setattr(state, name, whole)

    def _project(self, victim: Victim, part: SuperDeepFoolState, ended: Tensor, outputs: Tensor) -> None:
        """From where DeepFool began, along the normal of the boundary, as far as DeepFool has come along it in all."""
        predicted = outputs.scatter(1, part.labels[:, None], -torch.inf).argmax(dim=1)
        pair = torch.stack([part.labels, predicted], dim=1)
        normal, _ = victim.gradient(part.current, pair, lambda logits, of: logits.gather(1, of) @ _APART.to(logits))
        normal = normal / per_image(normal.flatten(1).norm(dim=1).clamp_min(1e-6), normal)
        along = ((part.current - part.clean) * normal).flatten(1).sum(dim=1)
        moved = (part.origin + per_image(along, normal) * normal).clamp(0, 1)
        part.current = torch.where(per_image(ended, moved), moved, part.current)
        part.origin = torch.where(per_image(ended, moved), moved, part.origin)
        part.moved = torch.where(per_image(ended, part.moved), torch.zeros_like(part.moved), part.moved)
        part.inner, part.outer = part.inner.masked_fill(ended, 0), part.outer + ended.long()


_APART = torch.tensor([-1.0, 1.0])
