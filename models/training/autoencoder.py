"""Training on reconstructions: `autoencoder`, and `autoencoder-fgsm` with FGSM examples of the reconstruction loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...datasets import ImageSet
from ...registry import GauntletError, recipe
from ..autoencoder import reconstruction_errors
from ..layers import eval_mode
from .batch import Batch, as_images
from .hooks import Hook, LossOutput, Objective, TrainingState
from .single_step import FGSMAugmentation, check_radii, gradient_at
from .trainer import Trainer


def losses(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Squared error (N,) of each image's reconstruction from its target.

    It is the module's own ``losses(images, targets)`` where it has them (in another space than that of pixels, say).
    """
    own: Callable[[Tensor, Tensor], Tensor] | None = getattr(module, "losses", None)
    if callable(own):
        return own(images, targets)
    return reconstruction_errors(targets, module.forward_outputs(images)["reconstruction"])  # type: ignore[operator]


class Reconstruction(Hook):
    """Trains on the error of reconstructions; what is reconstructed, the target, is the image before any attack."""

    replaces = "criterion"

    def transform(self, loop: TrainingState, batch: Batch) -> Batch:
        """The images, as augmentations left them, are their own targets."""
        return replace(batch, targets=batch.images)

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """The mean error."""
        with loop.precision():
            return LossOutput(losses(loop.module, batch.images, batch.targets).float().mean(), None)

    @torch.no_grad()
    def evaluate(self, loop: TrainingState, images: ImageSet) -> dict[str, float]:
        """The mean error in eval mode; NaN on an empty set."""
        loop.module.eval()
        batches = (as_images(x.to(loop.device)) for x, _, _ in images.batches(1024))
        total = sum(float(losses(loop.module, x, x).sum()) for x in batches)
        return {"loss": total / len(images) if len(images) else math.nan}


def reconstruction_gradient(loop: TrainingState, batch: Batch, *, detach_target: bool) -> Tensor:
    """Gradient (N, C, H, W) of each image's reconstruction error at the image.

    It flows through the reconstruction and, unless ``detach_target``, through the image as the target.
    """

    def error(x: Tensor) -> Tensor:
        with loop.precision():
            return losses(loop.module, x, x.detach() if detach_target else x).float().sum()

    return gradient_at(loop, batch.images, error)


@recipe(
    "autoencoder",
    needs=("reconstruction",),
    reference="Hinton, Salakhutdinov 2006, doi:10.1126/science.1127647",
    profiles={"r1": {"epochs": 200, "batch_size": 128, "lr": 1e-3}},
)
class Reconstructing(Trainer):
    """Mean squared error of reconstructions with Adam and a cosine schedule; labels are not needed."""

    name = "autoencoder"
    labelled = False

    def own_hooks(self) -> list[Hook]:
        """The error in place of the cross entropy."""
        return [Reconstruction()]

    def _check_model(self, module: nn.Module, train: ImageSet, device: torch.device) -> None:
        """Raise a :class:`GauntletError` unless the model reconstructs images of this size."""
        probe = as_images(train.pixels[:2].to(device))
        named: Callable[[Tensor], dict[str, Tensor]] = getattr(module, "forward_outputs", lambda _: {})
        with torch.no_grad(), eval_mode(module):
            found = named(probe).get("reconstruction")
        if found is None or found.shape != probe.shape:
            got = "gives none" if found is None else f"gives {tuple(found.shape)}"
            raise GauntletError(
                f"recipe {self.name!r} trains models that reconstruct: it needs one whose forward_outputs give a "
                f"reconstruction of shape {tuple(probe.shape)}, and {type(module).__name__} {got}."
            )


@recipe(
    "autoencoder-fgsm",
    needs=("reconstruction",),
    reference="Goodfellow, Shlens, Szegedy 2014, arXiv 1412.6572",
    profiles={"r1": {"epochs": 200, "batch_size": 128, "lr": 1e-4, "epsilon": None}},
)
class ReconstructingFGSM(Reconstructing):
    """An autoencoder's training with FGSM examples of its loss, from which it must reconstruct the clean images.

    Args:
        epsilon: Radius in Linf; None: drawn for each batch from ``interval``.
        interval: Smallest and largest radius where it is drawn.
        mode: ``alternating``: an update on the clean batch, then one on its examples, which were made before;
            ``joint``: one on the mean of both losses.
        detach_target: Whether the examples' gradient flows through the reconstruction alone. By default it flows
            through the image as the target too, as in report R1.
        **settings: Those of :class:`Trainer`.
    """

    name = "autoencoder-fgsm"

    def __init__(
        self,
        *,
        epsilon: float | None = None,
        interval: tuple[float, float] = (0.01, 0.15),
        mode: Literal["alternating", "joint"] = "alternating",
        detach_target: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_radii(self, epsilon, interval)
        self.epsilon, self.interval, self.mode, self.detach_target = epsilon, interval, mode, detach_target

    def own_hooks(self) -> list[Hook]:
        """The examples, then the error, which the joint mode takes twice."""
        gradient = partial(reconstruction_gradient, detach_target=self.detach_target)
        return [FGSMAugmentation(self.epsilon, self.interval, self.mode, gradient), *super().own_hooks()]
