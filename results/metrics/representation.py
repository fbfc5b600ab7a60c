"""What an embedding is worth: probes, clusters, retrieval and spread."""

from __future__ import annotations

from . import UNBOUNDED
from .outcomes import average, given, share

share(
    "probe_accuracy",
    "Linear probe",
    "Accuracy of a multinomial logistic regression on standardised frozen training embeddings, its L2 penalty "
    "chosen on the validation split (Kornblith, Shlens, Le 2018, arXiv 1805.08974).",
)
given(
    "purity",
    "Purity",
    "Share of images that have the most frequent class of their cluster, by k-means with as many clusters as "
    "classes on L2-normalised embeddings.",
)
given(
    "nmi",
    "NMI",
    "Mutual information of clusters and classes over the mean of their entropies (Strehl & Ghosh 2002).",
    percent=False,
)
given(
    "ari",
    "ARI",
    "Rand index of clusters against classes, corrected for chance (Hubert & Arabie 1985).",
    low=-0.5,
    percent=False,
)
given(
    "hungarian_accuracy",
    "Cluster accuracy",
    "Share of images classified correctly under the best one-to-one match of clusters and classes (Kuhn 1955).",
)
given(
    "silhouette",
    "Silhouette",
    "Mean over images of (b - a) / max(a, b): a the mean distance within its cluster, b to the nearest other one "
    "(Rousseeuw 1987).",
    low=-1.0,
    percent=False,
)
average(
    "mean_average_precision",
    "mAP",
    "Mean over random queries of the average precision of all other test images ranked by cosine.",
)
share(
    "near_duplicates",
    "Near-duplicates",
    "Share of queries with another test image of cosine above 0.999 in pixels, which retrieval leaves out.",
    higher_is_better=None,
)
average(
    "alignment",
    "Alignment",
    "Mean squared distance of the L2-normalised embeddings of two random views of an image (Wang & Isola 2020, "
    "arXiv 2005.10242).",
    higher_is_better=False,
    high=4.0,
    percent=False,
)
given(
    "uniformity",
    "Uniformity",
    "log of the mean over pairs of images of exp(-2 d^2), d the distance of their L2-normalised embeddings (Wang "
    "& Isola 2020, arXiv 2005.10242).",
    higher_is_better=False,
    low=-8.0,
    high=0.0,
    percent=False,
)
given(
    "effective_rank",
    "Effective rank",
    "Exponential of the entropy of the normalised singular values of the centred embeddings (Roy & Vetterli 2007).",
    higher_is_better=None,
    low=1.0,
    **UNBOUNDED,
)
given(
    "embedding_std",
    "Embedding std",
    "Mean over dimensions of the standard deviation of L2-normalised embeddings, times the root of their number: "
    "1 spread evenly over the sphere, 0 collapsed (Chen & He 2020, arXiv 2011.10566).",
    higher_is_better=None,
    percent=False,
)
for k in (1, 5, 20, 200):
    share(
        f"knn{k}_accuracy",
        f"kNN, k {k}",
        f"Accuracy of the vote of the {k} nearest training embeddings by cosine, weights exp(cosine / 0.07) "
        "(Wu, Xiong, Yu, Lin 2018, arXiv 1805.01978).",
    )
for k in (1, 5, 10):
    average(
        f"precision_at_{k}",
        f"Precision@{k}",
        f"Share of the {k} nearest other test images that have the query's class; mean over random queries.",
    )
for k in (1, 5):
    given(
        f"contrastive_top{k}",
        f"Contrastive top-{k}",
        f"Share of views whose partner is among the {k} most similar of the other 511 views of 256 test images.",
    )
