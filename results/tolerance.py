"""How far a metric may move before the drift check calls it a drift: defaults, and rules that override them."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from .layout import header
from .records import IDENTITY_COLUMNS

METHODS = ("statistical", "absolute", "relative")
DIRECTIONS = ("any", "worse")


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
