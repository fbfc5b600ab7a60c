"""Preprocessing as data: resize, crop and pad, pixel for pixel as torchvision does them on Pillow images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from ...registry import GauntletError, nearest

Step = Callable[[Image.Image], Image.Image]
Size = int | tuple[int, int]

_WAYS = {mode.value: mode for mode in InterpolationMode}

#: Steps that are known by a name. The numbers are torchvision's: shorter side, crop.
PRESETS: dict[str, list[dict[str, Any]]] = {
    "imagenet-256-224": [{"resize": 256}, {"centre_crop": 224}],
    "imagenet-232-224": [{"resize": 232}, {"centre_crop": 224}],
    "imagenet-256-224-bicubic": [{"resize": {"size": 256, "interpolation": "bicubic"}}, {"centre_crop": 224}],
    "small-32": [{"resize": 32}, {"centre_crop": 32}],
    "small-64": [{"resize": 64}, {"centre_crop": 64}],
}


@dataclass(frozen=True)
class Transform:
    """Steps in order.

    Attributes:
        steps: What is done to a Pillow image.
        size: (H, W) of every result, None where it depends on the image.
        text: In words, for result rows.
    """

    steps: tuple[Step, ...]
    size: tuple[int, int] | None
    text: str

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image after all steps."""
        for step in self.steps:
            image = step(image)
        return image


def cover(height: int, width: int) -> Transform:
    """The shorter way into (H, W): resized to cover it, then cropped in the middle."""

    def step(image: Image.Image) -> Image.Image:
        if image.size == (width, height):
            return image
        scale = max(height / image.height, width / image.width)
        target = max(height, round(image.height * scale)), max(width, round(image.width * scale))
        return F.center_crop(_resized(image, target, InterpolationMode.BILINEAR, True), [height, width])

    return Transform((step,), (height, width), f"resized to cover {height}x{width} (bilinear), centre crop")


def parse_transform(spec: Any, where: str) -> Transform:
    """The transform that a suite states.

    Args:
        spec: The name of a preset, ``torchvision/MODEL`` (what its default weights were evaluated with), a mapping of
            steps in order, or a list of such mappings: ``{resize: 256, centre_crop: 224}``,
            ``[{resize: {size: [64, 64], interpolation: bicubic, antialias: false}}, {pad: 4}]``.
        where: For messages.

    Raises:
        GauntletError: A preset, step or value is unknown.
    """
    if isinstance(spec, str):
        return _preset(spec, where)
    parts = [spec] if isinstance(spec, Mapping) else spec
    if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, (Mapping, str)) for part in parts):
        raise GauntletError(
            f"{where}: transform must be a preset ({', '.join(PRESETS)}, torchvision/MODEL) or steps such as "
            f"{{resize: 256, centre_crop: 224}}, got {spec!r}."
        )
    steps: list[Step] = []
    texts: list[str] = []
    size: tuple[int, int] | None = None
    for part in parts:
        if isinstance(part, str):
            inner = _preset(part, where)
            steps, texts, size = [*steps, *inner.steps], [*texts, inner.text], inner.size
            continue
        for name, value in part.items():
            step, change, text = _step(str(name), value, where)
            steps.append(step)
            texts.append(text)
            size = change(size)
    return Transform(tuple(steps), size, ", ".join(texts))


def _preset(name: str, where: str) -> Transform:
    if name in PRESETS:
        return parse_transform(PRESETS[name], where)
    if name.startswith("torchvision/"):
        return parse_transform(_of_weights(name, where), where)
    raise GauntletError(f"{where}: there is no transform {name!r}; {nearest(name, [*PRESETS, 'torchvision/resnet50'])}")


def _of_weights(name: str, where: str) -> list[dict[str, Any]]:
    """What torchvision's weights of a model were evaluated with."""
    from torchvision import models

    model, _, weights = name.removeprefix("torchvision/").partition("/")
    known = models.list_models(module=models)
    if model not in known:
        raise GauntletError(f"{where}: torchvision has no model {model!r}; {nearest(model, known)}")
    enum = models.get_model_weights(model)
    names = list(enum.__members__)
    if weights and weights not in names:
        raise GauntletError(f"{where}: {model} has no weights {weights!r}; {nearest(weights, names)}")
    made = (enum[weights] if weights else enum.DEFAULT).transforms()
    size = made.resize_size[0] if len(made.resize_size) == 1 else made.resize_size
    return [
        {"resize": {"size": size, "interpolation": made.interpolation.value}},
        {"centre_crop": made.crop_size[0] if len(made.crop_size) == 1 else list(made.crop_size)},
    ]


