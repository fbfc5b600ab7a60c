"""MNIST-C (Mu, Gilmer 2019): fifteen corruptions of 28x28 grey digits, each at one severity."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...registry import corruption
from ..per_image_rng import PerImageRNG
from .blur import motion_blur, shuffled
from .digital import brightness
from .filters import gaussian, sampled
from .noise import impulse_noise, shot_noise
from .weather import fog

_SIDE = 28
_CENTRE = (_SIDE - 1) / 2
_MUD = 63 / 255


def _glass_blur(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """Pixels swap places with near ones, each with probability one half, twice, between two blurs."""
    return gaussian(shuffled(gaussian(images, 0.7), 1, 2, draws, chance=0.5), 0.7)


def _spatter(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """Splashes of mud."""
    liquid = gaussian(0.65 + 0.3 * draws.normal((_SIDE, _SIDE), purpose="mnist-c/spatter"), 1)
    mud = gaussian((liquid > 0.65).to(images), 1.5)[:, None]
    mud = mud.masked_fill(mud < 0.8, 0.0)
    return images * (1 - mud) + _MUD * mud


def _shear(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """Sheared by 0.4 radians to the left or to the right, the slanted side as long as before."""
    slant = 0.4 * _signs(draws, "mnist-c/shear")
    return _warped(images, torch.ones_like(slant), -slant.sin(), torch.zeros_like(slant), slant.cos())


def _scale(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """Shrunk to seven tenths."""
    factor = torch.full((len(images),), 1 / 0.7, device=images.device)
    return _warped(images, factor, 0 * factor, 0 * factor, factor)


def _rotate(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """Rotated by 0.4 radians to the left or to the right."""
    angle = 0.4 * _signs(draws, "mnist-c/rotate")
    return _warped(images, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def _translate(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """Moved by three pixels in both directions."""
    columns, rows = (3 * _signs(draws, f"mnist-c/translate {axis}").long() for axis in "xy")
    own = torch.arange(_SIDE, device=images.device)
    return sampled(
        images,
        (own[None, :, None] + rows[:, None, None]).expand(-1, -1, _SIDE).float(),
        (own[None, None, :] + columns[:, None, None]).expand(-1, _SIDE, -1).float(),
        border="zero",
    )


def _stripe(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """The seven columns at either side inverted."""
    striped = images.clone()
    for part in (slice(0, 7), slice(21, None)):
        striped[..., part] = 1 - images[..., part]
    return striped


def _dotted_line(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """A line from the left edge to the right one, two pixels on, two off."""
    first, last = (draws.uniform((2,), purpose="mnist-c/dotted-line") * 27).floor().double().unbind(1)
    edge = torch.zeros_like(first)
    stroke = _line(edge, first, edge + 27, last)
    stroke[:, :, torch.arange(_SIDE, device=stroke.device) % 4 < 2] = 0
    return images + stroke[:, None].to(images)


def _zigzag(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """A zigzag of height two along a nearly level line from column 2 to column 25."""
    drawn = draws.uniform((2,), purpose="mnist-c/zigzag").double()
    start = (drawn[:, 0] * 27).floor()
    end = start + (drawn[:, 1] * 10).floor() - 5
    angle = torch.atan((end - start) / 23)
    length = 23 / angle.cos()
    zero = torch.zeros_like(start)
    along, aside = [zero], [zero]
    turns = ((length - 2) // 4).long() + 1
    for turn in range(int(turns.max())):
        more = turn < turns
        along.append(torch.where(more, zero + 4 * turn + 2, along[-1]))
        aside.append(torch.where(more, zero + 2 * (-1) ** turn, aside[-1]))
    rest = length - 4 * (length // 4)
    along.append(torch.where(rest > 0, length, along[-1]))
    aside.append(torch.where(rest > 0, aside[-1] / (2 * rest.clamp(min=1e-12)), aside[-1]))
    columns = [a * angle.cos() - b * angle.sin() + 2 for a, b in zip(along, aside, strict=True)]
    rows = [a * angle.sin() + b * angle.cos() + start for a, b in zip(along, aside, strict=True)]
    drawn_on = images
    for k in range(len(rows) - 1):
        stroke = _line(columns[k], rows[k], columns[k + 1], rows[k + 1])
        drawn_on = (drawn_on + stroke[:, None].to(images)).clamp(0, 1)
    return drawn_on


def _canny_edges(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """The edges that Canny's detector (1986) finds: deviation 1, thresholds 0.1 and 0.2."""
    ones = gaussian_inside(torch.ones_like(images))
    smooth = gaussian_inside(images) / ones
    padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None].double()
    slope, across = torch.tensor([-1.0, 0, 1]), torch.tensor([1.0, 2, 1])
    kernel = torch.outer(across, slope).to(padded)
    right, down = (F.conv2d(padded, part[None, None])[:, 0] for part in (kernel, kernel.T))
    strong = torch.hypot(right, down)
    strong[:, [0, -1]], strong[:, :, [0, -1]] = 0.0, 0.0
    crest = _crest(strong, right, down)
    weak, sure = crest & (strong >= 0.1), crest & (strong >= 0.2)
    while True:
        grown = F.max_pool2d(sure[:, None].float(), 3, stride=1, padding=1)[:, 0].bool() & weak
        if bool((grown == sure).all()):
            return sure.view_as(images).to(images)
        sure = grown


