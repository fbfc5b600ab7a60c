"""Training histories for TensorBoard and Weights & Biases, beside the store. Nothing leaves the machine by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..registry import GauntletError, NotAvailable, nearest

#: Told (training key, label, history), as the store is.
Sink = Callable[[str, str, Sequence[Mapping[str, Any]]], None]


def open_logger(name: str, folder: Path) -> Sink:
    """A sink that writes each training once, below ``folder``.

    Args:
        name: ``tensorboard``, or ``wandb`` (offline unless WANDB_MODE says otherwise).
        folder: The output folder.

    Raises:
        GauntletError: There is no such logger.
        NotAvailable: Its library is not installed.
    """
    if name not in LOGGERS:
        raise GauntletError(f"There is no logger {name!r}; {nearest(name, LOGGERS)}")
    write = LOGGERS[name]()

    def sink(key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
        place = folder / name / f"{''.join(sign if sign.isalnum() else '-' for sign in label)}-{key[:8]}"
        if rows and not place.exists():
            place.mkdir(parents=True)
            write(place, key, label, rows)

    return sink


def _tensorboard() -> Callable[..., None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise _absent("tensorboard") from None

    def write(place: Path, key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
        with SummaryWriter(str(place)) as writer:
            for row in rows:
                for name, value in row.items():
                    if name != "epoch":
                        writer.add_scalar(name, value, int(row["epoch"]))

    return write


def _wandb() -> Callable[..., None]:
    try:
        import wandb
    except ImportError:
        raise _absent("wandb") from None

    def write(place: Path, key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        run = wandb.init(project="gauntlet", name=label, id=key[:16], dir=str(place), mode=mode)
        for row in rows:
            run.log(dict(row), step=int(row["epoch"]))
        run.finish()

    return write


def _absent(name: str) -> NotAvailable:
    return NotAvailable(f"The logger {name!r} is not installed: pip install 'gauntlet-bench[{name}]'.")


LOGGERS: dict[str, Callable[[], Callable[..., None]]] = {"tensorboard": _tensorboard, "wandb": _wandb}
