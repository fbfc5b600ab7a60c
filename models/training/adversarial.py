"""`adversarial`: training on the examples of any registered gradient attack, with a schedule of their weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...attacks import Attack, PerImageRNG, Victim, build_attack
from ...registry import ATTACKS, GauntletError, recipe, select_one
from .batch import Batch, hard
from .hooks import Hook, LossOutput, Objective, TrainingState
from .single_step import SINGLE_STEP
from .trainer import Trainer

#: Ten steps that may cross the ball, all the way even after the network is fooled.
INNER = {"pgd": {"steps": 10, "rel_stepsize": 0.25, "stop_when_fooled": False}}
#: Madry et al.: forty steps of 0.01 at epsilon 0.3.
MADRY = {"pgd": {"steps": 40, "rel_stepsize": 1 / 30, "stop_when_fooled": False}}


@dataclass(eq=False)
class Adversarial(Hook):
    """The loss (1 - w) * clean + w * adversarial; the examples are made in eval mode, by the weights as they are.

    Args:
        attack: Makes them.
        epsilon: Radius, in the attack's norm.
        ramp: Epochs (or a part of one) in which the radius grows from zero.
        weights: w of each epoch; the last one holds for all after.
        additive: clean + w * adversarial instead.
    """

    attack: Attack
    epsilon: float
    ramp: float
    weights: Sequence[float]
    additive: bool

    def radius(self, loop: TrainingState) -> float:
        """The radius at this step."""
        rising = self.ramp * loop.steps_per_epoch
        return self.epsilon * min(1.0, (loop.step + 1) / rising) if rising else self.epsilon

    def weight(self, loop: TrainingState) -> float:
        """The weight in this epoch."""
        return self.weights[min(loop.epoch, len(self.weights) - 1)]

    def examples(self, loop: TrainingState, batch: Batch, victim: Victim, labels: Tensor) -> Tensor:
        """Adversarial images of a batch."""
        draws = PerImageRNG(f"training {loop.seed} {loop.step}", batch.indices)
        with victim:
            found = self.attack.run(victim, batch.images, labels, [self.radius(loop)], rng=draws)
        return found[0].images.detach().to(memory_format=torch.channels_last)

    def victim(self, loop: TrainingState, batch: Batch) -> Victim:
        """The network as the attack sees it."""
        return Victim(
            loop.module,
            device=loop.device,
            batch_size=len(batch),
            memory_format=torch.channels_last,
            classes=len(loop.train.classes),
        )

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """Both passes, or the one that has a weight."""
        weight = self.weight(loop)
        if weight == 0:
            return inner(batch)
        made = self.examples(loop, batch, self.victim(loop, batch), hard(batch.targets))
        if weight == 1 and not self.additive:
            return inner(replace(batch, images=made))
        clean, adversarial = inner(batch), inner(replace(batch, images=made, outliers=None))
        share = 1.0 if self.additive else 1 - weight
        return LossOutput(share * clean.loss + weight * adversarial.loss, clean.logits)


class _Divergence(Victim):
    """A victim whose loss is the divergence from its own clean predictions; labels are positions in the batch."""

    clean: Tensor

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """KL(clean || outputs) of each image (N,)."""
        return F.kl_div(outputs.log_softmax(1), self.clean[labels], reduction="none").sum(1)

    def inspect(self, images: Tensor) -> None:
        """Its labels are no classes."""

    def is_fooled(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Nothing counts as fooled (N,): the attack goes all the way."""
        return torch.zeros(len(labels), dtype=torch.bool, device=labels.device)


class Trades(Adversarial):
    """The clean loss and ``beta`` times the divergence between clean and adversarial predictions."""

    def __init__(self, attack: Attack, epsilon: float, ramp: float, weights: Sequence[float], beta: float) -> None:
        super().__init__(attack, epsilon, ramp, weights, additive=True)
        self.beta = beta

    def objective(self, loop: TrainingState, batch: Batch, inner: Objective) -> LossOutput:
        """TRADES (Zhang et al. 2019, arXiv 1901.08573); the epoch's weight scales beta."""
        strength = self.beta * self.weight(loop)
        if strength == 0:
            return inner(batch)
        victim = _Divergence(loop.module, device=loop.device, batch_size=len(batch), memory_format=torch.channels_last)
        with torch.no_grad():
            loop.module.eval()
            victim.clean = loop.logits(batch.images).softmax(1)
            loop.module.train()
        made = self.examples(loop, batch, victim, torch.arange(len(batch), device=loop.device))
        clean = inner(batch)
        assert clean.logits is not None  # recipes of models without logits cannot be joined
        divergence = F.kl_div(
            loop.logits(made).log_softmax(1), clean.logits.log_softmax(1), reduction="batchmean", log_target=True
        )
        return LossOutput(clean.loss + strength * divergence, clean.logits)


