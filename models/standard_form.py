"""What is measured of a model, whatever it is like inside: float32 logits (N, K) of images that stay as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .layers import eval_mode
from .state import ModelState

#: What the outputs of a classifier are taken to be.
Kind = Literal["logits", "log-probabilities", "probabilities", "independent probabilities"]

_EXACT = 1e-3  # what half precision may add to a sum of probabilities


class StandardForm:
    """Forward hooks that cast logits to float32, keep the batch of one image, and lend in-place models a copy.

    Attributes:
        dtype: Of the logits as the model gave them last.
        moving: Names of the tensors that the model changes in every pass, in eval mode too.
    """

    def __init__(self, clones: bool, moving: Iterable[str] = ()) -> None:
        self.clones, self.moving, self.dtype = clones, frozenset(moving), torch.float32

    def before(self, module: nn.Module, images: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The images (N, C, H, W), copied for a model that would write into them."""
        return (images[0].clone(), *images[1:]) if self.clones and images else None

    def after(self, module: nn.Module, images: tuple[Any, ...], output: Any) -> Any:
        """Logits (N, K) in float32; anything else as it is."""
        if not isinstance(output, Tensor):
            return output
        self.dtype = output.dtype
        if output.ndim == 1 and images and len(images[0]) == 1:  # squeezed once too often
            output = output[None]
        return output.float() if output.is_floating_point() else output


def bring_into_form(module: nn.Module, shape: tuple[int, int, int]) -> None:
    """Give a network of the user's own the hooks of :class:`StandardForm`, and its lazy layers their sizes.

    Args:
        module: On the CPU.
        shape: (C, H, W) of the images. A network that does not take them is left to its check.
    """
    lazy = any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters())
    state = None if lazy else ModelState(module)
    clones = _writes_into_images(module, shape, keeps_stream=not lazy)
    form = StandardForm(clones, () if state is None else state.set_back())
    if form.clones:
        module.register_forward_pre_hook(form.before)
    module.register_forward_hook(form.after)


def _writes_into_images(module: nn.Module, shape: tuple[int, int, int], *, keeps_stream: bool) -> bool:
    images = torch.zeros(2, *shape)
    before = images._version
    stream = torch.get_rng_state()
    try:
        with torch.no_grad(), eval_mode(module):
            module(images)
    except Exception:  # of any kind: the network is the user's own, and its check comes later
        return images._version != before
    finally:
        if keeps_stream:  # a lazy layer draws its weights now; others have drawn theirs
            torch.set_rng_state(stream)
    return images._version != before


def _forms(module: nn.Module) -> list[StandardForm]:
    hooks = (getattr(hook, "__self__", None) for hook in module._forward_hooks.values())
    return [form for form in hooks if isinstance(form, StandardForm)]


def precision_of(module: nn.Module) -> float:
    """The rounding of the logits that a module gives, as its hooks have seen it."""
    known = (getattr(form, "dtype", None) for form in (module, *_forms(module)))
    seen = [dtype for dtype in known if isinstance(dtype, torch.dtype) and dtype.is_floating_point]
    return max((torch.finfo(dtype).eps for dtype in seen), default=torch.finfo(torch.float32).eps)


def moving(module: nn.Module) -> frozenset[str]:
    """Names of the tensors that a module, or a part of it that is the user's own, changes in every pass."""
    found = ((prefix, name) for prefix, part in module.named_modules() for form in _forms(part) for name in form.moving)
    return frozenset(".".join(filter(None, pair)) for pair in found)


def why_no_logits(outputs: Tensor, model: str) -> str:
    """What the outputs (N, K) of a classifier are in the place of logits, as a sentence; empty where they are logits.

    Log-probabilities are logits in all but their level, which is the same for every image.
    """
    kind = kind_of(outputs)
    if kind in ("logits", "log-probabilities"):
        return ""
    seen = "sum to 1" if kind == "probabilities" else "do not sum to 1, as of sigmoids"
    return (
        f"model {model} gives {kind} (its outputs lie in [0, 1] and {seen}), not logits: let it return what comes "
        "before its last activation."
    )


def kind_of(outputs: Tensor) -> Kind:
    """What the outputs (N, K) of a classifier are, as all rows show.

    >>> kind_of(torch.tensor([[2.0, -1.0], [0.5, 3.0]])), kind_of(torch.tensor([[0.9, 0.1], [0.25, 0.75]]))
    ('logits', 'probabilities')
    """
    values = outputs.detach().float()
    if not len(values) or values.shape[1] < 2:
        return "logits"
    if bool((values <= _EXACT).all()) and bool((values.logsumexp(1).abs() < _EXACT).all()):
        return "log-probabilities"
    if not (bool((values >= 0).all()) and bool((values <= 1).all())) or bool((values == 0).all()):
        return "logits"
    return "probabilities" if bool(((values.sum(1) - 1).abs() < _EXACT * 10).all()) else "independent probabilities"
