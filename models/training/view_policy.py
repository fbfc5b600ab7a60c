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
FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "enlarge": enlarge,
    "resized-crop": resized_crop,
    "crop": crop,
    "stretch": stretch,
    "flip": flip,
    "rotation": rotation,
    "colour-jitter": colour_jitter,
    "greyscale": greyscale,
    "blur": blur,
    "noise": noise,
}


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


_ENLARGE = Step("enlarge", False, "Interpolation adds no detail, only artefacts.", {"factor": 4 / 3})
_CROP = Step("crop", False, "A window of fixed size; the resized crop does this and more.", {"padding": 12})
_RESIZED = Step(
    "resized-crop", True, "Parts of one object belong together: the strongest single cue.", {"low": 0.08, "high": 1.0}
)
_STRETCH = Step("stretch", False, "Distorts shapes; the crop's mild change of aspect is enough.", {"factor": 1.5})
_FLIP = Step("flip", True, "Left and right seldom matter in photographs.", {"p": 0.5})
_ROTATION = Step("rotation", False, "Small turns at most; large ones leave black corners.", {"degrees": 15.0})
_GREYSCALE = Step("greyscale", True, "Makes shape count where colour alone would tell views apart.", {"p": 0.2})
_NOISE = Step("noise", False, "Plausible, not standard; kept weak.", {"low": 0.0, "high": 0.05, "p": 0.5})


def _jitter(strength: float, reason: str) -> Step:
    s = 0.8 * strength
    amounts = {"brightness": s, "contrast": s, "saturation": s, "hue": 0.2 * strength, "p": 0.8}
    return Step("colour-jitter", True, reason, amounts)


def _blur(on: bool, reason: str) -> Step:
    return Step("blur", on, reason, {"share": 0.1, "low": 0.1, "high": 2.0, "p": 0.5})


#: For photographs of 96x96, and what the others change.
_R4 = Policy(
    (
        _ENLARGE,
        _RESIZED,
        _CROP,
        _STRETCH,
        _FLIP,
        _ROTATION,
        _jitter(1.0, "Otherwise histograms of colour tell which crops belong together."),
        _GREYSCALE,
        _blur(True, "Keeps the encoder from relying on fine texture."),
        _NOISE,
    )
)


def _instead(*steps: Step) -> Policy:
    """The policy for large photographs with these steps in the place of those of the same names."""
    changed = {step.name: step for step in steps}
    return Policy(tuple(changed.get(step.name, step) for step in _R4.steps))


#: By name: photographs of 96x96, small photographs of 32x32, and 28x28 handwriting.
POLICIES: Mapping[str, Policy] = {
    "r4": _R4,
    "cifar": _instead(
        replace(_RESIZED, parameters={"low": 0.2, "high": 1.0}),
        replace(_CROP, parameters={"padding": 4}),
        _jitter(0.5, "Half as strong as for large images, as Chen et al. have it for CIFAR-10."),
        _blur(False, "At 32x32 there is little fine texture to blur."),
    ),
    "digits": _instead(
        Step(
            "resized-crop",
            True,
            "Milder than for photographs: a part of a digit is no digit.",
            {"low": 0.5, "high": 1.0},
        ),
        replace(_CROP, parameters={"padding": 3}),
        replace(_FLIP, on=False, reason="A mirrored digit is no digit, or another one: 2 and 5, say."),
        replace(_ROTATION, on=True, reason="Writing leans; small turns only, since 6 and 9 are turns of one another."),
        _jitter(0.5, "Grey images: only brightness and contrast are left of it."),
        replace(_GREYSCALE, on=False, reason="The images are grey already."),
        _blur(False, "At 28x28 there is little fine texture to blur."),
    ),
}


def policy_for(shape: tuple[int, int, int]) -> Policy:
    """The policy for images of (C, H, W) where nothing else is said."""
    if min(shape[1:]) >= 64:
        return POLICIES["r4"]
    return POLICIES["cifar" if shape[0] == 3 else "digits"]
