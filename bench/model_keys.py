"""Digests of models, which decide what is trained and measured again, and the networks behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from torch import nn

from ..datasets import ResolvedDataset
from ..datasets.process_state import global_state
from ..models import create_module
from ..registry import digest, source_fingerprint
from .model_specs import ModelSpec
from .recipes import recipe_identity


def training_key(spec: ModelSpec, dataset: ResolvedDataset, seed: int) -> str:
    """Digest of everything that determines trained weights: architecture, recipe, data, seed and their sources."""
    assert spec.recipe is not None
    data = digest([dataset.fingerprint(split) for split in ("train", "val")])
    return digest(
        "training/2",
        [spec.entry.name, {**spec.entry.defaults(), **spec.parameters}, source_fingerprint(spec.entry)],
        recipe_identity(spec.recipe, dataset),
        [data, len(dataset.classes), dataset.shape, seed, spec.replica],
        *([[model_key(part, dataset, seed) for part in spec.inside]] if spec.inside else []),
    )


def model_key(spec: ModelSpec, dataset: ResolvedDataset, seed: int) -> str:
    """Digest that tells whether two models are the same function: how it was trained, or the weights it came with."""
    key = _uncalibrated_key(spec, dataset, seed)
    if spec.calibrator is None:
        return key
    entry = spec.calibrator.entry
    parameters = {**entry.defaults(), **spec.calibrator.parameters}
    return digest("calibrated/1", key, entry.name, parameters, source_fingerprint(entry), dataset.fingerprint("val"))


def _uncalibrated_key(spec: ModelSpec, dataset: ResolvedDataset, seed: int) -> str:
    identity = [
        "model/1",
        spec.entry.name,
        {**spec.entry.defaults(), **spec.parameters},
        source_fingerprint(spec.entry),
    ]
    if spec.weights is not None:
        members = [_architecture(member) for member in spec.members]
        return digest(*identity, members, "weights", hashlib.sha256(spec.weights.read_bytes()).hexdigest())
    if spec.recipe is not None:
        return training_key(spec, dataset, seed)
    if spec.members:
        return digest(*identity, [model_key(member, dataset, seed) for member in spec.members])
    # Weights that its code reads from somewhere are not known before it runs: its probe outputs tell when they change.
    return digest(*identity, "as built", len(dataset.classes), dataset.shape, start_of(spec, seed))


def build(spec: ModelSpec, dataset: ResolvedDataset, members: Sequence[nn.Module] | None = None) -> nn.Module:
    """The network as its entry makes it, untrained, drawing from torch's global generator."""
    with nullcontext() if spec.entry.is_ours else global_state():
        return create_module(
            spec.entry,
            spec.parameters,
            classes=len(dataset.classes),
            shape=dataset.shape,
            members=members,
            download=dataset.source.download,
        )


def start_of(spec: ModelSpec, seed: int) -> int:
    """The seed of a model's random start and of its training."""
    return int(digest("init", seed, spec.replica)[:15], 16)


def _architecture(spec: ModelSpec) -> list[Any]:
    parameters = {**spec.entry.defaults(), **spec.parameters}
    members = [_architecture(member) for member in spec.members]
    return [spec.entry.name, parameters, source_fingerprint(spec.entry), members]
