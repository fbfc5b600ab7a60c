"""MI-FGSM: gradient steps with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError
from .budget import SearchBatch
from .losses import LossName
from .native import native
from .norms import per_image
from .pgd import PGD, PGDState
from .steps import ascend

_SHORT = "weak: the authors' path of one epsilon; rel_stepsize: 0.4 walks four"


@dataclass
class MIFGSMState(PGDState):
    """State of MI-FGSM: ``velocity`` is the decayed sum of the gradients (M, C, H, W)."""

    velocity: Tensor


@native("mi-fgsm", "linf", "l2", reference="Dong et al. 2018, arXiv 1710.06081", loss="any", fault=_SHORT)
class MIFGSM(PGD):
    """Momentum iterative method: steps along a decayed sum of gradients, each of L1 norm 1.

    Dong, Liao, Pang, Su, Zhu, Hu, Li 2018, arXiv 1710.06081. Its adversarials transfer better than PGD's.

    Args:
        norm: ``linf`` or ``l2``.
        steps: Gradient steps.
        rel_stepsize: Length of a step in epsilons; by default 1 / steps, as the authors have it: a path of one epsilon
            transfers better than a longer one, and is weaker on the model itself.
        decay: Share of the sum that is kept at each step.
        stop_when_fooled: As in ``pgd``.
        loss: As in ``pgd``.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self,
        norm: Literal["linf", "l2"] = "linf",
        steps: int = 10,
        rel_stepsize: float | None = None,
        decay: float = 1.0,
        stop_when_fooled: bool = True,
        loss: LossName = "xent",
    ) -> None:
        if not decay >= 0:
            raise GauntletError(f"mi-fgsm needs decay >= 0, got {decay}.")
        stepsize = 1 / max(steps, 1) if rel_stepsize is None else rel_stepsize
        super().__init__(norm, steps, stepsize, random_start=False, stop_when_fooled=stop_when_fooled, loss=loss)
        self.decay = decay

    def start(self, batch: SearchBatch, restart: int, items: Tensor) -> MIFGSMState:
        """As in ``pgd``, at rest."""
        state = super().start(batch, restart, items)
        return MIFGSMState(**vars(state), velocity=torch.zeros_like(state.clean))

    def move(self, state: PGDState, gradient: Tensor) -> Tensor:
        """The next images (M, C, H, W): a step along the velocity."""
        assert isinstance(state, MIFGSMState)
        size = gradient.flatten(1).abs().sum(dim=1).clamp_min(1e-12)
        # A gradient of L1 norm 1 each, as in the paper; foolbox sums their signs instead.
        state.velocity = self.decay * state.velocity + (gradient / per_image(size, gradient)).nan_to_num_(0)
        return ascend(
            state.current, state.clean, state.velocity, self.norm, stepsize=state.stepsize, radius=state.radius
        )
