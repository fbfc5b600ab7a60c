"""Protocols of the field: one line of a suite that gives its data sets, OOD sets, shifted versions or attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry import GauntletError, nearest

_NEAR_FAR = {
    "cifar10": (("cifar100", "tin"), ("mnist", "svhn", "texture", "places365"), ("cifar10c", "imagenet10")),
    "cifar100": (("cifar10", "tin"), ("mnist", "svhn", "texture", "places365"), ()),
    "imagenet200": (
        ("ssb_hard", "ninco"),
        ("inaturalist", "textures", "openimage_o"),
        ("imagenet200_v2", "imagenet200_c", "imagenet200_r"),
    ),
    "imagenet": (
        ("ssb_hard", "ninco"),
        ("inaturalist", "textures", "openimage_o"),
        ("imagenet_v2", "imagenet_c", "imagenet_r"),
    ),
}
#: The OOD set on which OpenOOD tunes hyper-parameters.
_TUNED_ON = {"cifar10": "tin", "cifar100": "tin", "imagenet200": "openimage_o", "imagenet": "openimage_o"}

_COMMON = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip

_BUDGETS = {"linf": "8/255", "l2": 0.5}


def _openood(name: str, *, full: bool, verify: bool) -> dict[str, Any]:
    """OpenOOD v1.5: Zhang, Yang et al. 2023, arXiv:2306.09301; full spectrum: Yang et al. 2022, arXiv:2204.05306."""
    near, far, shifted = _NEAR_FAR[name]
    more = {} if verify else {"verify": False}

    def one(part: str, split: str = "test") -> dict[str, Any]:
        return {"name": "openood", "label": part, "list": f"{name}/{split}_{part}", **more}

    inside = {**one(name), "val": f"{name}/val_{name}"}
    if name.startswith("cifar"):
        inside["train"] = f"{name}/train_{name}"
    given: dict[str, Any] = {"datasets": [inside], "ood": {"near": [*map(one, near)], "far": [*map(one, far)]}}
    return {**given, "shifted": [*map(one, shifted)]} if full and shifted else given


def _corrupted(name: str) -> dict[str, Any]:
    """All corruptions of the published files, at five severities: Hendrycks, Dietterich 2019, arXiv:1903.12261."""
    inside = name.removesuffix("-c")
    sets = [
        {"name": name, "label": f"{kind} {severity}", "corruption": kind, "severity": severity}
        for kind in _COMMON
        for severity in range(1, 6)
    ]
    return {"datasets": [inside], "shifted": sets}


def _robustbench(name: str, norm: str) -> dict[str, Any]:
    """RobustBench: Croce et al. 2021, arXiv:2010.09670; all test images under AutoAttack."""
    budget = {norm: [_BUDGETS[norm]]}
    attack = {"name": "autoattack", "norm": norm}
    return {"datasets": [name], "attacks": [attack], "epsilons": budget, "attack_images": 10_000}


def known() -> list[str]:
    """Names of all protocols."""
    full = [f"openood/{name}/full-spectrum" for name, (*_, shifted) in _NEAR_FAR.items() if shifted]
    robust = ["robustbench/cifar10/linf", "robustbench/cifar10/l2", "robustbench/cifar100/linf"]
    return [*(f"openood/{name}" for name in _NEAR_FAR), *full, *robust, "cifar10-c", "cifar100-c", "imagenet-c"]


def protocol(name: str, *, verify: bool = True) -> dict[str, Any]:
    """The keys of a suite that a protocol gives.

    Args:
        name: One of :func:`known`.
        verify: Whether lists must be the published ones, by their hashes.

    Raises:
        GauntletError: There is no such protocol.
    """
    if name not in known():
        raise GauntletError(f"There is no protocol {name!r}; {nearest(name, known())}")
    family, _, rest = name.partition("/")
    if family == "openood":
        inside, _, spectrum = rest.partition("/")
        return _openood(inside, full=bool(spectrum), verify=verify)
    return _robustbench(*rest.split("/")) if family == "robustbench" else _corrupted(name)


def with_protocol(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """The content of a suite with what its key ``protocol`` gives.

    Raises:
        GauntletError: There is no such protocol, or the suite gives some of it itself.
    """
    said = content.get("protocol")
    if said is None:
        return dict(content)
    spec = {"name": said} if isinstance(said, str) else said
    if not isinstance(spec, Mapping) or not set(spec) <= {"name", "verify"} or "name" not in spec:
        raise GauntletError(f"protocol must be a name, or {{name: ..., verify: false}}, got {said!r}.")
    given = protocol(str(spec["name"]), verify=bool(spec.get("verify", True)))
    twice = [key for key in given if key in content]
    if twice:
        raise GauntletError(
            f"The protocol {spec['name']} gives {', '.join(twice)}: leave the key out, or the protocol."
        )
    return {**content, **given}
