"""Logits of minus infinity mask classes: scores are those of logits so low that softmax cannot tell, or a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gauntlet import GauntletError
from gauntlet.bench.fitted_detector import checked_scores
from gauntlet.detectors import Outputs, build_detector
from gauntlet.registry import DETECTORS

#: Detectors of logits alone that read more than the softmax: of a masked class they know nothing to say.
NO_SCORE = {"cross-entropy", "openmax", "fdbd"}
OTHERS = {"images", "gram-statistics"}
READERS = [e for e in DETECTORS if e.plugin is None and "logits" in e.needs and not OTHERS & set(e.needs)]


def masked(outputs: Outputs, floor: float) -> Outputs:
    """Classes whose logit is below that of the third are forbidden, but never the true or the largest one."""
    logits = outputs.logits
    keep = logits >= logits.topk(2, dim=1).values[:, 1:]
    keep = keep.scatter(1, outputs.labels[:, None], True)
    return replace(outputs, logits=torch.where(keep, logits, torch.full_like(logits, floor)))


@pytest.mark.parametrize("entry", READERS, ids=lambda entry: entry.name)
def test_scores_are_those_of_the_same_softmax_or_one_sentence(entry, train, test) -> None:
    def score(floor: float):
        detector = build_detector(entry, {"k": 5} if entry.has("k") else {})
        if detector.needs_fit:
            detector.fit(masked(train, floor), masked(train, floor), train.head)
        return checked_scores(detector, masked(test, floor), entry.name)

    if entry.name in NO_SCORE:
        with pytest.raises(GauntletError, match=rf"^Detector '{entry.name}' gave .* not finite"):
            score(-torch.inf)
    else:
        torch.testing.assert_close(score(-torch.inf), score(-1e7))


def test_an_image_of_which_all_classes_are_masked_is_none(test) -> None:
    logits = test.logits.clone()
    logits[3] = -torch.inf
    with pytest.raises(GauntletError, match=r"cannot score 1 of 40 images: their logits are not finite"):
        checked_scores(build_detector(DETECTORS.get("msp")), replace(test, logits=logits), "msp")
