"""The victim: a model in eval mode with frozen parameters, whose queries are counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import GauntletError
from .frozen import FrozenModule
from .inputs import output_kind

#: What is wrong with outputs that are not logits.
SATURATED = "losses saturate on them, and attacks look weaker than they are; let it return logits."

_MASKED = -1e4  # far below any other logit, and near enough for gradients and margins that are numbers
_NO_GRADIENT = ("does not require grad", "not have been used in the graph", "does not have a grad_fn")


class Victim:
    """A model under attack; a context manager.

    On entry the module is put in eval mode, its parameters are frozen and laid out for speed on ``device``; on exit,
    also after an exception, every training flag, ``requires_grad``, device and memory format is as it was.

    A victim of another kind (a reconstruction loss, a detector's score) overrides :meth:`losses` and :meth:`is_fooled`.

    Args:
        module: Maps images (N, C, H, W) to logits (N, classes).
        device: Where the passes run; images and labels are expected there.
        batch_size: Most images in one pass.
        memory_format: Layout of 4-D weights and images. By default ``channels_last`` on a CPU, where convolutions are
            up to twice as fast in it, and contiguous elsewhere; a module that cannot work on the former (it calls
            ``view``) gets the latter.
        surrogate: Another victim, entered and left with this one, on which attacks may make their images.
        classes: Number of the model's classes, where it is known; otherwise :meth:`inspect` finds out.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 512,
        memory_format: torch.memory_format | None = None,
        surrogate: Victim | None = None,
        classes: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.surrogate = surrogate
        self.batch_size = batch_size
        self.reset_counts()
        self._classes = classes
        self._frozen = FrozenModule(module, self.device, memory_format)
        self._module: _CountingModule | None = None

    def __enter__(self) -> Self:
        self._frozen.freeze()
        try:
            if self.surrogate is not None:
                self.surrogate.__enter__()
        except BaseException:
            self._frozen.restore()
            raise
        self._module = _CountingModule(self._frozen.module, self).eval()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._module = None
        if self.surrogate is not None:
            self.surrogate.__exit__(kind, error, trace)
        self._frozen.restore()

    @property
    def module(self) -> nn.Module:
        """The model for library attacks: a module whose forwards and backwards are counted here.

        Raises:
            RuntimeError: The victim was not entered.
        """
        if self._module is None:
            raise RuntimeError("a victim is used within `with Victim(module) as victim:`")
        return self._module

    def reset_counts(self) -> None:
        """Set all counters to zero."""
        self.forwards = self.backwards = 0
        self._gradient_entries, self._lost_entries = 0, torch.zeros((), dtype=torch.int64, device=self.device)

    def gradient_entries(self) -> tuple[int, int]:
        """How many entries gradients had since the counters were set, and how many of them were NaN or infinite."""
        return self._gradient_entries, int(self._lost_entries)

    def inspect(self, images: Tensor) -> int | None:
        """Number of the model's classes; warns, once, where its outputs are probabilities.

        Args:
            images: Images (N, C, H, W), of which a few are looked at the first time; that is not counted.
        """
        if self._classes is None and len(images):
            forwards = self.forwards
            outputs = self.outputs(images[: min(self.batch_size, 32)])
            self.forwards, self._classes = forwards, outputs.shape[1]
            kind = output_kind(outputs)
            if kind in ("probabilities", "sigmoids"):
                warnings.warn(f"The model seems to return {kind}: {SATURATED}", stacklevel=3)
        return self._classes

    # -- queries ------------------------------------------------------------------------------------------------

    def outputs(self, images: Tensor) -> Tensor:
        """What the module returns (N, classes), without gradient, NaN or not."""
        with torch.no_grad():
            return torch.cat([self.module(part) for part in images.split(self.batch_size)])

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes), without gradient.

        Raises:
            GauntletError: A logit is NaN.
        """
        logits = self.outputs(images)
        broken = int(logits.isnan().any(dim=1).sum())
        if broken:
            raise GauntletError(
                f"The model's logits are NaN for {broken} of {len(logits)} images; they must be numbers."
            )
        return logits

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy (N,), without gradient."""
        return self.losses(self.outputs(images), labels)

    def fooled(self, images: Tensor, labels: Tensor) -> Tensor:
        """Which predictions (N,) differ from the labels; NaN logits never do."""
        return self.is_fooled(self.outputs(images), labels)

    def gradient(
        self, images: Tensor, labels: Tensor, loss: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradient of the summed loss with respect to the images, and the outputs of the same pass.

        Args:
            images: Images (N, C, H, W).
            labels: Labels (N,), or anything else with N rows that the loss takes.
            loss: Loss (N,) of outputs and labels; by default :meth:`losses`.

        Returns:
            Gradient (N, C, H, W) and detached outputs (N, classes).

        Raises:
            GauntletError: No gradient reaches the images.
        """
        parts = zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)
        gradients, outputs = zip(*(self._gradients(*part, (loss or self.losses,)) for part in parts), strict=True)
        return torch.cat([gradient[0] for gradient in gradients]), torch.cat(outputs)

    def logit_difference_gradients(self, images: Tensor, classes: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of logit differences: one forward, then one backward for each of them on the kept graph.

        Args:
            images: At most ``batch_size`` images (N, C, H, W).
            classes: Classes of each image (N, K).
            base: The class of each image (N,) whose logit is subtracted.

        Returns:
            Gradients (N, K, C, H, W) and detached outputs (N, classes).

        Raises:
            GauntletError: No gradient reaches the images.
        """
        losses = [partial(_difference, base=base, column=column) for column in range(classes.shape[1])]
        gradients, outputs = self._gradients(images, classes, losses)
        return torch.stack(gradients, dim=1), outputs

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """What an attack drives up (N,), from outputs; differentiable."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def is_fooled(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Which outputs count as fooled (N,); NaN never does."""
        return (outputs.argmax(dim=1) != labels) & ~not_numbers(outputs)

    def is_over(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Where a search has nothing more to find (N,): the image fools, or the outputs (N, classes) became NaN."""
        return self.is_fooled(outputs, labels) | not_numbers(outputs)

    # -- inside -------------------------------------------------------------------------------------------------

    def _gradients(
        self, images: Tensor, labels: Tensor, losses: Sequence[Callable[[Tensor, Tensor], Tensor]]
    ) -> tuple[list[Tensor], Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            images = (images.clone() if images.is_inference() else images).detach().requires_grad_()
            outputs = self.module(images)
            try:
                gradients = [
                    torch.autograd.grad(loss(outputs, labels).sum(), images, retain_graph=left > 0)[0]
                    for left, loss in zip(range(len(losses) - 1, -1, -1), losses, strict=True)
                ]
            except RuntimeError as error:
                if not any(sign in str(error) for sign in _NO_GRADIENT):
                    raise
                raise GauntletError(
                    "No gradient of the model's loss reaches the images: choose attacks that need none, or remove the "
                    "detach(), no_grad() or in-place conversion from its forward."
                ) from None
        return gradients, outputs.detach()

    def _forward_counted(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of one counted pass of the module itself.

        Raises:
            GauntletError: It returned something else.
        """
        if images.requires_grad:
            # A hook on a tensor of our own: one on the caller's would outlive the call.
            images = images.view_as(images)
            images.register_hook(self._finite_gradient)
        outputs = self._frozen(images)
        if isinstance(outputs, Tensor) and outputs.is_floating_point():
            # A masked class has a logit of minus infinity, whose differences and gradients are no numbers.
            outputs = outputs.nan_to_num(nan=torch.nan, posinf=torch.inf, neginf=_MASKED)
        count = len(images)
        if isinstance(outputs, Tensor) and count == 1 and outputs.ndim == 1:
            outputs = outputs[None]  # of a model that squeezes
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != count:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            raise GauntletError(
                f"The model must map {count} images to logits of shape ({count}, classes), got {found}."
            )
        self.forwards += count
        outputs = outputs.float()  # losses of half and of double precision alike
        if outputs.requires_grad:
            outputs.register_hook(lambda _: self._count_backward(count))
        return outputs

    def _finite_gradient(self, gradient: Tensor) -> Tensor:
        """The gradient with 0 in place of NaN and infinity (a square root at 0 has them), which are counted."""
        lost = ~gradient.isfinite()
        self._gradient_entries += gradient.numel()
        self._lost_entries = self._lost_entries + lost.sum()  # on the device: no transfer at each step
        return gradient.masked_fill(lost, 0)

    def _count_backward(self, count: int) -> None:
        self.backwards += count


def not_numbers(outputs: Tensor) -> Tensor:
    """Which of the outputs (N, classes) hold NaN (N,)."""
    return outputs.isnan().any(dim=1)


def _difference(outputs: Tensor, classes: Tensor, base: Tensor, column: int) -> Tensor:
    """Logit of the class that stands in one column of ``classes`` (N, K) minus that of ``base`` (N,)."""
    return (outputs.gather(1, classes[:, column : column + 1]) - outputs.gather(1, base[:, None])).squeeze(1)


class _CountingModule(nn.Module):
    """The victim's module as libraries see it."""

    def __init__(self, inner: nn.Module, victim: Victim) -> None:
        super().__init__()
        self.inner = inner
        self._victim = (victim,)  # in a tuple, so that it stays a plain attribute whatever a victim becomes

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        return self._victim[0]._forward_counted(images)
