"""Options that every dataset takes beside its own parameters: which classes, how many images, how much validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..registry import CORRUPTIONS, GauntletError, coerce, nearest
from .checks import check_shape

OPTIONS = ("hold_out", "only", "limit", "val", "shape", "shift", "corrupt")
DEFAULT_VAL = 0.1
#: What the names of corruptions begin with that the option ``shift`` offers.
SHIFT = "shift/"


@dataclass(frozen=True)
class Options:
    """Checked options; ``None`` or empty where not given.

    Attributes:
        hold_out: Classes (names or indices) to leave out.
        only: Classes (names or indices) to keep.
        limit: Largest number of images of a split.
        val: Share of ``train`` that becomes ``val``, between 0 and 1.
        shape: (C, H, W) to convert to.
        shift: What is done to the test images only (``rotation``, ``noise``), in order.
        corrupt: Corruptions of the test images and their severities, in order, after ``shift``.
    """

    hold_out: tuple[int | str, ...] = ()
    only: tuple[int | str, ...] = ()
    limit: int | None = None
    val: float | None = None
    shape: tuple[int, int, int] | None = None
    shift: tuple[str, ...] = ()
    corrupt: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, values: Mapping[str, Any], name: str) -> Options:
        """Check what a suite says.

        Raises:
            GauntletError: A value has the wrong type or range; the message names dataset and option.
        """
        unknown = set(values) - set(OPTIONS)
        if unknown:
            first = min(unknown)
            raise GauntletError(f"Dataset {name!r} has no option {first!r}; {nearest(first, OPTIONS)}")
        given = {option: value for option, value in values.items() if value is not None}
        readers: dict[str, Callable[[Any, str], Any]] = {
            "hold_out": _classes,
            "only": _classes,
            "limit": _limit,
            "val": _share,
            "shape": _shape,
            "shift": _shifts,
            "corrupt": _corruptions,
        }
        return cls(**{option: readers[option](value, f"Dataset {name!r}: {option}") for option, value in given.items()})

    def kept(self, classes: Sequence[str], name: str) -> tuple[int, ...]:
        """Indices of the classes that stay, in their original order.

        Raises:
            GauntletError: A class is unknown, or none stays.
        """
        only = set(_indices(self.only, classes, name)) if self.only else set(range(len(classes)))
        kept = sorted(only - set(_indices(self.hold_out, classes, name)))
        if classes and not kept:
            raise GauntletError(f"Dataset {name!r}: hold_out leaves no class; keep at least one of {len(classes)}.")
        return tuple(kept)

    def recorded(self) -> dict[str, Any]:
        """The options that were given, as JSON can hold them."""
        given = ((option, getattr(self, option)) for option in OPTIONS)
        return {
            option: dict(value) if option == "corrupt" else list(value) if isinstance(value, tuple) else value
            for option, value in given
            if value not in (None, ())
        }


def _indices(wanted: Iterable[int | str], classes: Sequence[str], name: str) -> list[int]:
    return [_index(one, classes, name) for one in wanted]


def _index(wanted: int | str, classes: Sequence[str], name: str) -> int:
    if isinstance(wanted, str) and wanted in classes:
        return classes.index(wanted)
    if isinstance(wanted, int) and 0 <= wanted < len(classes):
        return wanted
    if not classes:
        raise GauntletError(f"Dataset {name!r} has no classes to choose from, got {wanted!r}.")
    if isinstance(wanted, int):
        raise GauntletError(f"Dataset {name!r} has no class {wanted}: indices go from 0 to {len(classes) - 1}.")
    raise GauntletError(f"Dataset {name!r} has no class {wanted!r}; {nearest(wanted, classes)}")


def _classes(value: Any, where: str) -> tuple[int | str, ...]:
    values = [value] if isinstance(value, (int, str)) else value
    if not isinstance(values, Sequence) or any(isinstance(v, bool) or not isinstance(v, (int, str)) for v in values):
        raise GauntletError(f"{where} must be a list of class names or indices, got {value!r}.")
    if not values and where.endswith("only"):
        raise GauntletError(f"{where} must name at least one class, got an empty list.")
    return tuple(values)


def _limit(value: Any, where: str) -> int:
    if (limit := _coerce(value, int, where)) < 1:
        raise GauntletError(f"{where} must be at least 1 image, got {value!r}.")
    return limit


def _share(value: Any, where: str) -> float:
    share = _coerce(value, float, where)
    if not 0 < share < 100:
        raise GauntletError(
            f"{where} must be a share above 0 and below 1, or a percentage from 1 to below 100, got {value!r}."
        )
    return share if share < 1 else share / 100


def _shape(value: Any, where: str) -> tuple[int, int, int]:
    shape = _coerce(value, tuple[int, int, int], where)
    check_shape(where.split("'")[1], shape)
    return shape


def _shifts(value: Any, where: str) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(_coerce(value, list[str], where))
    known = [name.removeprefix(SHIFT) for name in CORRUPTIONS.names(f"{SHIFT}*")]
    for name in names:
        if name not in known:
            raise GauntletError(f"{where} has no {name!r}; {nearest(name, known)}")
    return names


def _corruptions(value: Any, where: str) -> tuple[tuple[str, int], ...]:
    """``{fog: 3}``, or a name alone where it has one severity only."""
    from .corruptions import severities

    given = {value: None} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not given:
        raise GauntletError(f"{where} must name corruptions and severities, such as {{fog: 3}}, got {value!r}.")
    found = []
    for name, level in given.items():
        entry = CORRUPTIONS.get(str(name))
        known = severities(entry)
        level = known[0] if level is None and len(known) == 1 else level
        if isinstance(level, bool) or level not in known:
            raise GauntletError(
                f"{where}: {entry.name} has the severities {', '.join(map(str, known))}, got {level!r}."
            )
        found.append((entry.name, int(level)))
    return tuple(found)


def _coerce(value: Any, kind: Any, where: str) -> Any:
    try:
        return coerce(value, kind)
    except ValueError as error:
        raise GauntletError(f"{where} {error}.") from None
