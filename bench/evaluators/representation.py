"""What a model's embedding is worth without its classifier: probes, clusters, retrieval, collapse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...detectors import random_projection
from ...registry import GauntletError, Obstacle, digest, evaluator
from ...results.intervals import mean_interval
from ...results.records import CellResult, Measurement, PlannedCell
from ..jobs import Finished, Job, ModelRow, OODSet
from .base import Evaluator, examples_key, proportion, small

if TYPE_CHECKING:
    from ...datasets import ImageSet
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..suite import Suite

#: Random queries of retrieval, images of the map, and of one contrastive task.
QUERIES, MAP, TASK = 1000, 1000, 256
#: Pictures: how many queries, and neighbours of each.
SHOWN, NEAREST = 3, 5
_MAP_DIMENSIONS = 50


@evaluator(
    "representation",
    title="Representation",
    order=100,
    reads=("fit_limit", "feature_dim", "examples"),
    metrics=(
        *("probe_accuracy", "knn1_accuracy", "knn5_accuracy", "knn20_accuracy", "knn200_accuracy"),
        *("purity", "nmi", "ari", "hungarian_accuracy", "silhouette"),
        *("precision_at_1", "precision_at_5", "precision_at_10", "mean_average_precision", "near_duplicates"),
        *("embedding_std", "effective_rank", "uniformity", "alignment", "contrastive_top1", "contrastive_top5"),
    ),
    plots=("embedding-map", "neighbours"),
)
class Representation(Evaluator):
    """Judges the ``embedding`` of a model, or the features of a classifier, with everything frozen."""

    def obstacle(self, model: ModelSpec) -> Obstacle:
        """Models that declare neither an embedding nor logits, and those whose features are another model's."""
        if not {"embedding", "features", "logits"} & set(model.outputs):
            return f"it needs an embedding, and {model.label} yields {', '.join(model.outputs)}"
        if model.entry.meta.get("children") == "encoder":
            return f"its embedding is that of its encoder: name {model.members[0].label} as a model too"
        return ""

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[RepresentationJob]:
        """One cell a row; it reads all three splits."""
        splits = ("train", "val")
        absent = "" if row.obstacle else next(filter(None, map(row.dataset.obstacle, splits)), "")
        prints = [] if row.obstacle or absent else [row.dataset.fingerprint(split) for split in splits]
        limits = suite.fit_limit, suite.feature_dim
        cell = self.cell(row, *prints, *limits, *examples_key(suite), params={"feature_dim": limits[1]})
        obstacles = {cell.key: absent} if absent else {}
        return [RepresentationJob(evaluator=self.name, row=row, label=self.name, cells=(cell,), obstacles=obstacles)]


