"""Puts the page together: data, drawings, table library and template become one HTML file."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from ...registry import NotAvailable
from ..display import number
from ..layout import by_dataset
from ..metrics import metric_named
from ..safety_table import SAFETY, SafetyColumn, summarised
from ..seeds import mean_over_seeds
from . import svg_charts
from .findings import findings
from .leaderboards import boards, describe_runs

if TYPE_CHECKING:
    from ..store import Store

#: Columns of the safety table whose best values stand at the top.
HEADLINES = (*SAFETY, SafetyColumn("AUROC, mean (%)", "ood", "auroc"))
#: Cells that get drawings in the page; `gauntlet plot` draws any.
MOST_DRAWN = 2000
#: Reference of a component, by kind (``attack``, ``detector``, ``model``) and name; empty where it is not known.
References = Callable[[str, str], str]


def build_page(
    frame: pd.DataFrame,
    store: Store | None = None,
    *,
    title: str = "Gauntlet",
    references: References | None = None,
    most_drawn: int = MOST_DRAWN,
) -> str:
    """The page as HTML text: works from a file, without any request to the network.

    Args:
        frame: Tidy results; reported ones of others (with a column ``source``) may be among them.
        store: Where the frame came from, for drawings and provenance.
        title: Heading of the page.
        references: Looks up the paper of a component.
        most_drawn: So many cells get drawings.

    Raises:
        NotAvailable: The table library (itables) is not installed.
    """
    runs = {run.run_id: _run(run) for run in store.runs()} if store else {}
    data: dict[str, Any] = {
        "boards": boards(frame, {name: one.title for name, one in store.declarations().items()} if store else {}),
        "runs": describe_runs(frame, runs),
        "plots": _drawings(frame, store, most_drawn),
        "references": _references(frame, references),
    }
    found = findings(frame)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_own("report.html.j2"))
    return template.render(
        title=title,
        cards=cards(frame),
        findings=[asdict(finding) for finding in found],
        boards=[
            {"id": f"board-{i}", "title": _title(board["title"], frame), "short": board["title"], **_head(board)}
            for i, board in enumerate(data["boards"])
        ],
        runs=list(data["runs"].values()),
        data=_packed(data),
        library=_script(_library("dt_bundle.js")),
        library_css=_style(_library("dt_bundle.css")),
        css=_style(_own("report.css")),
        js=_script(_own("report.js")),
    )


def cards(frame: pd.DataFrame) -> list[dict[str, str]]:
    """The figures at the top: how much was measured, and the best of every headline metric."""
    cells = frame.drop_duplicates("key")
    ok = int((cells["status"] == "ok").sum())
    counts = [
        {"title": "Models", "value": f"{frame['model'].nunique():,}", "text": _few(frame["model"])},
        {"title": "Datasets", "value": f"{frame['dataset'].nunique():,}", "text": _few(frame["dataset"])},
        {
            "title": "Cells",
            "value": f"{len(cells):,}",
            "text": f"{len(cells) - ok:,} not measured" if ok < len(cells) else "all measured",
        },
        {"title": "Measurements", "value": f"{int(frame['value'].notna().sum()):,}", "text": "with 95 % intervals"},
    ]
    several = frame["dataset"].nunique() > 1
    best = [_best(part, item, several) for _, part in by_dataset(frame) for item in HEADLINES]
    return counts + [card for card in best if card]


def _best(part: pd.DataFrame, item: SafetyColumn, several: bool) -> dict[str, str] | None:
    """The model with the best value of a column of the safety table on one dataset."""
    values = summarised(part, item)
    values = values[(values["status"] == "ok") & values["value"].notna()]
    if values.empty:
        return None
    means = mean_over_seeds(values).set_index("model")["value"]
    known = metric_named(item.metric)
    best = str(means.idxmax() if known.higher_is_better else means.idxmin())
    where = f", {part['dataset'].iloc[0]}" if several else ""
    title = item.title.removesuffix(" (%)")
    return {"title": f"Best {title}{where}", "value": f"{number(100 * means[best], 1)} %", "text": best}


def _few(column: pd.Series, most: int = 3) -> str:
    names = list(dict.fromkeys(column))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _title(title: str, frame: pd.DataFrame) -> str:
    """With the dataset, where there is only one (its column is then left out)."""
    datasets = frame["dataset"].unique()
    return f"{title} on {datasets[0]}" if len(datasets) == 1 else title


def _head(board: Mapping[str, Any]) -> dict[str, Any]:
    views = board["views"]
    left_out = max(view["left_out"] for view in views.values())
    return {"groups": board["groups"], "seeds": "mean" in views, "left_out": left_out, "name": board["id"]}


def _run(run: Any) -> dict[str, Any]:
    kept = {name: value for name, value in run.provenance.items() if name != "command" and value is not None}
    return {
        "id": run.run_id,
        "suite": run.suite,
        "status": run.status or "running",
        "started": run.started_at[:19].replace("T", " "),
        "cells": run.cells,
        "text": run.suite_text,
        "provenance": {name: _words(value) for name, value in kept.items()},
    }


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        if "commit" in value:
            return str(value["commit"])[:12] + (" (with uncommitted changes)" if value.get("dirty") else "")
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    return "–" if value is None else str(value)


def _drawings(frame: pd.DataFrame, store: Store | None, most: int) -> dict[str, list[str]]:
    """Drawings by cell key: from the cell's arrays, or (accuracy against epsilon) from its neighbours."""
    cells = frame[frame["status"] == "ok"].drop_duplicates("key").head(most)
    drawn = {key: svg_charts.of_arrays(store.arrays(key)) for key in cells["key"]} if store else {}
    robust = frame[(frame["metric"] == "robust_accuracy") & frame["epsilon"].notna()]
    for _, family in robust.groupby(["model", "dataset", "seed", "attack"], sort=False):
        family = family.sort_values("epsilon")
        points = list(zip(family["epsilon"], family["value"], strict=True))
        for key, epsilon in zip(family["key"], family["epsilon"], strict=True):
            if len(points) > 1 and key in drawn:
                drawn[key].append(svg_charts.curve("Accuracy against ε", "ε", points, epsilon))
    return {key: drawings for key, drawings in drawn.items() if drawings}


def _references(frame: pd.DataFrame, references: References | None) -> dict[str, dict[str, str]]:
    """Papers by kind and component name, of the components that the cells' params name."""
    found: dict[str, dict[str, str]] = {"attack": {}, "detector": {}, "model": {}}
    for text in frame["params"].unique() if references else ():
        params = json.loads(text or "{}")
        for kind in found:
            name = params.get(kind, {}).get("name") if isinstance(params.get(kind), dict) else None
            if name and references:
                found[kind][name] = references(kind, name)
    return found


def _packed(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _own(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


@cache
def _library(name: str) -> str:
    """A file of DataTables as itables bundles it (MIT licence)."""
    try:
        return (resources.files("itables") / "html" / name).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        raise NotAvailable("`gauntlet report` needs itables >= 2.5: pip install 'itables>=2.5'.") from None


def _script(text: str) -> Markup:
    """Source of a script element; ``</script`` inside a string would end it."""
    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _style(text: str) -> Markup:
    return Markup(text.replace("</style", "<\\/style"))
