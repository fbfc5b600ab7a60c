"""Weights on disk: a cache of trained models, and the weights that users bring. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import pickle
import secrets
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..registry import GauntletError
from ..registry.safe_files import DamagedError, sealed, unsealed, write_whole
from .state_dicts import find_state
from .tensor_files import load_tensors, plain, save_tensors


class CheckpointStore:
    """Trained weights by training key: one folder each, with `weights.safetensors` and `training.json`.

    A folder appears in one rename when it is complete, so an interrupted training leaves none.

    Args:
        folder: Where the checkpoints live (made on the first save).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """The folder of this key."""
        return self.folder / key

    def progress_file(self, key: str) -> Path:
        """Where a training of this key keeps its last finished epoch while it goes on."""
        return self.folder / f".{key}.epoch.safetensors"

    def lock_file(self, key: str) -> Path:
        """What a training of this key locks, so that no other process does the same."""
        return self.folder / f".{key}.lock"

    def __contains__(self, key: str) -> bool:
        return (self.path(key) / "training.json").is_file()

    def load(self, key: str, module: nn.Module) -> dict[str, Any]:
        """Fill ``module`` with the weights of ``key``; returns what was saved with them (history, seconds, ...).

        Raises:
            DamagedError: The files are not what was written.
        """
        folder = self.path(key)
        try:
            facts = unsealed((folder / "training.json").read_text(encoding="utf-8"))
            load_weights(module, folder / "weights.safetensors")
        except (GauntletError, OSError, ValueError) as error:
            raise DamagedError(f"The checkpoint in {folder} is damaged: {error}") from error
        return facts

    def discard(self, key: str) -> None:
        """Take a damaged checkpoint out of the way, as far as this user may."""
        shutil.rmtree(self.path(key), ignore_errors=True)

    def require_writable(self) -> None:
        """To be called before hours of training: raise the :class:`GauntletError` that :meth:`save` would raise."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> GauntletError:
        return GauntletError(
            f"The trained model cannot be kept in {self.folder} ({error.strerror or error}); set GAUNTLET_CACHE to a "
            "folder that can be written."
        )

    def save(self, key: str, module: nn.Module, facts: Mapping[str, Any]) -> None:
        """Keep the weights of ``module`` with JSON-able ``facts``.

        Raises:
            GauntletError: The folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = self.folder / f".{key}-{secrets.token_hex(4)}"
            draft.mkdir()
            try:
                save_tensors(module.state_dict(), draft / "weights.safetensors")
                text = sealed(facts)
                write_whole(draft / "training.json", lambda path: path.write_text(text, encoding="utf-8"))
                if key not in self:
                    self.discard(key)  # what is left of a checkpoint without its facts
                    draft.replace(self.path(key))
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            # Another process finished the same training first, or what lies there is another user's to remove.
            if self.path(key).exists():
                return
            raise self._unwritable(error) from None


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill ``module`` from a `.safetensors` file or a state dict saved by torch (read with ``weights_only=True``).

    Raises:
        GauntletError: The file is absent, damaged, holds anything but tensors, or does not fit (tensors are named).
    """
    content, wanted = _read(path), module.state_dict()
    state = find_state(content, wanted)
    if state is None:
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise GauntletError(
            f"{path} holds no state dict: expected names with tensors, as `model.state_dict()` gives; found {keys}."
        )
    problems = _misfits(wanted, state)
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise GauntletError(f"The weights in {path} do not fit the model: {shown}.")
    module.load_state_dict(state)


def weights_fingerprint(module: nn.Module) -> str:
    """Digest of all tensors of a module, for models that arrive trained."""
    result = hashlib.sha256()
    for name, tensor in sorted(plain(module.state_dict()).items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        result.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return result.hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise GauntletError(f"There is no file of weights at {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_tensors(path)
        with warnings.catch_warnings(action="ignore"):  # about the age of the pickle's protocol
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what damaged bytes make the readers raise is not documented
        raise GauntletError(_why_unreadable(path, error)) from None
    if not isinstance(content, Mapping):
        raise GauntletError(f"{path} holds a {type(content).__name__}, expected a state dict of tensors.")
    return dict(content)


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) and _is_pickle(path):
        return (
            f"{path} holds more than tensors, and loading it could run code from the file: save "
            "`model.state_dict()` with safetensors or torch.save instead."
        )
    known = isinstance(error, (SafetensorError, RuntimeError, DamagedError))
    reason = str(error).partition("\n")[0].rstrip(".") if known else "it is damaged or of another format"
    return f"{path} cannot be read as weights ({reason}); save `model.state_dict()` anew."


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle does, or as the zip archive that torch puts one into."""
    with path.open("rb") as file:
        return file.read(2)[:1] == b"\x80" or zipfile.is_zipfile(path)


def _misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is not in the model" for name in given if name not in wanted]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, the model wants {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    return problems
