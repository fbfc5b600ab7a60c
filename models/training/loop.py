"""The training loop: one for all recipes, which differ in their hooks."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ...datasets import ImageSet
from ...registry import GauntletError
from ..memory import keep_freed_memory
from .batch import Batch, as_images, hard
from .hooks import Hook, LoopSettings, LossOutput, Objective, TrainingState
from .onednn_workaround import sliced_inputs
from .optim import Optimisation
from .recipe import EpochLog, Progress
from .resume import EpochFile, optimizer_tensors, restore_optimizer


class Loop(TrainingState):
    """The training itself; what hooks read of it is in :class:`~.hooks.TrainingState`.

    Args:
        module: The network, on ``device``; trained in place.
        train: Training images.
        watched: Splits that are judged after every epoch, by name; ``val`` is among them.
        settings: Lengths, batches, what is kept.
        optimisation: Optimiser and schedule.
        hooks: What the recipe changes.
        device: Where the images go.
        seed: Of all streams.
        progress: Called after every batch.
        resume: Where the last finished epoch is kept.
    """

    def __init__(
        self,
        module: nn.Module,
        train: ImageSet,
        watched: dict[str, ImageSet],
        settings: LoopSettings,
        optimisation: Optimisation,
        hooks: Sequence[Hook],
        *,
        device: torch.device,
        seed: int,
        progress: Progress | None = None,
        resume: EpochFile | None = None,
    ) -> None:
        keep_freed_memory()
        super().__init__(module, train, settings, optimisation, hooks, device=device, seed=seed)
        self.optimizer = optimisation.build(module, [own for hook in hooks for own in hook.parameters(self)])
        self._order = torch.Generator().manual_seed(seed)
        self._watched, self._progress, self._resume = watched, progress, resume
        self._criterion = next((hook for hook in hooks if hook.replaces == "criterion"), Hook())
        self._history: list[EpochLog] = []
        self._best: tuple[float, dict[str, Tensor]] | None = None

    # -- the run ----------------------------------------------------------------------------------------------

    def run(self) -> list[EpochLog]:
        """Train; returns one record an epoch.

        Raises:
            GauntletError: The loss is no longer a number; the last good epoch stays in the epoch checkpoint.
        """
        with sliced_inputs(self.module):
            return self._run()

    def _run(self) -> list[EpochLog]:
        self._take_up()
        for hook in self.hooks:
            hook.start(self)
        while self.step < self.total and not self._out_of_patience():
            started = time.perf_counter()
            log = self._epoch()
            with self._evaluating():
                for name, images in self._watched.items():
                    figures = self._criterion.evaluate(self, images)
                    log |= {f"{name}_{figure}": value for figure, value in figures.items()}
                log["seconds"] = time.perf_counter() - started
                self._check(log)
                for hook in self.hooks:
                    hook.after_epoch(self, log)
                self._history.append(log)
                if self.settings.keep == "best" and (self._best is None or log["val_loss"] < self._best[0]):
                    self._best = (log["val_loss"], copy.deepcopy(self.module.state_dict()))
            self.epoch += 1
            if self.step < self.total:
                self._save()
        self._finish()
        return self._history

    def _epoch(self) -> EpochLog:
        self.module.train()
        permutation = torch.randperm(len(self.targets), generator=self._order).to(self.device)
        batches = permutation.split(self.settings.batch_size)[: min(self.steps_per_epoch, self.total - self.step)]
        # Sums stay on the device: reading them every step would make a GPU wait.
        loss_sum, right = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        seen, started = 0, time.perf_counter()
        for positions in batches:
            self._set_lr()
            batch = Batch(as_images(self.pixels[positions]), self.targets[positions], positions)
            for hook in self.hooks:
                batch = hook.transform(self, batch)
            for part in self._parts(batch):
                loss, logits = self._update(part)
            loss_sum += loss.detach() * len(batch)
            if logits is not None:
                right += (logits.detach().argmax(1) == hard(part.targets)).sum()
            seen += len(batch)
            self.step += 1
            if self._progress is not None:
                speed = seen / max(time.perf_counter() - started, 1e-9)
                figures = {"epoch": self.epoch + 1, "loss": loss_sum / seen, "speed": speed}
                if logits is not None:
                    figures["accuracy"] = right / seen
                self._progress(self.step, self.total, figures)
        accuracy = {} if logits is None else {"accuracy": float(right) / seen}
        lr = self.optimizer.param_groups[0]["lr"]
        return {"epoch": self.epoch + 1, "loss": float(loss_sum) / seen, **accuracy, "lr": lr}

    def _update(self, batch: Batch) -> LossOutput:
        result = self.objective()(batch)
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        self.optimizer.step()
        for hook in self.hooks:
            hook.after_step(self)
        return result

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        parts: Iterator[Batch] = iter([batch])
        for hook in self.hooks:
            parts = _expanded(hook, self, parts)
        return parts

    # -- the loss ---------------------------------------------------------------------------------------------

    def objective(self) -> Objective:
        """The loss as all hooks together define it."""
        chain: Objective = self._network
        for hook in reversed(self.hooks):
            chain = partial(hook.objective, self, inner=chain)
        return chain

    def _network(self, batch: Batch) -> LossOutput:
        if batch.outliers is None:
            logits = self.logits(batch.images)
            return LossOutput(self._criterion.criterion(logits, batch.targets), logits)
        # One pass over both, so that batch-norm sees the mixture.
        inside, outside = self.logits(torch.cat([batch.images, batch.outliers])).split(
            [len(batch.images), len(batch.outliers)]
        )
        loss = self._criterion.criterion(inside, batch.targets)
        return LossOutput(loss + sum(hook.penalty(inside, outside) for hook in self.hooks), inside)

    # -- around the epochs ------------------------------------------------------------------------------------

    def _set_lr(self) -> None:
        lr = self.optimisation.lr_at(self.step, self.total, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for hook in self.hooks:
                stack.enter_context(hook.evaluating(self))
            yield

    def _out_of_patience(self) -> bool:
        if self.settings.patience is None or not self._history:
            return False
        losses = [log["val_loss"] for log in self._history]
        return len(losses) - 1 - losses.index(min(losses)) >= self.settings.patience

    def _check(self, log: EpochLog) -> None:
        # What the last step of an epoch did shows in the validation loss only.
        watched = [log["val_loss"]] if len(self._watched["val"]) else []
        for loss in (log["loss"], *watched):
            if not math.isfinite(loss):
                kept = self._resume.path if self._resume is not None and self._resume.path.is_file() else None
                kept_words = f"; the state after epoch {self.epoch} is kept in {kept}" if kept else ""
                raise GauntletError(
                    f"Training diverged: the loss is {loss} in epoch {log['epoch']} of {self.settings.epochs}; lower "
                    f"the lr (now {self.optimisation.lr:g}){kept_words}."
                )

    def _finish(self) -> None:
        if self._best is not None:
            self.module.load_state_dict(self._best[1])
        else:
            with self._evaluating():
                final = copy.deepcopy(self.module.state_dict())
            self.module.load_state_dict(final)
        self.module.eval()

    # -- interruption -----------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self._resume is None:
            return
        state = {
            "module": self.module.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "best": {} if self._best is None else self._best[1],
            "rng": {"order": self._order.get_state(), "draws": self.rng.get_state(), "cpu": torch.get_rng_state()},
            **{f"hook{number}": hook.state() for number, hook in enumerate(self.hooks)},
        }
        if self.device.type == "cuda":
            state["rng"]["cuda"] = torch.cuda.get_rng_state(self.device)
        best = None if self._best is None else self._best[0]
        self._resume.save(state, {"epoch": self.epoch, "step": self.step, "history": self._history, "best": best})

    def _take_up(self) -> None:
        found = None if self._resume is None else self._resume.load()
        if found is None:
            return
        state, facts = found
        self.epoch, self.step, self._history = facts["epoch"], facts["step"], facts["history"]
        self.module.load_state_dict(state["module"])
        restore_optimizer(self.optimizer, state.get("optimizer", {}))
        self._best = None if facts["best"] is None else (facts["best"], state["best"])
        self._order.set_state(state["rng"]["order"])
        self.rng.set_state(state["rng"]["draws"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)
        for number, hook in enumerate(self.hooks):
            hook.restore(state.get(f"hook{number}", {}))


def _expanded(hook: Hook, loop: Loop, batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield from hook.expand(loop, batch)
