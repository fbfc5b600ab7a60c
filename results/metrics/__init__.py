"""What every metric is: its direction, range, interval and definition, and the kernel that computes it.

A metric is registered by :data:`gauntlet.metric`. Its kernel is a function whose arguments name what it reads of a
sample (:mod:`gauntlet.results.samples`): ``ranking`` and ``right`` of scores, ``reliability`` of confidences,
``values`` of anything else. From that one kernel come the value, its interval and the paired difference::

    @metric("fpr99", title="FPR99", higher_is_better=False)
    def fpr99(ranking):
        \"\"\"Share of ID images flagged at the highest threshold that catches at least 99 % of the OOD images.\"\"\"
        return detection.flagged_at(ranking, 99)

This package imports numpy only when a metric is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...registry import METRICS as REGISTERED
from ...registry import Entry, GauntletError

INFINITY = float("inf")

#: Facts of metrics without an upper bound, and of those without any; neither is a share.
UNBOUNDED: Mapping[str, Any] = {"high": INFINITY, "percent": False}
REAL: Mapping[str, Any] = {"low": -INFINITY, **UNBOUNDED}

#: The arrays of a cell from which a sample is made anew, by what a kernel reads of it.
_STORED = {
    "ranking": ("id_score", "ood_score"),
    "reliability": ("confidence", "correct"),
    "selection": ("score", "loss"),
}
_INTERVALS = {"ranking": "bootstrap", "reliability": "bootstrap", "selection": "bootstrap", "values": "student"}


@dataclass(frozen=True)
class Metric:
    """A metric as tables, plots and the drift check need to know it: plain facts, without the kernel.

    Attributes:
        name: As in the column ``metric``.
        title: For headings.
        description: Definition, with a reference where it has one.
        higher_is_better: ``None`` where neither direction is better in itself.
        low: Smallest possible value.
        high: Largest possible value.
        percent: Whether tables may show it in percent.
        decimals: Digits after the point where it is not in percent.
        headline: Whether a baseline holds it unless told otherwise.
        interval: How its 95 % interval is computed: ``bootstrap`` (``bootstrap-minimum`` of a least value over
            thresholds), ``calibration`` (of the true ECE), ``clopper-pearson``, ``delong``, ``gap``, ``normal``,
            ``order-statistics`` or ``student``; empty where it has none.
        evaluators: A plug-in's metric is added to these evaluators; to all that have such a sample if there are none.
        stored: The arrays of a cell that hold its values image by image, for paired differences.
    """

    name: str
    title: str
    description: str
    higher_is_better: bool | None = True
    low: float = 0.0
    high: float = 1.0
    percent: bool = True
    decimals: int = 3
    headline: bool = False
    interval: str = ""
    evaluators: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()


#: What stores say of metrics whose plug-in is absent here.
_DECLARED: dict[str, Metric] = {}


class _Known(Mapping[str, Metric]):
    """The facts of all registered metrics, by name, and of those that a store declares."""

    def __getitem__(self, name: str) -> Metric:
        return _facts(REGISTERED.get(name)) if name in REGISTERED else _DECLARED[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*(entry.name for entry in REGISTERED), *_DECLARED]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def adopt(metrics: Iterable[Metric]) -> None:
    """Know the metrics that a store declares; where one of that name is registered, that one stands."""
    _DECLARED.update({known.name: known for known in metrics})


#: Facts by name, of the metrics of Gauntlet and of plug-ins.
METRICS: Mapping[str, Metric] = _Known()


def metric_named(name: str) -> Metric:
    """What is known of a metric (``auroc@near`` is one of ``auroc``); of an unregistered one, only its name.

    Raises:
        GauntletError: The name is empty.

    Example:
        >>> metric_named("ece").title, metric_named("mine").higher_is_better
        ('ECE', None)
    """
    if not name:
        raise GauntletError("A metric must have a name, got an empty one.")
    return METRICS.get(name.partition("@")[0]) or Metric(name, name, "", None, -INFINITY, INFINITY, percent=False)


def headline_metrics() -> tuple[str, ...]:
    """The metrics that a baseline holds unless told otherwise."""
    return tuple(name for name, known in METRICS.items() if known.headline)


def directions(names: Iterable[str]) -> list[int]:
    """+1 for each metric of which more is better, -1 where less is, else 0."""
    signs = {True: 1, False: -1, None: 0}
    return [signs[metric_named(name).higher_is_better] if name else 0 for name in names]


def kernel(name: str) -> Entry:
    """The registered kernel of a metric: ``factory`` computes it from what ``needs`` names.

    Raises:
        GauntletError: There is no such metric, or its evaluator computes it by itself.
    """
    entry = REGISTERED.get(name)
    if not entry.needs:
        raise GauntletError(f"The metric {name!r} has no kernel: its evaluator computes it.")
    return entry


def fitting(kinds: Iterable[str]) -> list[Entry]:
    """The kernels that read no more of a sample than these kinds of statistics."""
    return [entry for entry in REGISTERED if entry.needs and set(entry.needs) <= set(kinds)]


def plugged_in(evaluator: str, kinds: Iterable[str]) -> list[Entry]:
    """The metrics of plug-ins that an evaluator adds to its own, of a sample with these kinds of statistics."""
    return [
        entry
        for entry in fitting(kinds)
        if not entry.is_ours and evaluator in (_facts(entry).evaluators or (evaluator,))
    ]


def by_its_evaluator() -> None:
    """The kernel of metrics that are no weighted function of images: the evaluator computes them by itself."""


def register(name: str, title: str, description: str, *, kernel: Callable[..., Any], **facts: Any) -> None:
    """Register a metric that shares its kernel with others; ``facts`` are those of :class:`Metric`."""
    REGISTERED.register(name, title=title, summary=description, **facts)(kernel)


def described(entry: Entry) -> str:
    """A metric's definition: the first line of its kernel's docstring unless given in words, and its reference."""
    return f"{entry.summary[:-1]} ({entry.reference})." if entry.reference else entry.summary


def _facts(entry: Entry) -> Metric:
    kind = entry.needs[0] if entry.needs else ""
    known: dict[str, Any] = {"title": entry.name, "interval": _INTERVALS.get(kind, "")}
    if len(entry.needs) == 1:
        known["stored"] = _STORED.get(kind, ())
    return Metric(entry.name, description=described(entry), **{**known, **entry.meta})
