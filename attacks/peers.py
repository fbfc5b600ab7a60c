"""Attack objects of other libraries as attacks of ours, recognised by their class: nothing is imported.

foolbox, torchattacks, the Adversarial Robustness Toolbox (ART) and adversarial-library. What they return is verified as
every attack's is.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG, seeded
from .minimum_norm import MinimumNormAttack
from .victim import Victim

#: Calls an object: victim, images, labels, and the budget, which is None for attacks that look for the nearest image.
Run = Callable[[Victim, Tensor, Tensor, "float | None"], Tensor]

_NORMS = {
    math.inf: "linf",
    "inf": "linf",
    "linf": "linf",
    1: "l1",
    2: "l2",
    0: "l0",
    "l1": "l1",
    "l2": "l2",
    "l0": "l0",
}


@dataclass(frozen=True)
class Peer:
    """An attack object.

    Attributes:
        run: Calls it.
        norm: In which its budget is measured.
        kind: ``fixed`` or ``minimum-norm``.
        epsilon: The budget that it was made with.
        content: What tells it from others.
    """

    run: Run
    norm: str
    kind: str
    epsilon: float | None
    content: str


class PeerMinimumNorm(MinimumNormAttack):
    """An object that looks for the nearest adversarial image."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.norm = peer, peer.norm

    def find_nearest(self, victim: Victim, images: Tensor, labels: Tensor, rng: PerImageRNG) -> Tensor:
        """What the object returns, batch by batch."""
        slices = [slice(start, start + victim.batch_size) for start in range(0, len(images), victim.batch_size)]
        return torch.cat(
            [_called(self.peer, victim, images[one], labels[one], None, rng.select(one)) for one in slices]
        )


def factory(peer: Peer) -> Callable[..., Any]:
    """What a registry builds the attack from: a function of a budget, or what makes a minimum-norm attack."""
    if peer.kind == "minimum-norm":
        return functools.partial(PeerMinimumNorm, peer)

    def attack(victim: Victim, images: Tensor, labels: Tensor, epsilon: float, draws: PerImageRNG) -> Tensor:
        return _called(peer, victim, images, labels, epsilon, draws)

    return attack


def _called(
    peer: Peer, victim: Victim, images: Tensor, labels: Tensor, epsilon: float | None, draws: PerImageRNG
) -> Tensor:
    with seeded(draws.seed("peer"), victim.device), torch.enable_grad():
        return torch.as_tensor(peer.run(victim, images.clone(), labels.clone(), epsilon)).to(images)


def recognised(item: Any) -> Peer | None:
    """The attack that an object of another library is; None for anything else."""
    library = _home(item).partition(".")[0]
    return _LIBRARIES[library](item) if library in _LIBRARIES else None


def _home(item: Any) -> str:
    while isinstance(item, functools.partial):
        item = item.func
    return str(getattr(item, "__module__", None) if inspect.isfunction(item) else type(item).__module__)


def _content(item: Any) -> str:
    """Its class, and what it was made with."""
    state = item.keywords if isinstance(item, functools.partial) else getattr(item, "__dict__", {})
    plain = {name: value for name, value in state.items() if isinstance(value, (bool, int, float, str, tuple))}
    return repr((_home(item), type(item).__qualname__, getattr(item, "__name__", ""), sorted(plain.items(), key=str)))


def _foolbox(item: Any) -> Peer:
    import foolbox

    fixed = "epsilon" in inspect.signature(item.run).parameters
    name = _distance_name(item.distance, foolbox.distances) or _named_norm(type(item).__name__.lower())

    def run(victim: Victim, images: Tensor, labels: Tensor, epsilon: float | None) -> Tensor:
        model = foolbox.PyTorchModel(victim.module, bounds=(0, 1), device=victim.device)
        budget = {"epsilon": epsilon} if fixed else {"early_stop": None}
        criterion = foolbox.criteria.Misclassification(labels)
        return item.run(model, images, criterion, **budget)

    return Peer(run, name, "fixed" if fixed else "minimum-norm", None, _content(item))


def _distance_name(distance: Any, known: Any) -> str:
    return next((name for name in ("linf", "l2", "l1", "l0") if distance is getattr(known, name)), "")


def _torchattacks(item: Any) -> Peer:
    """Its model is that of the row for as long as it is called."""
    name = f"{type(item).__name__} {getattr(item, 'attack', '')}".lower()
    norm = _NORMS.get(str(getattr(item, "norm", "")).lower()) or next((n for n in ("l2", "l1", "l0") if n in name), "")
    fixed = hasattr(item, "eps")
    minimal = {"onepixel": "l0", "sparsefool": "l0", "jsma": "l0", "eadl1": "l1", "eaden": "l1"}
    norm = norm or ("linf" if fixed else minimal.get(type(item).__name__.lower(), "l2"))

    def run(victim: Victim, images: Tensor, labels: Tensor, epsilon: float | None) -> Tensor:
        changed = {"model": victim.module, "device": victim.device, **({"eps": epsilon} if fixed else {})}
        with _set(item, changed):
            return item(images, labels)

    return Peer(run, norm, "fixed" if fixed else "minimum-norm", getattr(item, "eps", None), _content(item))


@contextmanager
def _set(item: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Attributes of an object meanwhile, past whatever its ``__setattr__`` does."""
    before = {name: item.__dict__[name] for name in values if name in item.__dict__}
    item.__dict__.update(values)
    try:
        yield
    finally:
        for name in values:
            item.__dict__.pop(name, None)
        item.__dict__.update(before)


def _art(item: Any) -> Peer:
    """It attacks the estimator that it was made with; its result is judged by the model of the row."""
    fixed = hasattr(item, "eps")
    norm = _NORMS.get(getattr(item, "norm", math.inf if fixed else 2), "l2")

    def run(victim: Victim, images: Tensor, labels: Tensor, epsilon: float | None) -> Tensor:
        if fixed:
            item.set_params(eps=epsilon)
        made = item.generate(x=images.cpu().numpy(), y=labels.cpu().numpy())
        return torch.from_numpy(made)

    return Peer(run, norm, "fixed" if fixed else "minimum-norm", getattr(item, "eps", None), _content(item))


def _adv_lib(item: Any) -> Peer:
    """A function (or a partial of one) of model, inputs and labels."""
    parameters = inspect.signature(item).parameters
    budget = next((name for name in ("ε", "eps", "epsilon") if name in parameters), "")
    given = parameters["norm"].default if "norm" in parameters else math.inf if "linf" in _name(item) else 2
    norm = _NORMS.get(given, "l2") if budget or "norm" in parameters else _named_norm(_name(item))
    default = parameters[budget].default if budget else None

    def run(victim: Victim, images: Tensor, labels: Tensor, epsilon: float | None) -> Tensor:
        return item(victim.module, images, labels, **({budget: epsilon} if budget else {}))

    own = default if isinstance(default, float) else None
    return Peer(run, norm, "fixed" if budget else "minimum-norm", own, _content(item))


def _name(item: Any) -> str:
    while isinstance(item, functools.partial):
        item = item.func
    return str(getattr(item, "__name__", "")).lower()


def _named_norm(name: str) -> str:
    return next((norm for norm in ("linf", "l1", "l0", "l2") if norm in name), "l2")


_LIBRARIES: Mapping[str, Callable[[Any], Peer]] = {
    "foolbox": _foolbox,
    "torchattacks": _torchattacks,
    "art": _art,
    "adv_lib": _adv_lib,
}
