"""Measurements, training curves and pictures to wandb or tensorboard, from the store and after the fact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError, NotAvailable
from .layout import header
from .records import LABEL_COLUMNS
from .store import Store

#: Plots that say something without a selection; those that do not apply are left out.
PICTURES = ("accuracy-epsilon", "robust-heatmap", "reliability", "risk-coverage", "confusion", "misclassified")


def log_tensorboard(frame: pd.DataFrame, store: Store, folder: Path) -> Path:
    """Write event files: scalars by cell, training curves by epoch, plots as images.

    Raises:
        NotAvailable: tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise NotAvailable("This needs tensorboard: pip install 'gauntlet-bench[tensorboard]'.") from None
    writer = EventFileWriter(str(folder))
    for tag, step, value in _scalars(frame, store):
        _event(writer, Summary(value=[Summary.Value(tag=tag, simple_value=value)]), step)
    for name, png, height, width in pictures(frame, store):
        image = Summary.Image(encoded_image_string=png, height=height, width=width)
        _event(writer, Summary(value=[Summary.Value(tag=f"plots/{name}", image=image)]), 0)
    writer.close()
    return folder


def _event(writer: Any, summary: Any, step: int) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    writer.add_event(Event(summary=summary, step=step))


def log_wandb(frame: pd.DataFrame, store: Store, folder: Path, *, project: str, online: bool = False) -> Path:
    """Write one wandb run: a table of all measurements, scalars in its summary, training curves, plots.

    Raises:
        NotAvailable: wandb is not installed.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb
    except ImportError:
        raise NotAvailable("This needs wandb: pip install 'gauntlet-bench[wandb]'.") from None
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
