"""Mahalanobis distance after a small step towards the nearest class."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import detector
from .gaussians import nearest_distance
from .mahalanobis import Mahalanobis
from .outputs import Outputs, random_projection


@detector(
    "mahalanobis-perturbed",
    needs=("images", "tap", "features", "labels"),
    reference="Lee, Lee, Lee, Shin 2018, arXiv 1807.03888",
    tags=("post-hoc", "gradient"),
    differentiable=False,
    grid={"epsilon": [0.0, 0.0005, 0.0014, 0.005, 0.02]},
)
class MahalanobisPerturbed(Mahalanobis):
    """``mahalanobis`` of images moved by one sign step that lowers the distance to the nearest class.

    The step is not clipped to [0, 1], and a pixel whose gradient is 0 stays where it is.

    Args:
        epsilon: Size of the step, in units in which pixels span [0, 1].
    """

    def __init__(self, epsilon: float = 0.0014) -> None:
        self.epsilon = epsilon

    def score(self, outputs: Outputs) -> Tensor:
        """Squared distances, shape (N,), float64."""
        self.fitted(self._gaussians)
        batches, tap, features, _ = self.pull(outputs)
        found = [self._moved_distance(images, tap) for images in batches()]
        return torch.cat(found) if found else features.new_zeros(0)

    def _moved_distance(self, images: Tensor, tap: object) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            pixels = images.clone().detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._distance(pixels, tap).sum(), pixels)
        with torch.no_grad():
            return self._distance(images - self.epsilon * gradient.sign(), tap)

    def _distance(self, images: Tensor, tap: object) -> Tensor:
        gaussians = self.fitted(self._gaussians)
        features = tap(images)["features"]  # type: ignore[operator]
        width = len(gaussians.origin)
        if features.shape[1] != width:
            features = features @ random_projection(features.shape[1], width, features.device).to(features.dtype)
        return nearest_distance(features, gaussians)
