"""From an entry and parameters to a module that fits the data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..registry import Entry, GauntletError
from .layers import eval_mode
from .standard_form import bring_into_form


def create_module(
    entry: Entry,
    parameters: Mapping[str, Any],
    *,
    classes: int,
    shape: tuple[int, int, int],
    members: Sequence[nn.Module] | None = None,
    download: bool = False,
) -> nn.Module:
    """Build the network of ``entry`` for images of ``shape`` (C, H, W) and ``classes`` classes.

    ``classes`` (or ``num_classes``), ``channels``, ``shape`` and ``download`` (whether a model may download weights)
    are passed on where the entry takes them and the suite does not say otherwise; ``members`` replaces the parameter
    named by the entry's ``children``: all of them, or the only one where the parameter's default is one model.

    Raises:
        GauntletError: The model refuses its parameters, or what it returns is not a module.
    """
    arguments = dict(parameters)
    known = {"classes": classes, "num_classes": classes, "channels": shape[0], "shape": shape, "download": download}
    for name in (*(name for name in known if entry.has(name)), *classes_of(entry)):
        arguments.setdefault(name, known[name])
    if members is not None:
        child = entry.meta["children"]
        arguments[child] = members[0] if isinstance(entry.defaults().get(child), str) else members
    entry.require(arguments)
    try:
        module = entry.factory(**arguments)
    except (TypeError, ValueError) as error:
        raise GauntletError(f"Model {entry.name!r} ({entry.where}) cannot be built: {_first_line(error)}.") from error
    if not isinstance(module, nn.Module):
        raise GauntletError(
            f"Model {entry.name!r} ({entry.where}) must return a torch.nn.Module, got {type(module).__name__}."
        )
    if entry.is_ours:
        return module
    module = own_copy(module)
    bring_into_form(module, shape)
    return module


def own_copy(module: nn.Module) -> nn.Module:
    """A copy of a network that somebody may still hold: what is done to it, training above all, reaches nobody else.

    Raises:
        GauntletError: Something in it cannot be copied.
    """
    held = [value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor)]
    # Copying refuses tensors with a history, such as the weight that weight_norm computes anew before each pass.
    computed: dict[int, Any] = {id(value): value.detach().clone() for value in held if not value.is_leaf}
    try:
        return copy.deepcopy(module, computed)
    except Exception as error:  # of any kind: whatever the network holds decides
        raise GauntletError(
            f"{type(module).__name__} cannot be copied ({_first_line(error)}), and Gauntlet changes only copies of the "
            "networks that it is given: let copy.deepcopy work on it."
        ) from error


def classes_of(entry: Entry) -> tuple[str, ...]:
    """The parameters of a model that hold its number of classes.

    One that takes any keyword (``**kwargs``) is given ``num_classes``, as timm and torchvision name it.
    """
    named = tuple(name for name in ("classes", "num_classes") if entry.has(name))
    return named or (("num_classes",) if entry.open else ())


def check_fit(
    module: nn.Module,
    name: str,
    dataset: str,
    shape: tuple[int, int, int],
    classes: int,
    outputs: Sequence[str] = ("logits",),
) -> None:
    """Raise a :class:`GauntletError` unless ``module`` takes images of ``shape``.

    Where ``logits`` are among the ``outputs`` that it declares, two images must give logits (2, classes).

    Raises:
        GauntletError: The model does not take the images or does not give these outputs.
    """
    tensor = next(module.parameters(), torch.zeros(()))
    size = "x".join(map(str, shape))
    try:
        with torch.no_grad(), eval_mode(module):
            logits = module(torch.zeros(2, *shape, device=tensor.device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if "can't allocate memory" in str(error):  # of the CPU
            raise
        raise GauntletError(
            f"Model {name!r} does not take the {size} images of dataset {dataset!r}: {_first_line(error)}."
        ) from error
    if "logits" not in outputs:
        return
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise GauntletError(f"Model {name!r} must return logits of shape (N, classes), got {_shape(logits)}.")
    if logits.shape[1] != classes:
        raise GauntletError(
            f"Model {name!r} gives {logits.shape[1]} logits but dataset {dataset!r} has {classes} classes; "
            "set the model's number of classes, or choose another dataset."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__
