"""Training curves as they are made, and later all measurements and pictures, to wandb or tensorboard.

Nothing leaves the machine unless the user says so.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from ..registry import GauntletError, NotAvailable, nearest
from .layout import header
from .records import LABEL_COLUMNS
from .store import Store

#: Told (training key, label, history), as the store is.
Sink = Callable[[str, str, Sequence[Mapping[str, Any]]], None]

#: Plots that say something without a selection; those that do not apply are left out.
PICTURES = ("accuracy-epsilon", "robust-heatmap", "reliability", "risk-coverage", "confusion", "misclassified")


def open_logger(name: str, folder: Path) -> Sink:
    """A sink that writes each training once, below ``folder``.

    Args:
        name: ``tensorboard``, or ``wandb`` (offline unless WANDB_MODE says otherwise).
        folder: The output folder.

    Raises:
        GauntletError: There is no such logger.
        NotAvailable: Its library is not installed.
    """
    writers = {"tensorboard": _tensorboard_history, "wandb": _wandb_history}
    if name not in writers:
        raise GauntletError(f"There is no logger {name!r}; {nearest(name, writers)}")
    _imported(name)

    def sink(key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
        place = folder / name / f"{''.join(sign if sign.isalnum() else '-' for sign in label)}-{key[:8]}"
        if rows and not place.exists():
            place.mkdir(parents=True)
            writers[name](place, key, label, rows)

    return sink


def _tensorboard_history(place: Path, key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
    with _Events(place) as events:
        for row in rows:
            for name, value in row.items():
                if name != "epoch":
                    events.add(int(row["epoch"]), tag=name, simple_value=value)


def _wandb_history(place: Path, key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
    mode = os.environ.get("WANDB_MODE", "offline")
    run = _imported("wandb").init(project="gauntlet", name=label, id=key[:16], dir=str(place), mode=mode)
    for row in rows:
        run.log(dict(row), step=int(row["epoch"]))
    run.finish()


def log_tensorboard(frame: pd.DataFrame, store: Store, folder: Path) -> Path:
    """Write event files: scalars by cell, training curves by epoch, plots as images.

    Raises:
        NotAvailable: tensorboard is not installed.
    """
    with _Events(folder) as events:
        for tag, step, value in _scalars(frame, store):
            events.add(step, tag=tag, simple_value=value)
        for name, png, height, width in pictures(frame, store):
            image = events.summary.Image(encoded_image_string=png, height=height, width=width)
            events.add(0, tag=f"plots/{name}", image=image)
    return folder


class _Events:
    """An event file of tensorboard's."""

    def __init__(self, folder: Path) -> None:
        _imported("tensorboard")
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self.summary, self._writer = Event, Summary, EventFileWriter(str(folder))

    def add(self, step: int, **value: Any) -> None:
        """One value of a summary."""
        summary = self.summary(value=[self.summary.Value(**value)])
        self._writer.add_event(self._event(summary=summary, step=step, wall_time=time.time()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()


def log_wandb(frame: pd.DataFrame, store: Store, folder: Path, *, project: str, online: bool = False) -> Path:
    """Write one wandb run: a table of all measurements, scalars in its summary, training curves, plots.

    Raises:
        NotAvailable: wandb is not installed.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    wandb = _imported("wandb")
    folder.mkdir(parents=True, exist_ok=True)
    newest = store.runs()[-1]
    mode: Any = "online" if online else "offline"
    run = wandb.init(project=project, dir=str(folder), mode=mode, name=newest.suite, config=dict(newest.provenance))
    try:
        text = frame.astype(object).where(frame.notna(), None)
        rows: Any = text.to_numpy().tolist()
        run.log({"measurements": wandb.Table(columns=list(text.columns), data=rows)})
        steps: dict[int, dict[str, float]] = {}
        for tag, step, value in _scalars(frame, store):
            if tag.startswith("training/"):
                steps.setdefault(step, {})[tag] = value
            else:
                run.summary[tag] = value
        for _, values in sorted(steps.items()):
            run.log(values)
        for name, png, _, _ in pictures(frame, store):
            run.log({f"plots/{name}": wandb.Image(_pixels(png))})
    finally:
        run.finish()
    return folder


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotAvailable(f"{name} is not installed: pip install 'gauntlet-bench[{name}]'.") from None


def pictures(frame: pd.DataFrame, store: Store) -> Iterator[tuple[str, bytes, int, int]]:
    """Name, PNG, height and width of every picture that these results allow."""
    import io

    from .plots import Material, draw
    from .plots.style import styled

    for name in PICTURES:
        try:
            figure = draw(name, Material(frame, store))
        except GauntletError:  # nothing of the kind was measured
            continue
        file = io.BytesIO()
        with styled():
            figure.savefig(file, format="png", dpi=110)
        height, width = _pixels(file.getvalue()).shape[:2]
        yield name, file.getvalue(), height, width


def _pixels(png: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _scalars(frame: pd.DataFrame, store: Store) -> Iterator[tuple[str, int, float]]:
    """(name, step, value) of every measurement over all classes, and of every epoch of every training."""
    overall = frame[(frame["class"] == "") & (frame["status"] == "ok") & frame["value"].notna()]
    for _, row in overall.iterrows():
        names = [header(name, row[name]) for name in LABEL_COLUMNS if name != "seed"]
        yield "/".join([*filter(None, names), f"seed {row['seed']}", row["metric"]]), 0, float(row["value"])
    for key, label in store.history_labels().items():
        for step, epoch in enumerate(store.history(key) or [], start=1):
            for name, value in epoch.items():
                if name != "epoch" and isinstance(value, (int, float)):
                    yield f"training/{label}/{name}", int(epoch.get("epoch", step)), float(value)
