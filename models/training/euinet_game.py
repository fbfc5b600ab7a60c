"""What EuiNet's training is made of: its losses, and the hook in which a GAN supplies the fakes (report R3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...datasets import ImageSet
from ...registry import GauntletError
from ..euinet import EuiNet
from .batch import Batch, as_images, probabilities
from .hooks import Hook, LossOutput, Objective, TrainingState
from .recipe import EpochLog
from .resume import flat, nested, optimizer_tensors, restore_optimizer

GeneratorLoss = Literal["non-saturating", "saturating", "feature-matching"]
_WATCHED = 1024


def log_complement(scores: Tensor) -> Tensor:
    """log(1 - p) of every softmax probability p of ``scores`` (N, K), summed from the others: exact near p = 1."""
    itself = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    others = scores.unsqueeze(1).masked_fill(itself, -math.inf).logsumexp(2)  # (N, K)
    return others - scores.logsumexp(1, keepdim=True)


def classification_loss(scores: Tensor, targets: Tensor, kind: Literal["bce", "ce"]) -> Tensor:
    """Mean over images of the binary cross entropy summed over K softmax outputs, or of the cross entropy.

    Args:
        scores: Tempered logits (N, K).
        targets: Classes (N,) or class probabilities (N, K).
        kind: ``bce``: -sum_k y_k log p_k + (1 - y_k) log(1 - p_k), as in report R3; ``ce``: -sum_k y_k log p_k.
    """
    if kind == "ce":
        return F.cross_entropy(scores, targets)
    wanted = probabilities(targets, scores.shape[1])
    return -(wanted * scores.log_softmax(1) + (1 - wanted) * log_complement(scores)).sum(1).mean()


def discrimination_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-log(1 - h) of real and -log h of fake images, from their logits: real is 0 and fake is 1, report R3's labels."""
    return F.softplus(real).mean() + F.softplus(-fake).mean()


def generator_loss(net: nn.Module, real: Tensor, fake: Tensor, kind: GeneratorLoss) -> Tensor:
    """What the generator lowers, given the discriminator ``net`` of its own game (real is 1 there, as usual).

    Args:
        net: With ``features``; gives logits.
        real: Images (N, C, H, W) in [-1, 1].
        fake: Likewise, with the generator's graph.
        kind: ``non-saturating``: -log GD; ``saturating``: log(1 - GD) (Goodfellow et al. 2014, arXiv 1406.2661);
            ``feature-matching``: squared distance of mean features (Salimans et al. 2016, arXiv 1606.03498).
    """
    if kind == "feature-matching":
        return (net.features(real).mean(0).detach() - net.features(fake).mean(0)).square().sum()  # type: ignore[operator]
    logits = net(fake)
    return F.softplus(-logits).mean() if kind == "non-saturating" else -F.softplus(logits).mean()


@dataclass(eq=False)
class Game(Hook):
    """A step of the GAN, then the objective of classifier and discriminator on the same, detached fakes.

    Args:
        factor: From logits to the scores of the training's softmax.
        cls_loss: See :func:`classification_loss`.
        loss: Of the generator.
        lr: Of generator and GAN discriminator.
        betas: Likewise, of Adam.
    """

    replaces = "criterion"

    factor: float
    cls_loss: Literal["bce", "ce"]
    loss: GeneratorLoss
    lr: float
    betas: tuple[float, float]

    def __post_init__(self) -> None:
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._sums: dict[str, Tensor] = {}

    def start(self, loop: TrainingState) -> None:
        """Give the players of the GAN their optimisers, with the memory of an interrupted training."""
        for name in ("generator", "gan_discriminator"):
            made = torch.optim.Adam(getattr(loop.module, name).parameters(), lr=self.lr, betas=self.betas)
            if name in self._kept:
                restore_optimizer(made, self._kept[name])
            self._optimizers[name] = made

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """Play, then the loss; the network's own is not used.

        Raises:
            GauntletError: Outliers were given.
        """
        if batch.outliers is not None:
            raise GauntletError("Recipe 'euinet' makes its outliers itself: no recipe with outliers can join it.")
        net = loop.module
        assert isinstance(net, EuiNet)
        real = 2 * batch.images - 1
        fake = self.play(loop, net, real)
        logits = loop.logits(batch.images)
        # One pass over both: at test, batch-norm knows statistics of the mixture alone.
        h_real, h_fake = net.discriminator(torch.cat([real, fake])).split(len(real))
        self._note("h_real", h_real.sigmoid().mean())
        self._note("h_fake", h_fake.sigmoid().mean())
        loss = classification_loss(self.factor * logits, batch.targets, self.cls_loss)
        return LossOutput(loss + discrimination_loss(h_real, h_fake), logits)

    def play(self, loop: TrainingState, net: EuiNet, real: Tensor) -> Tensor:
        """One step of the GAN's discriminator and one of the generator; returns the fakes, detached."""
        z = torch.randn(len(real), net.generator.latent, generator=loop.rng, device=loop.device)
        fake = net.generator(z)
        judge = net.gan_discriminator
        self._step("gan_discriminator", F.softplus(-judge(real)).mean() + F.softplus(judge(fake.detach())).mean())
        self._step("generator", generator_loss(judge, real, fake, self.loss))
        return fake.detach()

    def _step(self, name: str, loss: Tensor) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self._optimizers[name].step()
        self._note(f"{name}_loss", loss)

    def _note(self, name: str, value: Tensor) -> None:
        sums = self._sums.setdefault(name, torch.zeros(2, device=value.device))
        sums += torch.stack([value.detach(), torch.ones_like(value)])

    def after_epoch(self, loop: TrainingState, log: EpochLog) -> None:
        """Add the means of the GAN's losses and of h."""
        log |= {name: float(total / count) for name, (total, count) in self._sums.items()}
        self._sums = {}

    @torch.no_grad()
    def evaluate(self, loop: TrainingState, images: ImageSet) -> dict[str, float]:
        """Classification loss as in training, accuracy, and mean h."""
        net = loop.module.eval()
        assert isinstance(net, EuiNet)
        sums = {"loss": 0.0, "accuracy": 0.0, "h": 0.0}
        for x, y, _ in images.batches(_WATCHED):
            outputs, y = net.forward_outputs(as_images(x.to(loop.device))), y.to(loop.device)
            logits = outputs["logits"]
            sums["loss"] += float(classification_loss(self.factor * logits, y, self.cls_loss)) * len(y)
            sums["accuracy"] += int((logits.argmax(1) == y).sum())
            sums["h"] += float(outputs["h"].sum())
        return {name: value / len(images) if len(images) else math.nan for name, value in sums.items()}

    def state(self) -> dict[str, Tensor]:
        """What both optimisers remember; their networks are part of the model."""
        return flat({name: optimizer_tensors(optimizer) for name, optimizer in self._optimizers.items()})

    def restore(self, state: dict[str, Tensor]) -> None:
        """Keep it for :meth:`start`."""
        self._kept = nested(state)
