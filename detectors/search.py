"""Searches among training features: one matrix product with the queries serves every ranking that was asked for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .numerics import cached_rows, double, rows_per_chunk, working
from .outputs import Outputs

_BLOCK = 64  # neighbours that are first judged by the best of them


class Found(NamedTuple):
    """What a query's largest values are and at which training features, in falling order; (N, k) each."""

    values: Tensor
    positions: Tensor


class Ranking(NamedTuple):
    """Orders training features x for a query q by ``scale <q, x> + offset``."""

    k: int
    scale: Tensor  # (N,)
    offset: Tensor | None  # (N,), or None for 0


class Search:
    """Top-k searches of unit-length queries among the compact features of one image set, which are not copied.

    Detectors ask for rankings when they are fitted. The first of them that looks into an image set pays for the
    product of its features with the training features; what the others asked for is found in the same sweep, and
    stays with the image set.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.lengths = lengths(features)  # (N,)
        self._rankings: dict[str, Ranking] = {}

    def ask(self, name: str, k: int, scale: Tensor, offset: Tensor | None = None) -> None:
        """Ask for the ``k`` largest ``scale <q, x> + offset``; one name always means the same ranking."""
        known = self._rankings.get(name)
        if known is None or known.k < k:
            self._rankings[name] = Ranking(k, scale, offset)

    def find(self, name: str, k: int, outputs: Outputs) -> Found:
        """The ``k`` largest of a ranking for every image of ``outputs``, whose features are scaled to length 1."""
        found: dict[str, Found] = outputs.once(self, dict)
        if name not in found or found[name].values.shape[1] < k:
            missing = {key: value for key, value in self._rankings.items() if key == name or key not in found}
            found |= self._sweep(outputs, missing)
        return Found(*(part[:, :k] for part in found[name]))

    @torch.no_grad()
    def _sweep(self, outputs: Outputs, rankings: dict[str, Ranking]) -> dict[str, Found]:
        assert outputs.compact is not None
        queries = F.normalize(working(outputs.compact.detach()), dim=1)
        bank = working(self.features)
        parts: dict[str, list[Found]] = {name: [] for name in rankings}
        rows = rows_per_chunk(len(bank))
        both = queries.new_empty(2, min(rows, max(len(queries), 1)), len(bank))  # written again for every chunk
        for chunk in queries.split(rows):
            products, values = both[:, : len(chunk)]
            torch.mm(chunk, bank.T, out=products)
            for name, ranking in rankings.items():
                torch.mul(products, ranking.scale, out=values)
                if ranking.offset is not None:
                    values.add_(ranking.offset)
                parts[name].append(largest(values, ranking.k))
        return {name: Found(*map(torch.cat, zip(*own, strict=True))) for name, own in parts.items()}


def search_of(train: Outputs) -> Search:
    """The search among an image set's compact features that all detectors share."""
    assert train.compact is not None
    features = train.compact.detach()
    return train.once("search", lambda: Search(features))


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
