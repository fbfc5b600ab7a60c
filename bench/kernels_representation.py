"""What an embedding is worth: neighbours, clusters, retrieval, and how it is spread over the sphere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..registry import GauntletError

#: Neighbours that vote in the kNN classifier, and the temperature of their weights (Wu et al. 2018).
NEIGHBOURS = (1, 5, 20, 200)
KNN_TEMPERATURE = 0.07
#: Images of which the cosine of pixels is larger are near-duplicates: finding one is no achievement.
DUPLICATE = 0.999
_ROWS = 1024  # queries compared with the whole gallery at a time


def knn_predictions(
    train: Tensor, labels: Tensor, queries: Tensor, *, classes: int, neighbours: Sequence[int] = NEIGHBOURS
) -> dict[int, Tensor]:
    """Classes by the vote of the nearest training embeddings, weights exp(cosine / 0.07).

    Args:
        train: (N, D) embeddings.
        labels: (N,) their classes.
        queries: (M, D) embeddings.
        classes: Number of classes.
        neighbours: How many vote; numbers above N are left out.

    Returns:
        (M,) predictions by number of neighbours.

    Reference: Wu, Xiong, Yu, Lin 2018, arXiv 1805.01978.

    Raises:
        GauntletError: There are fewer training images than neighbours.
    """
    wanted = [k for k in neighbours if k <= len(train)]
    if not wanted:
        raise GauntletError(f"kNN needs at least {min(neighbours)} training images, got {len(train)}.")
    bank = F.normalize(train.float(), dim=1)
    predictions: dict[int, list[Tensor]] = {k: [] for k in wanted}
    for part in F.normalize(queries.float(), dim=1).split(_ROWS):
        near = (part @ bank.T).topk(max(wanted), dim=1)
        # Only ratios count: the largest weight of each query is 1, so that none overflows.
        weights = ((near.values - near.values[:, :1]) / KNN_TEMPERATURE).exp()
        for k in wanted:
            votes = weights.new_zeros(len(part), classes)
            votes.scatter_add_(1, labels[near.indices[:, :k]], weights[:, :k])
            predictions[k].append(votes.argmax(1))
    return {k: torch.cat(parts) for k, parts in predictions.items()}


# -- clusters -------------------------------------------------------------------------------------------------


def clusters(embeddings: NDArray[np.floating], count: int, *, restarts: int = 10) -> NDArray[np.int64]:
    """k-means++ on L2-normalised embeddings (N, D), the best of ``restarts``; cluster numbers (N,)."""
    from sklearn.cluster import KMeans

    found = KMeans(count, init="k-means++", n_init=restarts, random_state=0).fit_predict(unit(embeddings))
    return np.asarray(found, dtype=np.int64)


def clustering_metrics(cluster: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, float]:
    """``purity``, ``nmi`` (arithmetic mean), ``ari`` and ``hungarian_accuracy`` of clusters (N,) by labels (N,)."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    size = int(max(cluster.max(), labels.max())) + 1
    table = np.bincount(cluster * size + labels, minlength=size * size).reshape(size, size)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {
        "purity": float(table.max(1).sum() / len(labels)),
        "nmi": float(normalized_mutual_info_score(labels, cluster)),
        "ari": float(adjusted_rand_score(labels, cluster)),
        "hungarian_accuracy": float(table[rows, columns].sum() / len(labels)),
    }


def silhouette(embeddings: NDArray[np.floating], cluster: NDArray[np.int64], *, most: int = 5000) -> float:
    """Mean silhouette of the clusters of L2-normalised embeddings (Rousseeuw 1987), on at most so many images."""
    from sklearn.metrics import silhouette_score

    chosen = np.sort(np.random.RandomState(0).permutation(len(cluster))[:most])
    if len(np.unique(cluster[chosen])) < 2:
        return float("nan")
    return float(silhouette_score(unit(embeddings[chosen]), cluster[chosen]))


def unit(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """The same at length 1."""
    values = np.asarray(embeddings, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


# -- retrieval ------------------------------------------------------------------------------------------------


class Retrieval(NamedTuple):
    """How well neighbours share the class of their query, query by query.

    Attributes:
        precision: (Q, len(k)) share of the k nearest that have the query's class.
        average_precision: (Q,) of the ranking of the whole gallery; NaN where no other image has the class.
        duplicates: (Q,) near-duplicates of the query, which were left out.
    """

    precision: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    duplicates: NDArray[np.int64]


def ranking(embeddings: Tensor, pixels: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gallery in descending order of cosine similarity to each query.

    Args:
        embeddings: (N, D) of the gallery.
        pixels: (N, P) its images; near-duplicates of a query (cosine above 0.999) go to the end, as it does itself.
        queries: (Q,) positions in the gallery.

    Returns:
        Order (Q, N), similarities (Q, N) in that order (-inf of what was left out), and near-duplicates (Q,).
    """
    bank, images = F.normalize(embeddings.float(), dim=1), F.normalize(pixels.float(), dim=1)
    table = bank[queries] @ bank.T
    same = images[queries] @ images.T > DUPLICATE
    itself = F.one_hot(queries, len(bank)).bool()
    found = table.masked_fill(same | itself, -torch.inf).sort(dim=1, descending=True, stable=True)
    return found.indices, found.values, (same & ~itself).sum(1)


def retrieval(
    embeddings: Tensor, labels: Tensor, pixels: Tensor, queries: Tensor, ks: Sequence[int] = (1, 5, 10)
) -> Retrieval:
    """Precision among the k nearest and average precision of each query; arguments as in :func:`ranking`."""
    truth = labels.cpu()
    precisions, averages, duplicates = [], [], []
    for part in queries.split(_ROWS // 4):
        order, values, twins = (found.cpu() for found in ranking(embeddings, pixels, part))
        hits = ((truth[order] == truth[part.cpu(), None]) & values.isfinite()).double()
        precisions.append(torch.stack([hits[:, :k].mean(1) for k in ks], 1))
        ranks = torch.arange(1, len(truth) + 1)
        averages.append((hits * hits.cumsum(1) / ranks).sum(1) / hits.sum(1))  # 0 / 0 is NaN
        duplicates.append(twins)
    found = (torch.cat(parts).numpy() for parts in (precisions, averages, duplicates))
    return Retrieval(*found)


# -- the sphere -----------------------------------------------------------------------------------------------


def alignments(first: Tensor, second: Tensor) -> Tensor:
    """Squared distances (N,) of the L2-normalised embeddings (N, D) of two views; their mean is the alignment."""
    return (F.normalize(first.double(), dim=1) - F.normalize(second.double(), dim=1)).square().sum(1)


def uniformity(embeddings: Tensor) -> float:
    """log of the mean over pairs of exp(-2 |z_i - z_k|^2), L2-normalised; 0 where all embeddings (N, D) are the same.

    Reference: Wang & Isola 2020, arXiv 2005.10242.
    """
    points = F.normalize(embeddings.double(), dim=1)
    total = points.new_zeros(())
    for part in points.split(_ROWS):
        total += (-2 * (2 - 2 * part @ points.T).clamp(min=0)).exp().sum()
    count = len(points)
    return float(((total - count) / (count * (count - 1))).log())
