"""i-ODIN: ODIN's step on one value of the image alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import detector
from .msp import msp
from .numerics import check_temperature
from .odin import confidence_gradient


@detector(
    "i-odin",
    reference="iODIN of OpenOOD v1.5 (Regmi 2024, with arXiv 2411.10794)",
    tags=("post-hoc", "gradient"),
    differentiable=False,
)
def i_odin(images: Tensor, model: nn.Module, *, temperature: float = 1000.0, epsilon: float = 0.0014) -> Tensor:
    """Tempered ``msp`` of images whose value with the largest gradient is moved towards the predicted class.

    One value of one channel moves, the first of equals; the step is not clipped to [0, 1]. This follows the code in
    OpenOOD: a description in a paper was not at hand.

    Args:
        images: Shape (N, channels, height, width), in [0, 1].
        model: Maps images to logits (N, C); in eval mode, left as it was.
        temperature: T > 0, of the gradient and of the score.
        epsilon: Size of the step, in units in which pixels span [0, 1].

    Returns:
        Scores in [0, 1 - 1/C], shape (N,).

    Raises:
        GauntletError: ``temperature`` is not above 0.
    """
    check_temperature(temperature, "i-odin")
    gradient = confidence_gradient(images, model, temperature).flatten(1)
    steepest = gradient.abs().argmax(dim=1, keepdim=True)
    step = epsilon * gradient.gather(1, steepest).sign()
    moved = images.detach().flatten(1).scatter_add(1, steepest, step.to(images.dtype)).view_as(images)
    with torch.no_grad():
        return msp(model(moved), temperature=temperature)
