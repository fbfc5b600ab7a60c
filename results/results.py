"""What a run returns: the tidy frame, and what can be made of it."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from ..registry import GauntletError, nearest
from .formats import render
from .frame import as_tidy, coded, write_csv
from .page.findings import Finding, findings
from .presets import presets, write_tables
from .scores import per_image
from .store import Store
from .table import Table
from .tables import checks_of, pivot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Tables that a summary does not show: others say the same in fewer figures.
_ASIDE = ("checks", "safety")


class Tables(tuple[Table, ...]):
    """Tables that print as text, and as HTML in a notebook."""

    __slots__ = ()

    def to(self, fmt: str = "github") -> str:
        """All of them in one of the formats of :func:`gauntlet.results.tables.render`.

        Raises:
            GauntletError: The format is unknown.
        """
        return "\n\n".join(render(table, fmt) for table in self)

    def __repr__(self) -> str:
        return self.to("plain")

    def _repr_html_(self) -> str:
        return self.to("html")


class Results(pd.DataFrame):
    """The tidy results of a run: a data frame (one row a measurement) that makes tables, plots and a summary.

    Whatever is selected of it or computed with it is a plain data frame. It prints as its summary.

    Attributes:
        notes: What was found out about models and data before anything was measured, one sentence each.
    """

    _store: Store | None
    _folder: Path | None
    _run_id: str
    notes: tuple[str, ...]
    _metadata: ClassVar[list[str]] = ["_store", "_folder", "_run_id", "notes"]

    @classmethod
    def of(cls, store: Store, run_id: str, *, notes: Sequence[str] = (), keep: bool = False) -> Results:
        """The results of a run.

        Args:
            store: Where they are, open.
            run_id: The run.
            notes: See :attr:`notes`.
            keep: Go on with this store, which has no file; otherwise its file is opened where it is needed.
        """
        made = cls(as_tidy(coded(store, run=run_id)))
        made._store, made._folder = (store, None) if keep else (None, store.path.parent)
        made._run_id, made.notes = run_id, tuple(notes)
        return made

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame  # a part of the results is no result of a run

    @property
    def frame(self) -> pd.DataFrame:
        """The measurements as a plain data frame; see :data:`gauntlet.results.COLUMNS`."""
        return pd.DataFrame(self)

    @property
    def findings(self) -> list[Finding]:
        """What a reader must know before believing the numbers, the gravest first."""
        return [*(Finding("warning", "model or data", note) for note in self.notes), *findings(self.frame)]

    def table(
        self,
        preset: str | None = None,
        *,
        rows: str | Sequence[str] = (),
        columns: str | Sequence[str] = (),
        metric: str | Sequence[str] = (),
        **options: Any,
    ) -> Tables:
        """Tables: a preset (``ood``, ``attack-grid``, ``calibration``, ...), or columns of the frame against others.

        Args:
            preset: Name of one, as `gauntlet table` takes it; without ``rows`` and without it, all that have content.
            rows: Columns whose values become rows.
            columns: Columns whose values become columns.
            metric: What stands in the cells, such as ``auroc``.
            **options: Those of :func:`gauntlet.results.pivot`, such as ``percent``, ``decimals`` or ``best``.

        Raises:
            GauntletError: There is no such preset or column, or the results hold nothing of it.
        """
        frame = self.frame
        if rows or columns:
            names = [_names(part) for part in (rows, columns, metric or "accuracy")]
            return Tables([pivot(frame, *names, **{"title": "", **options})])
        with self._opened() as store:
            known = presets(store.declarations([self._run_id]).values())
        if preset is None:
            made = [table for name, one in known.items() if name not in _ASIDE for table in one(frame, **options)]
            return Tables([*self._plain_accuracy(frame, options), *made])
        if preset not in known:
            raise GauntletError(f"There is no table {preset!r}; {nearest(preset, known, limit=30)}")
        rest = frame if preset == "checks" else pd.concat([frame, checks_of(frame)]).drop_duplicates()
        return Tables(known[preset](rest, **options, **({"metric": metric} if metric else {})))

    def _plain_accuracy(self, frame: pd.DataFrame, options: dict[str, Any]) -> Iterator[Table]:
        """The clean accuracy, where no table of attacks begins with it."""
        own = frame[frame["evaluator"] == "accuracy"]
        if len(own) and not (frame["evaluator"] == "attack").any():
            yield pivot(own, ["model"], ["dataset"], ["accuracy"], **options)

    def plot(self, kind: str, file: str | Path | None = None, **where: Any) -> Figure:  # type: ignore[override]
        """Draw a plot (``roc``, ``reliability``, ``accuracy-epsilon``, ...; `gauntlet plot` lists them).

        Args:
            kind: Which one.
            file: Where it is written, too: .svg, .png or .pdf.
            **where: Values of columns that select rows, such as ``detector="knn"``.

        Raises:
            GauntletError: There is no such kind, or the results do not hold what it needs.
        """
        from .plots import Material, draw, save

        with self._opened() as store:
            figure = draw(kind, Material(self._selected(where), store))
        if file is not None:
            save(figure, Path(file))
        return figure

    def scores(self, **where: Any) -> pd.DataFrame:
        """What was measured image by image: a row an image of each cell, with predictions, scores, norms, ...

        Args:
            **where: Values of columns that select cells, such as ``evaluator="ood"``.
        """
        with self._opened() as store:
            return per_image(self._selected(where), store)

    def summary(self) -> str:
        """Findings and tables, as text."""
        found = [f"- {finding.title}: {finding.text}" for finding in self._told()]
        tables = self.table()
        return "\n\n".join(filter(None, ["\n".join(found), tables.to("plain")]))

    def save(self, folder: str | Path) -> Path:
        """Write ``results.csv``, the tables and the store to a folder; returns it.

        Raises:
            GauntletError: The folder cannot be written.
        """
        folder = Path(folder)
        write_csv(self.frame, folder / "results.csv")
        with self._opened() as store:
            write_tables(self.frame, folder, store.declarations([self._run_id]).values())
            store.copy_to(folder)
        return folder

    def __repr__(self) -> str:
        return self.summary() if hasattr(self, "_run_id") else repr(self.frame)

    def _repr_html_(self) -> str:
        items = "".join(f"<li><b>{html.escape(one.title)}</b>: {html.escape(one.text)}</li>" for one in self._told())
        return (f"<ul>{items}</ul>\n" if items else "") + self.table()._repr_html_()

    def _told(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level != "note" or finding.title == "skipped"]

    def _selected(self, where: dict[str, Any]) -> pd.DataFrame:
        frame = self.frame
        for name, value in where.items():
            if name not in frame:
                raise GauntletError(f"Results have no column {name!r}; {nearest(name, frame.columns)}")
            frame = frame[frame[name] == value]
        return frame

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Store]:
        if self._store is not None:
            yield self._store
            return
        assert self._folder is not None
        with Store.open(self._folder, create=False) as store:
            yield store


def _names(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
