"""MI-FGSM and its family: gradient steps with momentum, of inputs that are changed in ways that help transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import GauntletError
from .budget import SearchBatch
from .losses import LossName
from .native import native
from .norms import per_image
from .pgd import PGD, PGDState
from .steps import ascend

_SHORT = "weak: the authors' path of one epsilon; rel_stepsize: 0.4 walks four"
_SPREAD = 3.0  # deviations of the Gaussian that the kernel of TI reaches
_REACH = 1.5  # epsilons that the neighbours of VMI are away at most
_SMALLEST = 0.9  # side of the shrunken image of DI


@dataclass
class MIFGSMState(PGDState):
    """State of MI-FGSM.

    Attributes:
        velocity: The decayed sum of the gradients (M, C, H, W).
        variance: How the gradients around the last image differed from its own (M, C, H, W).
    """

    velocity: Tensor
    variance: Tensor


@native("mi-fgsm", "linf", "l2", reference="Dong et al. 2018, arXiv 1710.06081", loss="any", fault=_SHORT)
class MIFGSM(PGD):
    """Momentum iterative method: steps along a decayed sum of gradients, each of L1 norm 1.

    Dong, Liao, Pang, Su, Zhu, Hu, Li 2018, arXiv 1710.06081. Its adversarials transfer better than PGD's. The options
    are those of its family, and may be combined: DI (Xie et al. 2018, arXiv 1803.06978), TI (Dong et al. 2019, arXiv
    1904.02884), NI and SI (Lin et al. 2019, arXiv 1908.06281), VMI (Wang, He 2021, arXiv 2103.15571). With them an
    image leaves when it fools as it is.

    Args:
        norm: ``linf`` or ``l2``.
        steps: Gradient steps.
        rel_stepsize: Length of a step in epsilons; by default 1 / steps, as the authors have it: a path of one epsilon
            transfers better than a longer one, and is weaker on the model itself.
        decay: Share of the sum that is kept at each step.
        stop_when_fooled: As in ``pgd``.
        loss: As in ``pgd``.
        diverse_input: Probability that an image is shrunk to 0.9 of its size or more and put somewhere on black (DI).
        translation: Side of the Gaussian kernel that gradients are smoothed with, odd (TI; 15 in the paper); 1 is none.
        nesterov: Whether the gradient is taken where the velocity leads (NI).
        scale: Copies at 1, 1/2, 1/4, ... of the brightness, over which gradients are averaged (SI; 5 in the paper).
        variance: Neighbours whose gradients correct the next step (VMI; 20 in the paper).

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
        diverse_input: float = 0.0,
        translation: int = 1,
        nesterov: bool = False,
        scale: int = 1,
        variance: int = 0,
    ) -> None:
        if not decay >= 0:
            raise GauntletError(f"mi-fgsm needs decay >= 0, got {decay}.")
        if not 0 <= diverse_input <= 1 or translation < 1 or translation % 2 == 0 or scale < 1 or variance < 0:
            raise GauntletError(
                "mi-fgsm needs diverse_input in [0, 1], an odd translation, scale >= 1 and variance >= 0, got "
                f"{diverse_input}, {translation}, {scale} and {variance}."
            )
        stepsize = 1 / max(steps, 1) if rel_stepsize is None else rel_stepsize
        super().__init__(norm, steps, stepsize, random_start=False, stop_when_fooled=stop_when_fooled, loss=loss)
        self.decay, self.diverse_input, self.translation = decay, diverse_input, translation
        self.nesterov, self.scale, self.variance = nesterov, scale, variance
        self.elsewhere = bool(diverse_input or nesterov or scale > 1)
        self.backwards = scale * (1 + variance)
        self.forwards = self.backwards + self.elsewhere

    def start(self, batch: SearchBatch, restart: int, items: Tensor) -> MIFGSMState:
        """As in ``pgd``, at rest."""
        state, nothing = super().start(batch, restart, items), torch.zeros_like(batch.images[items % len(batch.images)])
        return MIFGSMState(**vars(state), velocity=nothing, variance=nothing)

    def gradient(self, batch: SearchBatch, state: PGDState) -> tuple[Tensor, Tensor]:
        """Gradient (M, C, H, W) as the options want it, and outputs (M, classes) for the images as they are."""
        assert isinstance(state, MIFGSMState)
        here = state.current
        if self.nesterov:
            here = here + self.decay * per_image(state.stepsize, here) * state.velocity
        found, outputs = self._seen(batch, state, here, 0)
        if self.elsewhere:
            outputs = batch.victim.outputs(state.current)
        changed = found + state.variance
        if self.variance:
            state.variance = self._around(batch, state) - found
        return self._smoothed(changed), outputs

    def move(self, state: PGDState, gradient: Tensor) -> Tensor:
        """The next images (M, C, H, W): a step along the velocity."""
        assert isinstance(state, MIFGSMState)
        size = gradient.flatten(1).abs().sum(dim=1).clamp_min(1e-12)
        # A gradient of L1 norm 1 each, as in the paper; foolbox sums their signs instead.
        state.velocity = self.decay * state.velocity + (gradient / per_image(size, gradient)).nan_to_num_(0)
        return ascend(
            state.current, state.clean, state.velocity, self.norm, stepsize=state.stepsize, radius=state.radius
        )

    def _seen(self, batch: SearchBatch, state: MIFGSMState, images: Tensor, turn: int) -> tuple[Tensor, Tensor]:
        """Mean gradient (M, C, H, W) of the images as changed by DI, at each brightness, and the last outputs."""
        total = torch.zeros_like(images)
        for copy in range(self.scale):
            leaf, seen = self._diverse(batch, state, images, turn * self.scale + copy)
            slope, outputs = batch.victim.gradient(seen.detach() / 2**copy, state.labels, self.loss)
            # Through the changes, which are linear, back to the images.
            total += slope / 2**copy if seen is leaf else torch.autograd.grad(seen, leaf, slope / 2**copy)[0]
        return total / self.scale, outputs

    def _diverse(self, batch: SearchBatch, state: MIFGSMState, images: Tensor, turn: int) -> tuple[Tensor, Tensor]:
        """The images (M, C, H, W), and with a graph to them the same, some shrunk and put somewhere on black."""
        if not self.diverse_input:
            return images, images
        step = state.steps_done * self.backwards + turn
        draws = batch.rng(state.item).uniform((4,), purpose="diverse", step=step)
        side = _SMALLEST + (1 - _SMALLEST) * draws[:, 0]
        room = (1 - side)[:, None] / side[:, None]  # how far the centre may be off, in sides of the shrunken image
        offset = (2 * draws[:, 1:3] - 1) * room
        grid = torch.cat([torch.diag_embed(torch.stack([1 / side] * 2, dim=1)), offset[:, :, None]], dim=2)
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            field = F.affine_grid(grid.to(images), list(images.shape), align_corners=False)
            shrunk = F.grid_sample(leaf, field, align_corners=False)
            return leaf, torch.where(per_image(draws[:, 3] < self.diverse_input, images), shrunk, leaf)

    def _around(self, batch: SearchBatch, state: MIFGSMState) -> Tensor:
        """Mean gradient (M, C, H, W) of neighbours drawn uniformly from a cube of 1.5 epsilons."""
        total = torch.zeros_like(state.current)
        draws, shape = batch.rng(state.item), state.current.shape[1:]
        for turn in range(self.variance):
            step = state.steps_done * self.variance + turn
            noise = 2 * draws.uniform(shape, purpose="neighbours", step=step) - 1
            near = state.current + _REACH * per_image(state.radius, noise) * noise
            total += self._seen(batch, state, near, 1 + turn)[0]
        return total / self.variance

    def _smoothed(self, gradient: Tensor) -> Tensor:
        if self.translation == 1:
            return gradient
        channels = gradient.shape[1]
        kernel = gaussian_kernel(self.translation).to(gradient).expand(channels, 1, -1, -1)
        return F.conv2d(gradient, kernel, padding=self.translation // 2, groups=channels)


def gaussian_kernel(side: int) -> Tensor:
    """A Gaussian (side, side) that reaches three deviations, of sum 1."""
    line = torch.exp(-torch.linspace(-_SPREAD, _SPREAD, side, dtype=torch.float64).square() / 2)
    kernel = line[:, None] * line
    return kernel / kernel.sum()