def gaussian_inside(images: Tensor) -> Tensor:
    """A blur of deviation 1 of images that are 0 outside."""
    return gaussian(F.pad(images, (4, 4, 4, 4)), 1)[..., 4:-4, 4:-4]


def _crest(strong: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Where the gradient (N, H, W) is at least as strong as before and behind, along its own direction."""
    padded = F.pad(strong[:, None], (1, 1, 1, 1))[:, 0]

    def beside(rows: int, columns: int) -> Tensor:
        return padded[:, 1 + rows : 1 + rows + strong.shape[1], 1 + columns : 1 + columns + strong.shape[2]]

    steep = down.abs() > right.abs()
    share = torch.where(steep, right.abs() / down.abs().clamp(min=1e-300), down.abs() / right.abs().clamp(min=1e-300))
    kept = strong > 0
    for way in (1, -1):
        same = down * right > 0
        corner = torch.where(same, beside(way, way), beside(way, -way))
        other = torch.where(same, beside(way, way), beside(-way, way))
        near = torch.where(steep, beside(way, 0), beside(0, way))
        far = torch.where(steep, corner, other)
        kept &= near * (1 - share) + far * share <= strong
    return kept


def _signs(draws: PerImageRNG, purpose: str) -> Tensor:
    """1 or -1 for each image."""
    return 2.0 * (draws.uniform((), purpose=purpose) < 0.5) - 1


def _warped(images: Tensor, xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Tensor:
    """Each image taken from the linear map of its pixels' places about the centre, black outside."""
    own = torch.arange(_SIDE, device=images.device) - _CENTRE
    x, y = own[None, None, :], own[None, :, None]
    rows, columns = (a[:, None, None] * x + b[:, None, None] * y + _CENTRE for a, b in ((yx, yy), (xx, xy)))
    return sampled(images, rows.to(images), columns.to(images), border="zero")


def _line(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    """A soft stroke (N, 28, 28) from one point to another, which lies to its right; nothing where it does not."""
    own = torch.arange(_SIDE, dtype=torch.float64, device=left.device)
    slope = (bottom - top) / (right - left)
    height = slope[:, None] * (own - left[:, None]) + top[:, None]  # (N, columns)
    away = (own[None, :, None] - height[:, None, :]).abs().clamp(max=2.3 - 1e-10)
    stroke = ((1 - away / 2.3).log() + 1).clamp(0, 1)
    inside = (own >= left.floor()[:, None]) & (own < right.ceil()[:, None]) & (right != left)[:, None]
    return torch.where(inside[:, None], stroke, torch.zeros_like(stroke))


def _large(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A corruption of ImageNet-C at the strengths of large images."""

    def changed(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
        drawn = (draws,) if change not in (brightness,) else ()
        return change(images, severity, *drawn, scale="large")

    return changed


#: Name: severity and function.
TABLE: dict[str, tuple[int, Callable[..., Tensor], str]] = {
    "shot-noise": (5, _large(shot_noise), "Poisson noise of three photons."),
    "impulse-noise": (4, _large(impulse_noise), "Salt and pepper on 17 % of the pixels."),
    "glass-blur": (1, _glass_blur, ""),
    "motion-blur": (1, _large(motion_blur), "Blurred along a line at up to 45 degrees."),
    "shear": (2, _shear, ""),
    "scale": (3, _scale, ""),
    "rotate": (2, _rotate, ""),
    "brightness": (5, _large(brightness), "Brighter by 0.5."),
    "translate": (3, _translate, ""),
    "stripe": (1, _stripe, ""),
    "fog": (5, _large(fog), "Plasma clouds three times as bright as white."),
    "spatter": (4, _spatter, ""),
    "dotted-line": (1, _dotted_line, ""),
    "zigzag": (1, _zigzag, ""),
    "canny-edges": (1, _canny_edges, ""),
}

for _name, (_severity, _change, _summary) in TABLE.items():
    corruption(
        f"mnist-c/{_name}",
        summary=_summary or (_change.__doc__ or "").strip(),
        reference="Mu, Gilmer 2019, arXiv 1906.02337",
        tags=("mnist-c",),
        row=_name,
        shape=(1, _SIDE, _SIDE),
        severities=(_severity,),
    )(_change)
