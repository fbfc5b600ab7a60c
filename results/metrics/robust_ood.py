"""OOD detection when somebody works against the detector: its score is attacked within a ball."""

from __future__ import annotations

from functools import partial

from . import register
from .detection import auroc, fpr95
from .outcomes import share

_attacked = partial(register, stored=(), interval="bootstrap")
_attacked(
    "adaptive_auroc",
    "AUROC, both attacked",
    "AUROC where OOD images were made to look ID and ID images to look OOD: the worst case (Meinke, Hein 2020, "
    "arXiv 1909.12180).",
    kernel=auroc,
)
_attacked("ood_attacked_auroc", "AUROC, OOD attacked", "AUROC where OOD images were made to look ID.", kernel=auroc)
_attacked("id_attacked_auroc", "AUROC, ID attacked", "AUROC where ID images were made to look OOD.", kernel=auroc)
_attacked(
    "adaptive_fpr95",
    "FPR95, both attacked",
    "FPR95 where OOD images were made to look ID and ID images to look OOD.",
    kernel=fpr95,
    higher_is_better=False,
)
share(
    "accepted_and_wrong",
    "Accepted and wrong",
    "Share of ID images that an attack on classifier and detector together makes, or that are as they come, classified "
    "wrong and accepted at the threshold that keeps 95 % of the ID images.",
    higher_is_better=False,
)
ADAPTIVE = ("adaptive_auroc", "ood_attacked_auroc", "id_attacked_auroc", "adaptive_fpr95")