class RepresentationJob(Job):
    """Measures the embedding of the test split."""

    def needs(self, cells: Sequence[PlannedCell]) -> set[str]:
        """The embedding; of classifiers, the features."""
        return {"output:embedding", "features"} if cells else set()

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Measure everything on the test split; probes learn from the training split."""
        study = Study(self.row, context)
        found = [*study.probes(), *study.clusters(), *study.retrieval(), *study.sphere()]
        result = CellResult(measurements=tuple(found), arrays=study.arrays(), examples=study.examples())
        yield cells[0].key, result


@dataclass
class Study:
    """One model's embeddings and what is measured of them."""

    row: ModelRow
    context: RowContext

    def __post_init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    @cached_property
    def test(self) -> tuple[Tensor, Tensor]:
        """Embeddings (N, D) and labels (N,) of the test split."""
        return self._split("test")

    @cached_property
    def images(self) -> ImageSet:
        """The test images."""
        return self.context.images(self.row.dataset, "test")

    @cached_property
    def pixels(self) -> Tensor:
        """The test images as vectors (N, P)."""
        return torch.flatten(self.images.images, 1).to(self.context.device)

    def _split(self, split: str) -> tuple[Tensor, Tensor]:
        limit = self.context.fit_limit(self.test[0].shape[1]) if split == "train" else None
        outputs = self.context.outputs(self.row.dataset, split, limit=limit)
        found = outputs.named.get("embedding", outputs.projected_features)
        if found is None:
            raise GauntletError(f"Model {self.row.model.label!r} yields neither an embedding nor features.")
        if not bool(found.isfinite().all()):
            raise GauntletError(f"Model {self.row.model.label!r} gives embeddings that are not finite ({split}).")
        return found, outputs.labels

    # -- measures ---------------------------------------------------------------------------------------------

    def probes(self) -> Iterator[Measurement]:
        """Accuracy of a linear classifier and of nearest neighbours."""
        from ...models.training.logistic import fit_logistic
        from ..kernels_representation import knn_predictions

        (train, train_labels), (val, val_labels), (test, labels) = self._split("train"), self._split("val"), self.test
        classes = len(self.row.dataset.classes)
        numbers = [part.cpu().double().numpy() for part in (train, val, test)]
        truths = [part.cpu().numpy() for part in (train_labels, val_labels, labels)]
        fit = fit_logistic(numbers[0], truths[0], numbers[1], truths[1], classes=classes)
        right = fit.predict(numbers[2]) == truths[2]
        yield proportion("probe_accuracy", int(right.sum()), len(right))
        self._arrays |= {"label": small(labels), "probe_success": right}
        for k, predicted in knn_predictions(train, train_labels, test, classes=classes).items():
            right = (predicted == labels).cpu().numpy()
            yield proportion(f"knn{k}_accuracy", int(right.sum()), len(right))
            self._arrays[f"knn{k}_success"] = right

    def clusters(self) -> Iterator[Measurement]:
        """k-means with as many clusters as classes against the labels."""
        from ..kernels_representation import clustering_metrics, clusters, silhouette

        embeddings, labels = self.test[0].cpu().numpy(), self.test[1].cpu().numpy()
        cluster = clusters(embeddings, len(self.row.dataset.classes))
        self._arrays["cluster"] = cluster.astype("int16")
        figures = {**clustering_metrics(cluster, labels), "silhouette": silhouette(embeddings, cluster)}
        yield from (Measurement(name, value, n=len(labels)) for name, value in figures.items())

    def retrieval(self) -> Iterator[Measurement]:
        """Neighbours of random queries among all other test images."""
        from ..kernels_representation import retrieval

        ks = (1, 5, 10)
        found = retrieval(*self.test, self.pixels, self._queries(QUERIES), ks)
        for place, k in enumerate(ks):
            values = found.precision[:, place]
            yield Measurement(f"precision_at_{k}", float(values.mean()), *_bounded(values), len(values))
        values = found.average_precision[np.isfinite(found.average_precision)]
        yield Measurement("mean_average_precision", float(values.mean()), *_bounded(values), len(values))
        twins = found.duplicates > 0
        yield proportion("near_duplicates", int(twins.sum()), len(twins))

    def sphere(self) -> Iterator[Measurement]:
        """Spread of the embeddings, and how close two random views of one image stay."""
        from ...models.training.simclr import spread
        from ..kernels_representation import alignments, uniformity

        embeddings = self.test[0].cpu()
        std, rank = spread(embeddings)
        first, second, ranks = self._views()
        distances = alignments(first.cpu(), second.cpu()).numpy()
        count = len(embeddings)
        yield Measurement("embedding_std", std, n=count)
        yield Measurement("effective_rank", rank, n=count)
        yield Measurement("uniformity", uniformity(embeddings), n=count)
        yield Measurement("alignment", float(distances.mean()), *mean_interval(distances), len(distances))
        for k in (1, 5):
            yield Measurement(f"contrastive_top{k}", float((ranks < k).float().mean()), n=len(ranks))

    @torch.no_grad()
    def _views(self) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of two views of each test image, and the ranks of partners in tasks of 256 images."""
        from ...models.training.simclr import contrastive_ranks
        from ...models.training.view_policy import policy_for

        policy = policy_for(self.row.dataset.shape)
        tap = self.context.outputs(self.row.dataset, "test").tap
        seed = int(digest("views", self.row.seed, self.images.name)[:15], 16)
        rng = torch.Generator(self.context.device).manual_seed(seed)
        pairs: list[tuple[Tensor, Tensor]] = []
        for batch, _, _ in self.images.batches(TASK):
            images = batch.to(self.context.device)
            first, second = (self._embed(tap, policy(images, rng)) for _ in range(2))
            pairs.append((first, second))
        # All tasks are equally hard; a smaller one counts only where it is the only one.
        tasks = [pair for pair in pairs if len(pair[0]) == TASK] or pairs[:1]
        ranks = torch.cat([contrastive_ranks(*pair) for pair in tasks])
        first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
        return first, second, ranks

    def _embed(self, tap: Any, images: Tensor) -> Tensor:
        outputs = tap(images)
        if "embedding" in outputs:
            return outputs["embedding"]
        features, width = outputs["features"], self.test[0].shape[1]  # wide ones are projected, here as there
        wide = features.shape[1] != width
        return features @ random_projection(features.shape[1], width, features.device) if wide else features

    # -- what is kept -----------------------------------------------------------------------------------------

    def _queries(self, most: int) -> Tensor:
        """Positions of random test images that depend on the dataset alone; fewer are the first of more."""
        generator = torch.Generator().manual_seed(int(digest("queries", self.images.name)[:15], 16))
        return torch.randperm(len(self.test[1]), generator=generator)[:most].to(self.context.device)

    def arrays(self) -> dict[str, np.ndarray]:
        """Labels, clusters, successes, and the embeddings of some images, at most 50 principal components each."""
        chosen = self._queries(MAP)
        some = torch.nn.functional.normalize(self.test[0][chosen].cpu().double(), dim=1)
        centred = some - some.mean(0)
        if centred.shape[1] > _MAP_DIMENSIONS:
            _, _, axes = torch.linalg.svd(centred, full_matrices=False)
            centred = centred @ axes[:_MAP_DIMENSIONS].T
        kept = {"map": centred.float().cpu().numpy(), "map_label": small(self.test[1][chosen])}
        return self._arrays | kept | {"classes": np.array(self.row.dataset.classes)}

    def examples(self) -> dict[str, np.ndarray]:
        """A few queries with their nearest other test images, where the suite keeps examples."""
        from ..kernels_representation import ranking

        if not self.context.suite.examples:
            return {}
        queries = self._queries(SHOWN)
        order, similarity, _ = ranking(self.test[0], self.pixels, queries)
        order, similarity = order[:, :NEAREST], similarity[:, :NEAREST]
        near = self.images.subset(order.flatten().cpu()).images.float()
        return {
            "query": self.images.subset(queries.cpu()).images.float().cpu().numpy(),
            "query_label": small(self.test[1][queries]),
            "neighbour": near.reshape(*order.shape, *near.shape[1:]).cpu().numpy(),
            "neighbour_label": small(self.test[1][order]),
            "similarity": similarity.float().cpu().numpy(),
        }


def _bounded(values: np.ndarray) -> tuple[float, float]:
    low, high = mean_interval(values)
    return max(low, 0.0), min(high, 1.0)
