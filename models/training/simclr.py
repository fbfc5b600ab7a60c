"""`simclr`: contrastive learning of an encoder, without labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ...datasets import ImageSet
from ...registry import GauntletError, recipe
from .batch import Batch, as_images
from .hooks import Hook, LossOutput, Objective, TrainingState
from .recipe import EpochLog
from .trainer import Trainer
from .view_policy import POLICIES, Policy, policy_for

#: Images of a watched split that are judged after each epoch.
_WATCHED = 1024
#: Embeddings that are spread less than this (1: evenly over the sphere), or over fewer dimensions, have collapsed.
COLLAPSED_STD, COLLAPSED_RANK = 0.05, 2.0


def similarities(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity (2N, 2N) of the vectors (N, D) of two views; -inf of each with itself."""
    views = F.normalize(torch.cat([first, second]).float(), dim=1)
    return (views @ views.T).fill_diagonal_(-math.inf)


def partners(count: int, device: torch.device) -> Tensor:
    """For each of 2N views the place (2N,) of the other view of its image."""
    return torch.arange(2 * count, device=device).roll(count)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy of two views' projections (N, D), a scalar.

    For each of the 2N views, the cross entropy of finding its partner among the 2N - 1 others by cosine similarity
    over ``temperature``; the mean of all (Chen et al. 2020, arXiv 2002.05709, equation 1).

    Raises:
        GauntletError: There is one image only, so that no view has a negative.
    """
    if len(first) < 2:
        raise GauntletError("NT-Xent needs at least two images a batch: with one, no view has anything to differ from.")
    return F.cross_entropy(similarities(first, second) / temperature, partners(len(first), first.device))


def contrastive_ranks(first: Tensor, second: Tensor) -> Tensor:
    """For each of 2N views how many of the other views are strictly more similar to it than its partner."""
    table = similarities(first, second)
    own = table.gather(1, partners(len(first), first.device)[:, None])
    return (table > own).sum(1)


def spread(embeddings: Tensor) -> tuple[float, float]:
    """Standard deviation and effective rank of embeddings (N, D): what tells that an encoder has collapsed.

    The first is the mean over dimensions of the standard deviation of L2-normalised embeddings times sqrt(D): 1 where
    they are spread evenly over the sphere, 0 where all are the same (Chen & He 2020, arXiv 2011.10566). The second is
    the exponential of the entropy of the normalised singular values of the centred embeddings (Roy & Vetterli 2007).
    """
    points = embeddings.cpu().double()  # not every device has double precision
    std = float(F.normalize(points, dim=1).std(0, correction=0).mean() * math.sqrt(points.shape[1]))
    values = torch.linalg.svdvals(points - points.mean(0))
    if not float(values.sum()) > 1e-12:
        return std, 1.0
    shares = values / values.sum()
    return std, float(torch.special.entr(shares).sum().exp())


@dataclass(eq=False)
class Contrast(Hook):
    """Trains on two random views of each image by NT-Xent on their projections.

    Args:
        temperature: Of NT-Xent.
        policy: Makes the views; None: the one for the images' shape.
    """

    replaces = "criterion"

    temperature: float
    policy: Policy | None

    def start(self, loop: TrainingState) -> None:
        """Choose the policy where none was."""
        if self.policy is None:
            self.policy = policy_for(loop.train.shape)

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """One pass over both views, so that batch-norm sees both."""
        views = torch.cat([self._view(batch.images, loop.rng) for _ in range(2)])
        module: Any = loop.module
        with loop.precision():
            projections = module.forward_outputs(views)["projection"]
        first, second = projections.float().chunk(2)
        return LossOutput(nt_xent(first, second, self.temperature), None)

    @torch.no_grad()
    def evaluate(self, loop: TrainingState, images: ImageSet) -> dict[str, float]:
        """Loss, top-1 and top-5 of the contrastive task, and the spread of the embeddings, on fixed random views."""
        rng = Generator(loop.device).manual_seed(0)
        losses, ranks, embeddings = [], [], []
        module: Any = loop.module.eval()
        watched = images.subset(range(min(len(images), _WATCHED)))
        for x, _, _ in watched.batches(loop.settings.batch_size):
            if len(x) < 2:
                continue
            x = as_images(x.to(loop.device))
            outputs = [module.forward_outputs(self._view(x, rng)) for _ in range(2)]
            pair = [output["projection"] for output in outputs]
            losses.append(float(nt_xent(pair[0], pair[1], self.temperature)) * len(x))
            ranks.append(contrastive_ranks(pair[0], pair[1]))
            embeddings.append(outputs[0]["embedding"])
        if not ranks:
            return {"loss": math.nan}
        place = torch.cat(ranks)
        std, rank = spread(torch.cat(embeddings))
        return {
            "loss": sum(losses) / (len(place) / 2),
            "top1": float((place < 1).float().mean()),
            "top5": float((place < 5).float().mean()),
            "embedding_std": std,
            "effective_rank": rank,
            "collapsed": float(std < COLLAPSED_STD or rank < COLLAPSED_RANK),
        }

    def _view(self, images: Tensor, rng: Generator) -> Tensor:
        assert self.policy is not None
        return self.policy(images, rng)


@recipe(
    "simclr",
    needs=("embedding", "projection"),
    datasets="images",
    reference="Chen, Kornblith, Norouzi, Hinton 2020, arXiv 2002.05709",
    profiles={
        "r4": {"views": "r4", "temperature": 0.2, "epochs": 100, "warmup": 10},
        "cifar": {"views": "cifar", "temperature": 0.5, "epochs": 100, "warmup": 10},
        "digits": {"views": "digits", "temperature": 0.2, "epochs": 30, "warmup": 2, "lr": 3e-3, "batch_size": 128},
    },
)
class SimCLRRecipe(Trainer):
    """Two random views of one image are to be told from those of all other images of the batch.

    Args:
        images: Dataset specs to train on (their train splits where they have one) instead of the training split.
        views: Policy that makes the views: ``r4`` (96x96), ``cifar`` (32x32), ``digits`` (28x28), or by ``shape``.
        add: Transformations of the policy to switch on, each a name or ``{name: {parameter: value}}``.
        drop: Transformations to switch off.
        temperature: Of the loss.
        **settings: Those of :class:`Trainer`; the default is Adam at 3e-4 with a weight decay of 1e-4, 256 images a
            step and a warm-up of one epoch.
    """

    name = "simclr"
    labelled = False

    def __init__(
        self,
        *,
        images: Sequence[Any] = (),
        views: Literal["shape", "r4", "cifar", "digits"] = "shape",
        add: Sequence[Any] = (),
        drop: Sequence[str] = (),
        temperature: float = 0.5,
        epochs: int = 20,
        lr: float = 3e-4,
        weight_decay: float = 1e-4,
        batch_size: int = 256,
        warmup: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(
            epochs=epochs, lr=lr, weight_decay=weight_decay, batch_size=batch_size, warmup=warmup, **settings
        )
        self._require(0 < temperature < math.inf, "a positive temperature", temperature)
        self._require(
            views != "shape" or not (add or drop), "a policy by name (`views`) to switch parts of", "views: shape"
        )
        self.images = images
        self._policy = None if views == "shape" else POLICIES[views].changed(add=add, drop=drop)
        self._temperature = temperature

    def own_hooks(self) -> list[Hook]:
        """The contrastive loss."""
        return [Contrast(self._temperature, self._policy)]

    def train(self, module: nn.Module, train: ImageSet, val: ImageSet, **how: Any) -> list[EpochLog]:
        """See :meth:`Recipe.train`."""
        return super().train(module, self._joined(train), val, **how)

    def _joined(self, train: ImageSet) -> ImageSet:
        """The sets that were named, as one without labels; the training split where none was."""
        if not self.images:
            return train
        for images in self.images:
            if images.shape != train.shape:
                raise GauntletError(
                    f"recipe 'simclr': the images {images.name!r} are {images.shape}, but those of {train.name!r} are "
                    f"{train.shape}; give the set `shape: {list(train.shape)}`."
                )
        pixels = torch.cat([images.pixels for images in self.images])
        unknown = torch.full((len(pixels),), -1)
        return replace(train, pixels=pixels, labels=unknown, indices=torch.arange(len(pixels)))

    def _check_model(self, module: nn.Module, train: ImageSet, device: torch.device) -> None:
        outputs = getattr(module, "forward_outputs", None)
        if not callable(outputs):
            raise GauntletError(f"recipe 'simclr' trains encoders with a projection head, got {type(module).__name__}.")
