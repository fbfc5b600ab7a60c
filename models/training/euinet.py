"""`euinet`: a classifier and a discriminator under one objective, with fakes from a GAN that plays on its own (R3)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from ...datasets import ImageSet
from ...registry import GauntletError, recipe
from ..euinet import EuiNet
from .euinet_game import Game, GeneratorLoss
from .hooks import Hook
from .trainer import Trainer

#: Where the temperature T enters: scores T z at test alone; in training too; or z / T in training alone.
Convention = Literal["test-multiply", "multiply", "divide"]


@recipe(
    "euinet",
    needs=("logits", "h"),
    reference="Goodfellow et al. 2014, arXiv 1406.2661 (GAN); Radford et al. 2015, arXiv 1511.06434 (DCGAN)",
    profiles={
        "r3": {
            "temperature": 1e-3,
            "temperature_convention": "multiply",
            "cls_loss": "bce",
            "lr": 2e-4,
            "betas": (0.5, 0.599),
            "gan_lr": 1e-4,
            "gan_betas": (0.35, 0.699),
            "epochs": 5,
            "batch_size": 64,
            "schedule": "constant",
        }
    },
    warnings={
        "r3": "with its temperature of 1e-3 in training the softmax stays where it is linear and hardly learns, and "
        "its alpha 0.004 and gamma 0.008 belong to a scale of scores that is not published: on another one they flag "
        "all images or none"
    },
)
class EuiNetRecipe(Trainer):
    """Report R3's training of a classifier and a discriminator together, on the fakes of a GAN beside them.

    A batch is a step of the GAN's discriminator, one of its generator, and one of both parts of the model.

    The model's discriminator never plays against the generator, so that it can converge. The temperature T scales the
    logits z: ``test-multiply`` trains on z and takes T z at test, ``multiply`` trains on T z too, ``divide`` trains on
    z / T and takes z at test. The detector ``euinet`` has the same two parameters; give it the same values.

    Args:
        temperature: T > 0.
        temperature_convention: Where it enters.
        cls_loss: Binary cross entropy over the K softmax outputs, or cross entropy.
        generator_loss: See :func:`generator_loss`.
        lr: Of classifier and discriminator.
        betas: Of their Adam.
        gan_lr: Of generator and GAN discriminator.
        gan_betas: Of their Adam.
        epochs: Passes over the training split.
        batch_size: Images a step.
        schedule: Of ``lr``; the GAN's is constant.
        **settings: Those of :class:`Trainer`.
    """

    name = "euinet"

    def __init__(
        self,
        *,
        temperature: float = 1e-3,
        temperature_convention: Convention = "test-multiply",
        cls_loss: Literal["bce", "ce"] = "bce",
        generator_loss: GeneratorLoss = "non-saturating",
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.599),
        gan_lr: float = 1e-4,
        gan_betas: tuple[float, float] = (0.35, 0.699),
        epochs: int = 5,
        batch_size: int = 64,
        schedule: Literal["cosine", "exponential", "constant"] = "constant",
        **settings: Any,
    ) -> None:
        super().__init__(lr=lr, epochs=epochs, batch_size=batch_size, schedule=schedule, **settings)
        self._require(0 < temperature < math.inf, "a temperature above 0", temperature)
        self._require(0 < gan_lr < math.inf, "a positive gan_lr", gan_lr)
        for name, pair in (("betas", betas), ("gan_betas", gan_betas)):
            self._require(all(0 <= beta < 1 for beta in pair), f"two {name} in [0, 1)", pair)
        self._optimisation = replace(self._optimisation, betas=betas)
        self.factor = {"test-multiply": 1.0, "multiply": temperature, "divide": 1 / temperature}[temperature_convention]
        self._game = (cls_loss, generator_loss, gan_lr, gan_betas)

    def own_hooks(self) -> list[Hook]:
        """The game."""
        return [Game(self.factor, *self._game)]

    def _check_model(self, module: nn.Module, train: ImageSet, device: torch.device) -> None:
        if not isinstance(module, EuiNet):
            raise GauntletError(f"recipe 'euinet' trains the model 'euinet', got a {type(module).__name__}.")
        made, given = tuple(module.generator.shape), tuple(train.pixels.shape[1:])
        if made != given:
            sizes = ["x".join(map(str, size)) for size in (made, given)]
            raise GauntletError(
                f"The generator makes {sizes[0]} images and those of dataset {train.name!r} are {sizes[1]}: "
                "leave out the model's `shape`, or set it to theirs."
            )
