"""`jarn`: training that makes the input Jacobian of a classifier look like an image (Chan, Tay, Ong, Fu 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry import GauntletError, recipe
from .batch import Batch
from .hooks import Hook, LossOutput, Objective, TrainingState
from .jarn_networks import Adapter, Discriminator, standardise
from .recipe import EpochLog
from .resume import flat, nested, optimizer_tensors, restore_optimizer
from .single_step import input_gradient
from .trainer import Trainer

Loss = Literal["saturating", "non-saturating"]


def jacobian(loss: Tensor, images: Tensor) -> Tensor:
    """Gradient (N, C, H, W) of a loss at its images, with a graph: it can be differentiated by the weights again.

    It is that of each image's own loss where the loss is a sum, and times 1 / N where it is a mean; the
    standardisation makes them one. That of the probability of the true class, p_y, which the authors' code takes, is
    -p_y times it: after the standardisation they differ in sign alone.

    Raises:
        GauntletError: None reaches the images.
    """
    (found,) = torch.autograd.grad(loss, images, create_graph=True, allow_unused=True)
    if found is None:
        raise GauntletError(
            "recipe 'jarn' needs the gradient of the loss at the images, and none reaches them; remove the detach() or "
            "no_grad() from the model's forward."
        )
    return found


def adversarial_term(judged: Tensor, loss: Loss) -> Tensor:
    """What the classifier lowers, from the discriminator's logits (N,) of its Jacobians.

    Saturating: mean log(1 - D), the game of the paper; non-saturating: -mean log D.
    """
    return F.logsigmoid(-judged).mean() if loss == "saturating" else -F.logsigmoid(judged).mean()


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """-(mean log D(images) + mean log(1 - D(Jacobians))), from logits (N,) and (N,)."""
    return -F.logsigmoid(real).mean() - F.logsigmoid(-made).mean()


@dataclass(eq=False)
class JacobianGame(Hook):
    """The clean loss at noisy images, and after the start point a term that rewards Jacobians which pass for images.

    The discriminator and its optimiser are its own; the adapter's weights join the classifier's.

    Args:
        weight: lambda, of the adversarial term.
        epsilon: Of the uniform noise on every batch, in Linf.
        start_ratio: Share of the training before the adversarial term.
        update_every: Updates of the classifier for one of the discriminator.
        conv: Whether there is an adapter with weights.
        loss: Of the classifier.
        fgsm: Whether the noisy images are moved by an FGSM step.
        width: Of the discriminator.
        optimizer: Makes the discriminator's optimiser from its weights.
    """

    weight: float
    epsilon: float
    start_ratio: float
    update_every: int
    conv: bool
    loss: Loss
    fgsm: bool
    width: int
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]

    def __post_init__(self) -> None:
        self.updates = 0  # of the classifier since the start point
        self._waiting: tuple[Tensor, Tensor] | None = None
        self._terms: list[Tensor] = []

    def parameters(self, loop: TrainingState) -> list[nn.Parameter]:
        """Build both networks; those of the adapter are trained with the classifier."""
        shape = loop.train.shape
        with torch.random.fork_rng(devices=[loop.device] if loop.device.type == "cuda" else []):
            torch.manual_seed(loop.seed + 3)
            adapter = Adapter(shape[0]) if self.conv else nn.Identity()
            self.discriminator = Discriminator(shape, self.width).to(loop.device).requires_grad_(False)
        self.adapter: nn.Module = adapter.to(loop.device)
        self._updates = self.optimizer(list(self.discriminator.parameters()))
        return list(self.adapter.parameters())

    def start(self, loop: TrainingState) -> None:
        """Check that no other recipe changes images between this one and the network.

        Raises:
            GauntletError: A recipe that follows in the list changes the loss.
        """
        for hook in loop.hooks[loop.hooks.index(self) + 1 :]:
            if type(hook).objective is not Hook.objective:
                raise GauntletError(
                    "recipe 'jarn' must be the last of a list of recipes, since it needs the gradient at the very "
                    f"images that the network sees; name it after the recipe of {type(hook).__name__}."
                )

    # -- the classifier's step ----------------------------------------------------------------------------------

    def active(self, loop: TrainingState) -> bool:
        """Whether the start point is reached and the term has a weight."""
        return self.weight > 0 and loop.step >= self.start_ratio * loop.total

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """The loss at the noisy images and the weighted term."""
        batch = replace(batch, images=self._start(loop, batch))
        if not self.active(loop):
            return inner(batch)
        if loop.device.type == "cpu":  # twice differentiated, a network is faster by a fifth in this layout
            loop.module.to(memory_format=torch.contiguous_format)
        with loop.full_precision():
            images = batch.images.detach().contiguous().requires_grad_()
            result = inner(replace(batch, images=images))
            adapted = self.adapter(standardise(jacobian(result.loss * len(batch), images)))
            term = adversarial_term(self.discriminator(adapted), self.loss)
        if self.updates % self.update_every == 0:
            self._waiting = images.detach(), adapted.detach()
        self.updates += 1
        self._terms.append(term.detach())
        return LossOutput(result.loss + self.weight * term, result.logits)

    def _start(self, loop: TrainingState, batch: Batch) -> Tensor:
        x = batch.images
        draws = torch.rand(x.shape, generator=loop.rng, device=x.device)
        noisy = (x + self.epsilon * (2 * draws - 1)).clamp(0, 1)
        if not self.fgsm:
            return noisy
        moved = noisy + self.epsilon * input_gradient(loop, noisy, batch.targets).sign()
        return (x + (moved - x).clamp(-self.epsilon, self.epsilon)).clamp(0, 1)

    # -- the discriminator's step -------------------------------------------------------------------------------

    def after_step(self, loop: TrainingState) -> None:
        """Train the discriminator where it is its turn, on what the classifier's step has seen."""
        if self._waiting is None:
            return
        (images, adapted), self._waiting = self._waiting, None
        self.discriminator.requires_grad_(True)
        loss = discriminator_loss(self.discriminator(images), self.discriminator(adapted))
        self._updates.zero_grad(set_to_none=True)
        loss.backward()
        self._updates.step()
        self.discriminator.requires_grad_(False)

    def after_epoch(self, loop: TrainingState, log: EpochLog) -> None:
        """Add the mean of the adversarial term to the record, from the start point on."""
        if self._terms:
            log["adversarial"] = float(torch.stack(self._terms).mean())
            self._terms.clear()

    @contextmanager
    def evaluating(self, loop: TrainingState) -> Iterator[None]:
        """Give the network back the layout in which single passes are faster."""
        if loop.device.type == "cpu" and self.updates:
            loop.module.to(memory_format=torch.channels_last)
        yield

    # -- interruption -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Both networks, the discriminator's optimiser and the count of updates."""
        parts = {"adapter": self.adapter.state_dict(), "discriminator": self.discriminator.state_dict()}
        parts["optimizer"] = optimizer_tensors(self._updates)
        return {**flat(parts), "updates": torch.tensor(self.updates)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take them up."""
        self.updates = int(state["updates"])
        parts = nested(state)
        self.adapter.load_state_dict(parts.get("adapter", {}))
        self.discriminator.load_state_dict(parts["discriminator"])
        restore_optimizer(self._updates, parts.get("optimizer", {}))


@recipe(
    "jarn",
    reference="Chan, Tay, Ong, Fu 2019, arXiv 1912.10185",
    profiles={
        "paper": {
            "epochs": 205,
            "batch_size": 64,
            "optimizer": "sgd",
            "lr": 0.1,
            "weight_decay": 2e-4,
            "disc_optimizer": "sgd",
            "disc_lr": 1e-3,
            "disc_width": 32,
        },
        "r1": {"epochs": 50, "batch_size": 128, "lr": 1e-3, "epsilon": 0.031, "disc_lr": 0.0072},
    },
    warnings={
        "r1": "a learning rate of 0.0072 is far too high for the discriminator under Adam, and probably a mistyped "
        "PGD step of 2/255; and the report's own adversarial term had no gradient to the classifier, as it has here"
    },
)
class JARN(Trainer):
    """Jacobian adversarially regularised training. Experimental: it mostly hides gradients.

    A discriminator learns to tell images from the Jacobians of the loss at them; the classifier is trained to fool
    it too, by gradients of gradients (in float32 whatever ``precision`` says). A full attack leaves little of the
    robustness that this shows under FGSM: the public AutoAttack table lists it at 0.26 % (8/255, CIFAR-10).

    Any classifier will do whose layers can be differentiated twice. ReLU can: its second derivative is zero, but the
    Jacobian is made of the weights of the units that are on, and of the softmax, and these can be trained.

    The networks beside the classifier are gone at the end. Profile ``paper`` has a cosine schedule in the place of
    drops after 50 % and 75 %, and Nesterov's momentum; its discriminator keeps the lr that they leave after the start.

    Args:
        adv_weight: lambda: weight of the adversarial term; 0 is plain training on the noisy images.
        epsilon: Of the uniform noise on all images, in Linf.
        start: Whether images start from ``uniform`` noise alone, or from an ``fgsm`` step after it (JARN-AT1).
        start_ratio: Share of the training after which the adversarial term begins.
        disc_update_every: Updates of the classifier for one of the discriminator.
        adapter: ``conv``: a 1x1 convolution with tanh, trained with the classifier; ``none``: standardisation alone.
        loss: Of the classifier: ``saturating``, mean log(1 - D), or ``non-saturating``, -mean log D.
        disc_width: Channels of the discriminator's first block.
        disc_optimizer: ``adam`` (betas 0.5 and 0.999) or ``sgd`` (momentum 0.9).
        disc_lr: Its constant learning rate.
        **settings: Those of :class:`Trainer`; its optimiser is the classifier's and the adapter's.
    """

    name = "jarn"

    def __init__(
        self,
        *,
        adv_weight: float = 1.0,
        epsilon: float = 8 / 255,
        start: Literal["uniform", "fgsm"] = "uniform",
        start_ratio: float = 0.75,
        disc_update_every: int = 20,
        adapter: Literal["none", "conv"] = "conv",
        loss: Loss = "saturating",
        disc_width: int = 16,
        disc_optimizer: Literal["adam", "sgd"] = "adam",
        disc_lr: float = 2e-4,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._require(0 <= adv_weight < math.inf, "an adv_weight >= 0", adv_weight)
        self._require(0 <= epsilon < math.inf, "an epsilon >= 0", epsilon)
        self._require(0 <= start_ratio < 1, "a start_ratio in [0, 1)", start_ratio)
        self._require(disc_update_every >= 1, "disc_update_every >= 1", disc_update_every)
        self._require(disc_width >= 1, "a disc_width >= 1", disc_width)
        self._require(0 < disc_lr < math.inf, "a positive disc_lr", disc_lr)
        self._game = partial(
            JacobianGame, adv_weight, epsilon, start_ratio, disc_update_every,
            adapter == "conv", loss, start == "fgsm", disc_width, partial(_optimizer, disc_optimizer, disc_lr),
        )  # fmt: skip

    def own_hooks(self) -> list[Hook]:
        """The game."""
        return [self._game()]


def _optimizer(name: str, lr: float, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.999))
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)
