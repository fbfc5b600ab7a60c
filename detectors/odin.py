"""ODIN: tempered softmax after a small step that raises it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import detector
from .msp import msp
from .numerics import check_temperature


@detector(
    "odin",
    reference="Liang, Li, Srikant 2017, arXiv 1706.02690",
    tags=("post-hoc", "gradient"),
    differentiable=False,
)
def odin(images: Tensor, model: nn.Module, *, temperature: float = 1000.0, epsilon: float = 0.0014) -> Tensor:
    """Tempered ``msp`` of images moved by one sign step towards their predicted class.

    The step is not clipped to [0, 1], and a pixel whose gradient is 0 stays where it is.

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
    check_temperature(temperature, "odin")
    moved = images.detach() + epsilon * confidence_gradient(images, model, temperature).sign()
    with torch.no_grad():
        return msp(model(moved), temperature=temperature)


def confidence_gradient(images: Tensor, model: nn.Module, temperature: float) -> Tensor:
    """Gradient of the log of the largest tempered softmax probability with respect to each image.

    It is exact up to a positive factor per image: that factor, ``1 - max_c p_c``, is left out, because it rounds to
    0 for confident images and would take the direction with it. Parameters get no gradients.
    """
    with torch.inference_mode(False), torch.enable_grad():
        pixels = images.clone().detach().requires_grad_()
        logits = model(pixels)
        scaled = logits.detach() / temperature
        predicted = scaled.argmax(dim=1, keepdim=True)
        others = scaled.scatter(1, predicted, -torch.inf).softmax(dim=1)
        direction = -others.scatter(1, predicted, -1.0)
        (gradient,) = torch.autograd.grad(logits, pixels, direction)
    return gradient
