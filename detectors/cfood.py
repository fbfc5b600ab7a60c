"""CF-OOD: among how near neighbours of how many training images an image is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .moments import unit_features
from .numerics import by_rows, double
from .outputs import Head, Outputs

#: Images that are taken where the share of them would be fewer, if there are as many.
_LEAST = 1000
#: Seed of the choice of images: part of the definition, so it never changes.
_SEED = 2_510


@detector(
    "cfood",
    needs="features",
    reference="Angiulli, Fassetti, Zupi 2025, SISAP, CF-OOD: Concentration-free density estimation for reliable "
    "out-of-distribution detection, as in OpenOOD",
    tags=("post-hoc", "features"),
    grid={"share": [0.1, 0.5, 1.0], "width": [0.001, 0.005, 0.01, 0.05]},
)
class CFOOD(Detector):
    """The least share s such that the image is among the nearest s of at least a share ``width`` of training images.

    Features have length 1, and s is one of 230 values from 0.001 to 0.99 (1 where the image is farther). The training
    images are a fixed random share of all. This is the method as its authors put it into OpenOOD; what the paper may
    say beyond that was not at hand.

    Args:
        share: Of training images that are compared with, in (0, 1]; at least 1,000 are where there are as many.
        width: Share of them that must have the image among their neighbours, in (0, 1].

    Raises:
        GauntletError: share or width is out of its range.
    """

    def __init__(self, share: float = 0.1, width: float = 0.01) -> None:
        if not (0 < share <= 1 and 0 < width <= 1):
            raise GauntletError(
                f"Detector 'cfood' needs share and width above 0 and at most 1, got {share:g} and {width:g}."
            )
        self.share, self.width = share, width
        self._reference: Tensor | None = None  # (n, D), of length 1
        self._reach: Tensor | None = None  # (n, levels): distances to its neighbours at each level, rising
        self._levels: Tensor | None = None  # (levels + 1,)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Measure how far training features (N, D) are from one another.

        Raises:
            GauntletError: There are fewer than two, or they are not finite.
        """
        features = self.projected_features(train).detach()
        if len(features) < 2:
            raise GauntletError(f"Detector {self.name!r} needs at least two training images, got {len(features)}.")
        count = max(min(len(features), _LEAST), int(self.share * len(features)))
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(_SEED))
        self._reference = unit_features(features[order[:count].sort().values.to(features.device)])
        levels, places = (part.to(features.device) for part in _levels(count))
        # The nearest of all is the image itself.
        self._reach = by_rows(lambda part: self._distances(part).sort(dim=1).values[:, places + 1], self._reference)
        self._levels = torch.cat([levels, levels.new_ones(1)])

    def score(self, outputs: Outputs) -> Tensor:
        """Scores in [0.001, 1], shape (N,), float64."""
        reference, reach = self.fitted(self._reference), self.fitted(self._reach)
        levels = double(self.fitted(self._levels))
        features = unit_features(self.projected_features(outputs, reference.shape[1]).detach())
        needed = max(1, -int(-self.width * len(reference) // 1))

        def level(part: Tensor) -> Tensor:
            reached = torch.searchsorted(reach, self._distances(part).T.contiguous())
            return levels[reached.kthvalue(needed, dim=0).values]

        return by_rows(level, features)

    def _distances(self, features: Tensor) -> Tensor:
        """Squared distances (N, n) to the images that are compared with, float64."""
        reference = self.fitted(self._reference)
        own, theirs = (double(part.square().sum(dim=1)) for part in (features, reference))  # 1, or 0 of a zero feature
        return own[:, None] + theirs - 2 * double(features @ reference.T)


def _levels(count: int) -> tuple[Tensor, Tensor]:
    """Shares of ``count`` images, and at which of the sorted others each ends; one share a place."""
    parts = ((0.001, 0.1, 100), (0.105, 0.5, 81), (0.51, 0.99, 49))
    shares = torch.from_numpy(np.concatenate([np.linspace(*part) for part in parts]))  # to numpy's last digit
    places = (shares * count - 1).to(torch.long)
    fresh = torch.cat([places.new_ones(1, dtype=torch.bool), places[1:] > places[:-1]])
    return shares[fresh], places[fresh]
