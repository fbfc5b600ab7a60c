"""Which augmentations make the two views of SimCLR, and why: a table that can be printed and ablated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from ...registry import AUGMENTATIONS, GauntletError, nearest, parse_spec, select_one
from .augment import crop, flip, noise, rotation
from .views import blur, colour_jitter, enlarge, greyscale, resized_crop, stretch

#: Numbers that go through the policy together on a CPU: 256 images of 32x32, few enough to stay in its cache.
CHUNK = 256 * 3 * 32 * 32


#: What a policy may hold. Named here, not looked up, so that a change of their code retrains what it made.
_STEPS = (enlarge, resized_crop, crop, stretch, flip, rotation, colour_jitter, greyscale, blur, noise)
FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {step.__name__.replace("_", "-"): step for step in _STEPS}


@dataclass(frozen=True)
class Step:
    """One transformation of a policy.

    Attributes:
        name: Of a registered augmentation.
        on: Whether it takes part.
        parameters: Of the augmentation.
        reason: Why it does, or does not.
    """

    name: str
    on: bool
    reason: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, images: Tensor, rng: Generator) -> Tensor:
        """The images, augmented."""
        return FUNCTIONS[self.name](images, rng, **self.parameters)


@dataclass(frozen=True)
class Policy:
    """Transformations in the order in which they apply; those that are off stay in the table."""

    steps: tuple[Step, ...]

    def __call__(self, images: Tensor, rng: Generator) -> Tensor:
        """One random view of each image (N, C, H, W), float32 in [0, 1], channels last."""
        on = _fused([step for step in self.steps if step.on])
        views = torch.empty_like(images, memory_format=torch.channels_last)
        size = max(1, CHUNK // images[0].numel()) if images.device.type == "cpu" else len(images)
        for part, view in zip(images.split(size), views.split(size), strict=True):
            for step in on:
                part = step(part, rng)
            view.copy_(part).clamp_(0, 1)
        return views

    def changed(self, *, add: Sequence[Any] = (), drop: Sequence[str] = ()) -> Policy:
        """The same with some steps switched; ``{rotation: {degrees: 5}}`` under ``add`` gives parameters too.

        Raises:
            GauntletError: The policy has no such step, or the step no such parameter.
        """
        steps = {step.name: step for step in self.steps}
        for spec in (*add, *drop):
            name, given = parse_spec(spec, "augmentation")
            if name not in steps:
                raise GauntletError(f"The views have no transformation {name!r}; {nearest(name, steps)}")
            chosen = select_one(AUGMENTATIONS, {name: given} if given else name)
            parameters = {**steps[name].parameters, **chosen.parameters}
            steps[name] = replace(steps[name], on=spec not in drop, parameters=parameters)
        return Policy(tuple(steps.values()))

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, on or off, parameters and reason of every step, as text."""
        return [
            (
                step.name,
                "on" if step.on else "off",
                ", ".join(f"{name} {value:g}" for name, value in step.parameters.items()),
                step.reason,
            )
            for step in self.steps
        ]


def _fused(steps: list[Step]) -> list[Step]:
    """The same with a flip that follows a resized crop made part of it, which then takes one product less."""
    names = [step.name for step in steps]
    if ("resized-crop", "flip") not in pairwise(names):
        return steps
    place = names.index("resized-crop")
    crop, mirror = steps[place : place + 2]
    both = replace(crop, parameters={**crop.parameters, "flip": mirror.parameters.get("p", 0.5)})
    return [*steps[:place], both, *steps[place + 2 :]]


_BLUR = {"share": 0.1, "low": 0.1, "high": 2.0, "p": 0.5}


def _area(low: float) -> dict[str, float]:
    return {"low": low, "high": 1.0}


def _jitter(strength: float) -> dict[str, float]:
    s = 0.8 * strength
    return {"brightness": s, "contrast": s, "saturation": s, "hue": 0.2 * strength, "p": 0.8}


_R4 = Policy(
    (
        Step("enlarge", False, "Interpolation adds no detail, only artefacts.", {"factor": 4 / 3}),
        Step("resized-crop", True, "Parts of one object belong together: the strongest single cue.", _area(0.08)),
        Step("crop", False, "A window of fixed size; the resized crop does this and more.", {"padding": 12}),
        Step("stretch", False, "Distorts shapes; the crop's mild change of aspect is enough.", {"factor": 1.5}),
        Step("flip", True, "Left and right seldom matter in photographs.", {"p": 0.5}),
        Step("rotation", False, "Small turns at most; large ones leave black corners.", {"degrees": 15.0}),
        Step("colour-jitter", True, "Otherwise histograms of colour tell which crops belong together.", _jitter(1.0)),
        Step("greyscale", True, "Makes shape count where colour alone would tell views apart.", {"p": 0.2}),
        Step("blur", True, "Keeps the encoder from relying on fine texture.", _BLUR),
        Step("noise", False, "Plausible, not standard; kept weak.", {"low": 0.0, "high": 0.05, "p": 0.5}),
    )
)


def _instead(**changes: Any) -> Policy:
    """The policy for large photographs with other facts of some steps, by name (``_`` for ``-``)."""
    return Policy(tuple(replace(step, **changes.get(step.name.replace("-", "_"), {})) for step in _R4.steps))


#: By name: photographs of 96x96, small photographs of 32x32, and 28x28 handwriting.
POLICIES: Mapping[str, Policy] = {
    "r4": _R4,
    "cifar": _instead(
        resized_crop={"parameters": _area(0.2)},
        crop={"parameters": {"padding": 4}},
        colour_jitter={
            "parameters": _jitter(0.5),
            "reason": "Half as strong as for large images, as Chen et al. have it for CIFAR-10.",
        },
        blur={"on": False, "reason": "At 32x32 there is little fine texture to blur."},
    ),
    "digits": _instead(
        resized_crop={
            "parameters": _area(0.5),
            "reason": "Milder than for photographs: a part of a digit is no digit.",
        },
        crop={"parameters": {"padding": 3}},
        flip={"on": False, "reason": "A mirrored digit is no digit, or another one: 2 and 5, say."},
        rotation={"on": True, "reason": "Writing leans; small turns only, since 6 and 9 are turns of one another."},
        colour_jitter={
            "parameters": _jitter(0.5),
            "reason": "Grey images: only brightness and contrast are left of it.",
        },
        greyscale={"on": False, "reason": "The images are grey already."},
        blur={"on": False, "reason": "At 28x28 there is little fine texture to blur."},
    ),
}


def policy_for(shape: tuple[int, int, int]) -> Policy:
    """The policy for images of (C, H, W) where nothing else is said."""
    if min(shape[1:]) >= 64:
        return POLICIES["r4"]
    return POLICIES["cifar" if shape[0] == 3 else "digits"]
