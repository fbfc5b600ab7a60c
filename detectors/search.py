"""Searches among training features: one matrix product with the queries serves every ranking that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import GauntletError
from .numerics import cached_rows, compute_dtype, double, rows_per_chunk
from .outputs import Outputs

_TILE = 2**16  # training features whose products with the queries are in memory together
_BLOCK = 64  # neighbours that are first judged by the best of them


class Found(NamedTuple):
    """What a query's largest values are and at which training features, in falling order; (N, k) each."""

    values: Tensor
    positions: Tensor


class Ranking(NamedTuple):
    """Orders training features x for a query q by ``scale <q, x> + offset``."""

    k: int
    scale: Tensor | None = None  # (N,), or None for 1
    offset: Tensor | None = None  # (N,), or None for 0


class Search:
    """Top-k searches of unit-length queries among the (projected) features of one image set, which are not copied.

    Detectors ask for rankings when they are fitted. The first of them that looks into an image set pays for the
    product of its features with the training features; what the others asked for is found in the same sweep, and
    stays with the image set.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.lengths = lengths(features)  # (N,)
        self._rankings: dict[str, Ranking] = {}

    def ask(self, name: str, ranking: Ranking) -> None:
        """Ask for the k largest of a ranking; one name always means the same order."""
        known = self._rankings.get(name)
        if known is None or known.k < ranking.k:
            self._rankings[name] = ranking

    def find(self, name: str, k: int, outputs: Outputs) -> Found:
        """The ``k`` largest of a ranking for every image of ``outputs``, whose features are scaled to length 1."""
        found: dict[str, Found] = outputs.cached(self, dict)
        if name not in found or found[name].values.shape[1] < k:
            assert outputs.projected_features is not None
            queries = F.normalize(compute_dtype(outputs.projected_features.detach()), dim=1)
            missing = {key: value for key, value in self._rankings.items() if key == name or key not in found}
            found |= search(queries, self.features, missing)
        return Found(*(part[:, :k] for part in found[name]))


@torch.no_grad()
def search(queries: Tensor, bank: Tensor, rankings: Mapping[str, Ranking]) -> dict[str, Found]:
    """What each ranking finds for queries (M, D) in a bank (N, D), from one product; tile by tile of both."""
    rows, tile = rows_per_chunk(min(len(bank), _TILE)), min(len(bank), _TILE)
    both = queries.new_empty(2, min(rows, max(len(queries), 1)) * tile)  # written again for every tile
    parts: dict[str, list[Found]] = {name: [] for name in rankings}
    for chunk in queries.split(rows):
        best: dict[str, Found] = {}
        for start in range(0, len(bank), tile):
            place = slice(start, start + tile)
            near = compute_dtype(bank[place])
            products, values = both[:, : len(chunk) * len(near)].unflatten(1, (len(chunk), len(near)))
            torch.mm(chunk, near.T, out=products)
            for name, (k, scale, offset) in rankings.items():
                values.copy_(products) if scale is None else torch.mul(products, scale[place], out=values)
                if offset is not None:
                    values.add_(offset[place])
                top = largest(values, min(k, len(near)))
                best[name] = _best(k, best.get(name), Found(top.values, top.positions + start))
        for name, own in best.items():
            parts[name].append(own)
    return {name: Found(*map(torch.cat, zip(*own, strict=True))) for name, own in parts.items()}


def _best(k: int, first: Found | None, second: Found) -> Found:
    """The ``k`` largest of two finds."""
    if first is None:
        return second
    values, positions = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    top = values.topk(min(k, values.shape[1]), dim=1)
    return Found(top.values, positions.gather(1, top.indices))


def check_neighbours(name: str, k: int, count: int, sought: str) -> None:
    """Refuse more neighbours than training images.

    Raises:
        GauntletError: ``k`` is above ``count``; the message names the detector and what it looks for.
    """
    if count < k:
        raise GauntletError(
            f"Detector {name!r} looks for {sought} among only {count} training images: choose a smaller k or more "
            "training images."
        )


def search_of(train: Outputs) -> Search:
    """The search among an image set's (projected) features that all detectors share."""
    assert train.projected_features is not None
    features = train.projected_features.detach()
    return train.cached("search", lambda: Search(features))


def lengths(features: Tensor) -> Tensor:
    """Lengths (N,) of features (N, D) in float64, in chunks."""
    parts = features.split(cached_rows(features.shape[1]))
    return torch.cat([torch.linalg.vector_norm(double(part), dim=1) for part in parts])


def largest(values: Tensor, k: int) -> Found:
    """The ``k`` largest of each row (M, N), in falling order.

    They lie in the k blocks of columns with the largest maxima, so that only those are sorted.
    """
    blocks = values.shape[1] // _BLOCK
    if blocks <= 2 * k:
        return Found(*values.topk(k, dim=1))
    whole = blocks * _BLOCK
    best = values[:, :whole].unflatten(1, (blocks, _BLOCK)).amax(dim=2).topk(k, dim=1, sorted=False).indices
    inside = torch.arange(_BLOCK, device=values.device)
    rest = torch.arange(whole, values.shape[1], device=values.device).expand(len(values), -1)
    columns = torch.cat([(best[:, :, None] * _BLOCK + inside).flatten(1), rest], dim=1)
    top = values.gather(1, columns).topk(k, dim=1)
    return Found(top.values, columns.gather(1, top.indices))
