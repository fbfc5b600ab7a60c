"""`ensemble`: several classifiers that answer as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..registry import GauntletError, model
from .tap import Tap


@model(
    "ensemble",
    children="members",
    trained=True,
    tags=("composite",),
    reference="Lakshminarayanan, Pritzel, Blundell 2016, arXiv 1612.01474",
)
class Ensemble(nn.Module):
    """Classifiers trained apart and combined: mean of logits, mean of probabilities, or votes.

    With ``logit_mean`` the ensemble is one linear head over the concatenated features, so every detector that needs
    a head applies. ``prob_mean`` gives the logarithm of the mean probability. ``vote`` gives the logarithm of the
    share of votes (ties go to the larger mean probability); having no gradient of its own, it hands gradient attacks
    the gradient of the mean logits.

    Args:
        members: The modules to combine (in a suite: model specs; the default is the trio of report R2).
        combine: ``logit_mean``, ``prob_mean`` or ``vote``.

    Raises:
        GauntletError: There is no member, or one is no model.
    """

    def __init__(
        self,
        members: Sequence[Any] = ("m3", "m5", "m7"),
        *,
        combine: Literal["logit_mean", "prob_mean", "vote"] = "logit_mean",
    ) -> None:
        super().__init__()
        if len(members) == 0 or not all(isinstance(member, nn.Module) for member in members):
            raise GauntletError("An ensemble needs at least one member, each a model.")
        self.members = nn.ModuleList(members)
        self.combine = combine
        # Taps hold references, not parameters: kept out of the module tree.
        self.__dict__["_taps"] = None

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to combined logits (N, K)."""
        return self._combine(torch.stack([member(x) for member in self.members], dim=1))

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Combined logits, concatenated features (where all members have some) and ``members`` (N, M, K)."""
        outputs = [tap(x) for tap in self._member_taps(x)]
        members = torch.stack([output["logits"] for output in outputs], dim=1)
        result = {"logits": self._combine(members), "members": members}
        if all("features" in output for output in outputs):
            result["features"] = torch.cat([output["features"] for output in outputs], dim=1)
        return result

    def head(self) -> tuple[Tensor, Tensor] | None:
        """The one linear head that ``logit_mean`` amounts to; None before the first pass or without member heads."""
        heads = [tap.head for tap in self.__dict__["_taps"] or []]
        if self.combine != "logit_mean" or not heads or any(head is None for head in heads):
            return None
        weights, biases = zip(*[head for head in heads if head is not None], strict=True)
        return torch.cat(weights, dim=1) / len(heads), torch.stack(biases).mean(0)

    def _member_taps(self, x: Tensor) -> list[Tap]:
        taps = self.__dict__["_taps"]
        if taps is None:
            taps = self.__dict__["_taps"] = [Tap(member, x[:4]) for member in self.members]
        return taps

    def _combine(self, members: Tensor) -> Tensor:
        mean = members.mean(dim=1)
        if self.combine == "logit_mean":
            return mean
        log_mean = members.log_softmax(-1).logsumexp(1) - math.log(members.shape[1])
        if self.combine == "prob_mean":
            return log_mean
        classes = members.shape[-1]
        votes = nn.functional.one_hot(members.argmax(-1), classes).float().mean(1)
        # A thousandth of the mean probability decides ties and never outweighs a vote.
        voted = (votes + 1e-3 * log_mean.exp()).log()
        return mean + (voted - mean).detach()