Change = Callable[[tuple[int, int] | None], tuple[int, int] | None]


def _step(name: str, value: Any, where: str) -> tuple[Step, Change, str]:
    makers: dict[str, Callable[..., tuple[Step, Change, str]]] = {
        "resize": _resize,
        "centre_crop": _crop,
        "center_crop": _crop,
        "pad": _pad,
    }
    if name not in makers:
        raise GauntletError(f"{where}: transform has no step {name!r}; {nearest(name, makers)}")
    options = dict(value) if isinstance(value, Mapping) else {"padding" if name == "pad" else "size": value}
    try:
        return makers[name](f"{where}: {name}", **options)
    except TypeError:
        raise GauntletError(f"{where}: {name} cannot be read: {value!r}.") from None


def _resize(
    where: str, *, size: Any, interpolation: str = "bilinear", antialias: bool = True
) -> tuple[Step, Change, str]:
    target = _size(size, where)
    if interpolation not in _WAYS:
        raise GauntletError(f"{where} has no interpolation {interpolation!r}; {nearest(str(interpolation), _WAYS)}")
    way, words = _WAYS[interpolation], "" if antialias else ", without antialiasing"
    text = f"resize {_written(target)} ({interpolation}{words})"
    return (
        lambda image: _resized(image, target, way, antialias),
        lambda size: target if isinstance(target, tuple) else _shorter(size, target),
        text,
    )


def _resized(image: Image.Image, target: Size, way: InterpolationMode, antialias: bool) -> Image.Image:
    size = list(target) if isinstance(target, tuple) else [target]
    if antialias:  # Pillow always smooths
        return F.resize(image, size, way)
    return F.to_pil_image(F.resize(F.pil_to_tensor(image), size, way, antialias=False))


def _shorter(size: tuple[int, int] | None, target: int) -> tuple[int, int] | None:
    """(H, W) after the shorter side became ``target``, as torchvision rounds."""
    if size is None:
        return None
    height, width = size
    longer = int(target * max(size) / min(size))
    return (target, longer) if height <= width else (longer, target)


def _crop(where: str, *, size: Any) -> tuple[Step, Change, str]:
    target = _size(size, where)
    both = target if isinstance(target, tuple) else (target, target)
    return lambda image: F.center_crop(image, list(both)), lambda _: both, f"centre crop {both[0]}x{both[1]}"


def _pad(where: str, *, padding: Any, fill: Any = 0, mode: str = "constant") -> tuple[Step, Change, str]:
    sides = [padding] if isinstance(padding, int) else list(padding) if isinstance(padding, Sequence) else []
    if len(sides) not in (1, 2, 4) or not all(isinstance(side, int) and side >= 0 for side in sides):
        raise GauntletError(f"{where} must be pixels: one number, [left/right, top/bottom] or four, got {padding!r}.")
    if mode not in ("constant", "edge", "reflect", "symmetric"):
        raise GauntletError(f"{where}: mode must be constant, edge, reflect or symmetric, got {mode!r}.")
    left, top, right, bottom = sides * 4 if len(sides) == 1 else sides * 2 if len(sides) == 2 else sides

    def step(image: Image.Image) -> Image.Image:
        colour = tuple(fill) if isinstance(fill, Sequence) else fill
        return F.pad(image, [left, top, right, bottom], colour, mode)

    return (
        step,
        lambda size: None if size is None else (size[0] + top + bottom, size[1] + left + right),
        f"pad {'+'.join(map(str, sides))} ({mode})",
    )


def _size(value: Any, where: str) -> Size:
    numbers = [value] if isinstance(value, int) else value
    whole = isinstance(numbers, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
    if not whole or len(numbers) not in (1, 2) or min(numbers) < 1:
        raise GauntletError(f"{where} must be pixels, 224 or [height, width], got {value!r}.")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _written(target: Size) -> str:
    return f"{target[0]}x{target[1]}" if isinstance(target, tuple) else f"shorter side {target}"
