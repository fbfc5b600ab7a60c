"""How far a metric may move before the drift check calls it a drift: defaults, and rules that override them."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from .factorize import factorize
from .layout import header
from .metrics import directions
from .records import IDENTITY_COLUMNS

METHODS = ("statistical", "absolute", "relative")
DIRECTIONS = ("any", "worse")
_ONE_SIDED = 1.644854 / 1.959964  # of half a 95 % interval: what a one-sided test at 5 % needs
#: Half the 95 % interval of a measurement's difference from its samples, or None without samples.
Noise = Callable[[pd.Series | Mapping[Any, Any]], float | None]


@dataclass(frozen=True)
class Rule:
    """Tolerance of the measurements that it matches.

    Attributes:
        where: Column of identity (or ``metric``) -> pattern; a measurement must match all.
        method: ``statistical`` (the interval of the difference must not exclude a difference within ``tolerance``),
            ``absolute`` or ``relative`` (to the baseline's value).
        tolerance: Difference that is always allowed: in the metric's unit, or as a share if ``relative``.
        direction: ``any`` change is a drift, or only one for the ``worse``.
    """

    where: Mapping[str, str] = field(default_factory=dict)
    method: str = "statistical"
    tolerance: float = 0.03
    direction: str = "any"

    def mask(self, rows: pd.DataFrame) -> np.ndarray:
        """Which of these measurements the rule is about."""
        matching = np.ones(len(rows), dtype=bool)
        for name, wanted in self.where.items():
            codes, values = pd.factorize(rows[name], use_na_sentinel=False)
            matching &= np.array([_same(header(name, value), wanted) for value in values], dtype=bool)[codes]
        return matching


def parse_rules(rules: Iterable[Mapping[str, Any]], where: str = "drift rule") -> list[Rule]:
    """Rules from a suite's ``drift:`` list, such as ``{metric: ece, relative: 0.2, direction: worse}``.

    Raises:
        GauntletError: A key, method or value is not as above; the message says where.
    """
    return [_rule(dict(rule), where) for rule in rules]


def allowed_differences(both: pd.DataFrame, rules: Sequence[Rule], noise: Noise | None) -> tuple[np.ndarray, ...]:
    """Allowed difference of every row; +1 or -1 where only a fall or a rise counts; the largest that is the same."""
    rule_of = np.zeros(len(both), dtype=int)
    for place, rule in enumerate(rules):
        rule_of[rule.mask(both)] = place
    halves = _width(both, "old") / 2, _width(both, "new") / 2
    spread, error = halves[0] + halves[1], np.hypot(*halves)
    if noise is not None:
        found = np.array([noise(row) for row in both.to_dict("records")], dtype=float)  # NaN: not paired
        spread, error = (np.where(np.isnan(found), half, found) for half in (spread, error))
    floor = np.array([rule.tolerance for rule in rules])[rule_of]
    method = np.array([METHODS.index(rule.method) for rule in rules])[rule_of]
    size = np.abs(both["value_old"].to_numpy())
    allowed = np.select([method == 1, method == 2], [floor, floor * size], np.maximum(floor, spread))
    one_sided = np.array([rule.direction == "worse" for rule in rules])[rule_of]
    codes, names = factorize(both["metric"])
    direction = np.where(one_sided, np.array(directions(names), dtype=int)[codes], 0)
    return allowed, direction, np.where(method == 0, floor - _ONE_SIDED * error, allowed)


def _width(both: pd.DataFrame, side: str) -> np.ndarray:
    width = (both[f"ci_high_{side}"] - both[f"ci_low_{side}"]).to_numpy()
    return np.where(np.isfinite(width), width, 0.0)


def _rule(given: dict[str, Any], where: str) -> Rule:
    methods = [name for name in METHODS if name in given]
    direction = given.pop("direction", "any")
    if direction not in DIRECTIONS:
        raise GauntletError(f"{where}: a drift rule's direction is any or worse, got {direction!r}.")
    if len(methods) != 1:
        raise GauntletError(f"{where}: a drift rule names one of statistical, absolute, relative with a number >= 0.")
    tolerance = given.pop(methods[0])
    usable = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not (usable and math.isfinite(tolerance) and tolerance >= 0):
        raise GauntletError(f"{where}: the {methods[0]} tolerance must be a number >= 0, got {tolerance!r}.")
    known = ("metric", *IDENTITY_COLUMNS)
    for name in given:
        if name not in known:
            raise GauntletError(f"{where}: a drift rule has no key {name!r}; {nearest(str(name), known)}")
    texts = {name: header(name, value) for name, value in given.items()}
    return Rule(texts, methods[0], float(tolerance), direction)


def _same(value: str, wanted: str) -> bool:
    return value == wanted or fnmatch.fnmatchcase(value, wanted)
