"""Where numbers come from: versions, commit, hardware. One record a run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_LIBRARIES = ("gauntlet-bench", "torch", "torchvision", "foolbox", "numpy", "scipy", "pandas", "scikit-learn")


def provenance(device: torch.device, command: list[str] | None = None) -> dict[str, Any]:
    """Versions, git commit of Gauntlet and of the working directory, hardware, threads and command line."""
    return {
        "command": command if command is not None else sys.argv,
        "python": platform.python_version(),
        "versions": {name: version for name in _LIBRARIES if (version := _version(name))},
        "gauntlet_commit": git_state(Path(__file__).resolve().parent),
        "working_directory_commit": git_state(Path.cwd()),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": _device_name(device),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the repository that holds ``folder``; None without one (or without git)."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()