@recipe(
    "adversarial",
    reference="Madry et al. 2017, arXiv 1706.06083; Zhang et al. 2019, arXiv 1901.08573 (TRADES)",
    profiles={
        "paper": {
            "attack": MADRY,
            "lr": 1e-4,
            "batch_size": 50,
            "steps": 100_000,
            "epochs": 93,
            "ramp": 0.0,
            "schedule": "constant",
        },
        "r2": {
            "attack": MADRY,
            "epochs": 7,
            "weights": [[1, 0.1], [3, 0.5], [3, 0.75]],
            "ramp": 0.0,
            "batch_size": 120,
            "schedule": "exponential",
        },
        "r4": {"attack": "fgsm", "epsilon": 0.1, "epochs": 20, "weights": [[20, 0.5]], "ramp": 0.0},
    },
    warnings={
        "r2": "report R2 documents it as unsuccessful, with worse robustness than before: no ramp of "
        "epsilon, seven epochs",
        "r4": SINGLE_STEP,
    },
)
class AdversarialTraining(Trainer):
    """Cross entropy on the examples of an inner attack, alone or beside that of clean images; TRADES as an option.

    Args:
        attack: Any registered gradient attack with a fixed budget.
        epsilon: Radius, in the attack's norm.
        ramp: Epochs (or a part of one) in which the radius grows from zero; None: two, or a quarter of all if less.
        weights: ``[[epochs, weight], ...]`` of the adversarial loss, one after another; empty: 1 throughout. Epochs
            of weight 0 are clean training, to start from.
        additive: Whether the clean loss keeps its full weight.
        trades: Coefficient of the divergence between clean and adversarial predictions in the place of the
            adversarial loss; None: no TRADES. The paper takes 6 on CIFAR-10, 1 on MNIST.
        epochs: Passes over the training split; robustness comes later than accuracy.
        **settings: Those of :class:`Trainer`.
    """

    name = "adversarial"

    def __init__(
        self,
        *,
        attack: Any = INNER,
        epsilon: float = 0.3,
        ramp: float | None = None,
        weights: Sequence[tuple[int, float]] = (),
        additive: bool = False,
        trades: float | None = None,
        epochs: int = 20,
        **settings: Any,
    ) -> None:
        super().__init__(epochs=epochs, **settings)
        self._require(0 <= epsilon < math.inf, "an epsilon >= 0", epsilon)
        ramp = min(2.0, self.epochs / 4) if ramp is None else ramp
        self._require(0 <= ramp <= self.epochs, f"a ramp from 0 to its {self.epochs} epochs", ramp)
        self._require(trades is None or 0 <= trades < math.inf, "trades >= 0", trades)
        self.attack = _gradient_attack(attack)
        self.epsilon, self.ramp, self.additive, self.trades = epsilon, ramp, additive, trades
        self.weights = self._each_epoch(weights)

    def _each_epoch(self, weights: Sequence[tuple[int, float]]) -> list[float]:
        for epochs, weight in weights:
            self._require(
                epochs >= 1 and 0 <= weight <= 1, "weights as [epochs >= 1, weight in [0, 1]]", [epochs, weight]
            )
        listed = [weight for epochs, weight in weights for _ in range(epochs)]
        if listed and len(listed) != self.epochs:
            raise GauntletError(
                f"recipe {self.name!r}: its weights cover {len(listed)} epochs but it has epochs={self.epochs}; make "
                "the two equal."
            )
        return listed or [1.0]

    def own_hooks(self) -> list[Hook]:
        """The examples."""
        if self.trades is not None:
            return [Trades(self.attack, self.epsilon, self.ramp, self.weights, self.trades)]
        return [Adversarial(self.attack, self.epsilon, self.ramp, self.weights, self.additive)]


def _gradient_attack(spec: Any) -> Attack:
    chosen = select_one(ATTACKS, spec)
    facts = chosen.entry.meta
    if facts.get("kind") != "fixed" or facts.get("access") != "gradient":
        raise GauntletError(
            f"recipe 'adversarial' needs a gradient attack with a fixed budget, such as pgd or fgsm, got "
            f"{chosen.entry.name!r}."
        )
    return build_attack(chosen.entry, chosen.parameters)
