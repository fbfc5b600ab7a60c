"""`standard`: supervised training with cross entropy."""

from __future__ import annotations

from ...registry import recipe
from .trainer import Trainer

#: Report R2 trains one to five epochs and gives no more; the rest is what An et al. use.
R2 = {"epochs": 5, "batch_size": 120, "schedule": "exponential"}
#: Report R1, configuration of the pre-training.
R1 = {"epochs": 200, "batch_size": 128, "lr": 1e-3}


@recipe(
    "standard",
    reference="Loshchilov & Hutter 2016, arXiv 1608.03983 (cosine); Kingma & Ba 2014, arXiv 1412.6980",
    profiles={
        "r1": R1,
        "r1-plus": {**R1, "epochs": 50},
        "r2": R2,
        "r4": {"epochs": 20, "batch_size": 128},
        "an-et-al": {
            "epochs": 150,
            "batch_size": 120,
            "schedule": "exponential",
            "decay": 0.98,
            "ema": 0.999,
            "augment": [{"rotation": {"degrees": 20.0}}, {"translation": {"share": 0.2}}],
        },
    },
)
class Standard(Trainer):
    """Cross entropy with Adam or SGD and a cosine schedule, watched on the validation split."""
