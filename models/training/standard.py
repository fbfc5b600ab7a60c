"""`standard`: supervised training with cross entropy."""

from __future__ import annotations

import copy
import math
import time
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...datasets import ImageSet
from ...registry import GauntletError, recipe
from .recipe import EpochLog, Progress, Recipe


@recipe("standard", reference="Loshchilov & Hutter 2016, arXiv 1608.03983 (cosine); Kingma & Ba 2014, arXiv 1412.6980")
class Standard(Recipe):
    """Cross entropy with Adam or SGD and a cosine schedule, watched on the validation split; no augmentation.

    Args:
        epochs: Passes over the training split.
        optimizer: ``adam`` or ``sgd`` (Nesterov).
        lr: Peak learning rate; None: 1e-3 for Adam, 0.01 for SGD.
        momentum: For SGD.
        weight_decay: L2 penalty (decoupled for Adam).
        batch_size: Images a step.
        schedule: ``cosine`` falls to zero over the whole run, step by step; ``constant`` does not.
        keep: ``last`` epoch, or the ``best`` one by validation loss.
    """

    def __init__(
        self,
        *,
        epochs: int = 10,
        optimizer: Literal["adam", "sgd"] = "adam",
        lr: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        batch_size: int = 128,
        schedule: Literal["cosine", "constant"] = "cosine",
        keep: Literal["last", "best"] = "last",
    ) -> None:
        if epochs < 1 or batch_size < 2:
            raise GauntletError(
                "recipe 'standard' needs epochs >= 1 and batch_size >= 2, "
                f"got epochs={epochs}, batch_size={batch_size}."
            )
        if lr is not None and not (0 < lr < math.inf):
            raise GauntletError(f"recipe 'standard' needs a positive lr, got {lr}.")
        if not (0 <= momentum < 1 and 0 <= weight_decay < math.inf):
            raise GauntletError(
                "recipe 'standard' needs a momentum in [0, 1) and a weight_decay >= 0, "
                f"got momentum={momentum}, weight_decay={weight_decay}."
            )
        self.epochs, self.batch_size, self.schedule, self.keep = epochs, batch_size, schedule, keep
        self.optimizer, self.momentum, self.weight_decay = optimizer, momentum, weight_decay
        self.lr = lr if lr is not None else {"adam": 1e-3, "sgd": 1e-2}[optimizer]

    def train(
        self,
        module: nn.Module,
        train: ImageSet,
        val: ImageSet,
        *,
        device: torch.device,
        seed: int,
        progress: Progress | None = None,
    ) -> list[EpochLog]:
        """See :meth:`Recipe.train`."""
        self._check_data(train, val)
        images, labels = train.pixels.to(device), train.labels.to(device)
        optimizer = self._optimizer(module)
        order = torch.Generator().manual_seed(seed)
        history: list[EpochLog] = []
        best: tuple[float, dict[str, Tensor]] | None = None
        for epoch in range(self.epochs):
            started = time.perf_counter()
            permutation = torch.randperm(len(train), generator=order).to(device)
            log = self._epoch(module, optimizer, images, labels, permutation, epoch, progress)
            log["val_loss"], log["val_accuracy"] = evaluate(module, val, device)
            log["seconds"] = time.perf_counter() - started
            history.append(log)
            self._check_loss(log, watched=len(val) > 0)
            if self.keep == "best" and (best is None or log["val_loss"] < best[0]):
                best = (log["val_loss"], copy.deepcopy(module.state_dict()))
        if best is not None:
            module.load_state_dict(best[1])
        module.eval()
        return history

    def _epoch(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        labels: Tensor,
        permutation: Tensor,
        epoch: int,
        progress: Progress | None,
    ) -> EpochLog:
        module.train()
        batches = [batch for batch in permutation.split(self.batch_size) if len(batch) > 1]  # batch-norm needs two
        # Sums stay on the device: reading them every step would make a GPU wait.
        loss_sum = torch.zeros((), device=images.device)
        right = torch.zeros((), device=images.device)
        seen = 0
        for step, batch in enumerate(batches, start=epoch * len(batches)):
            self._set_lr(optimizer, step / (self.epochs * len(batches)))
            target = labels[batch]
            logits = module(as_images(images[batch]))
            loss = F.cross_entropy(logits, target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(target)
            right += (logits.detach().argmax(1) == target).sum()
            seen += len(target)
            if progress is not None:
                figures = {"epoch": epoch + 1, "loss": loss_sum / seen, "accuracy": right / seen}
                progress(step + 1, self.epochs * len(batches), figures)
        lr = optimizer.param_groups[0]["lr"]
        return {"epoch": epoch + 1, "loss": float(loss_sum) / seen, "accuracy": float(right) / seen, "lr": lr}

    def _check_data(self, train: ImageSet, val: ImageSet) -> None:
        if len(train) < 2:
            raise GauntletError(
                f"Dataset {train.name!r} has {len(train)} training images; training needs at least two."
            )
        if int(train.labels.min()) < 0:
            raise GauntletError(f"Dataset {train.name!r} has training images of unknown class; training needs labels.")
        if self.keep == "best" and len(val) == 0:
            raise GauntletError(
                f"Dataset {val.name!r} has no validation images; recipe 'standard' needs some for `keep: best`."
            )

    def _check_loss(self, log: EpochLog, *, watched: bool) -> None:
        # What the last step of an epoch did shows in the validation loss only.
        for loss in (log["loss"], *([log["val_loss"]] if watched else [])):
            if not math.isfinite(loss):
                raise GauntletError(
                    f"Training diverged: the loss is {loss} in epoch {log['epoch']} of {self.epochs}; lower the lr "
                    f"(now {self.lr:g})."
                )

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not parameters:
            raise GauntletError("The model has no parameters to train; give it `recipe: none`.")
        if self.optimizer == "adam":
            return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, nesterov=self.momentum > 0, weight_decay=self.weight_decay
        )

    def _set_lr(self, optimizer: torch.optim.Optimizer, share: float) -> None:
        factor = 0.5 * (1 + math.cos(math.pi * share)) if self.schedule == "cosine" else 1.0
        for group in optimizer.param_groups:
            group["lr"] = self.lr * factor


def as_images(pixels: Tensor) -> Tensor:
    """Bytes or floats to float32 in [0, 1], channels last: on a CPU convolutions then run about twice as fast."""
    images = pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels
    return images.to(memory_format=torch.channels_last)


@torch.no_grad()
def evaluate(module: nn.Module, images: ImageSet, device: torch.device, batch_size: int = 1024) -> tuple[float, float]:
    """Mean cross entropy and accuracy in eval mode; (nan, nan) on an empty set."""
    if len(images) == 0:
        return math.nan, math.nan
    module.eval()
    loss, right = 0.0, 0
    for x, y, _ in images.batches(batch_size):
        logits = module(as_images(x.to(device)))
        y = y.to(device)
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        right += int((logits.argmax(1) == y).sum())
    return loss / len(images), right / len(images)
