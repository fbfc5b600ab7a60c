"""The patch attack: one square changes, wherever it is asked for, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gauntlet.attacks import PerImageRNG, Victim
from gauntlet.registry import ATTACKS, GauntletError


def patched(model: nn.Module, data, *, epsilons=(1.0,), batch_size: int = 64, **parameters):
    images, labels = data
    with Victim(model, batch_size=batch_size) as victim:
        rng = PerImageRNG("k", torch.arange(len(images)))
        return ATTACKS.create("patch", **parameters).run(victim, images, labels, list(epsilons), rng=rng)


def extent(found: Tensor, images: Tensor) -> list[tuple[int, int, int, int]]:
    """First and last row and column that changed, of each image."""
    boxes = []
    for changed in (found != images).any(dim=1):
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        boxes.append((int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())))
    return boxes


@pytest.fixture(scope="module")
def some(correct) -> tuple[Tensor, Tensor]:
    return correct[0][:40], correct[1][:40]


@pytest.mark.parametrize(
    ("location", "box"),
    [
        ("top-left", (0, 2, 0, 2)),
        ("top-right", (0, 2, 5, 7)),
        ("bottom-left", (5, 7, 0, 2)),
        ("bottom-right", (5, 7, 5, 7)),
    ],
)
def test_only_the_square_in_its_corner_changes(trained, some, location, box) -> None:
    (result,) = patched(trained, some, share=0.15, location=location, steps=10)
    for top, bottom, left, right in extent(result.images, some[0]):
        assert box[0] <= top <= bottom <= box[1]
        assert box[2] <= left <= right <= box[3]


def test_random_places_differ_from_image_to_image_and_not_from_batch_to_batch(trained, some) -> None:
    (whole,), (parts,) = (patched(trained, some, share=0.15, steps=5, batch_size=size) for size in (64, 7))
    torch.testing.assert_close(whole.images, parts.images, rtol=0, atol=1e-6)
    boxes = extent(whole.images, some[0])
    assert len(set(boxes)) > 5
    assert all(bottom - top <= 2 and right - left <= 2 for top, bottom, left, right in boxes)


def test_larger_patches_and_more_restarts_fool_more(trained, some) -> None:
    small, large = (patched(trained, some, share=share, steps=30)[0].success for share in (0.05, 0.3))
    assert large.sum() > small.sum()
    (often,) = patched(trained, some, share=0.05, steps=30, restarts=4)
    assert not (small & ~often.success).any()
    assert often.success.sum() > small.sum()


def test_it_is_stronger_than_random_pixels_in_the_same_place(trained, some) -> None:
    noise, climbed = (patched(trained, some, share=0.15, location="centre", steps=n)[0].success for n in (1, 40))
    assert climbed.sum() > noise.sum()


def test_the_budget_is_of_no_account_but_at_zero(trained, some) -> None:
    zero, one, other = patched(trained, some, epsilons=(0.0, 0.1, 3.0), steps=5)
    assert torch.equal(zero.images, some[0])
    assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("parameters", [{"share": 0.0}, {"steps": 0}, {"stepsize": 0.0}, {"restarts": 0}])
def test_bad_parameters_are_one_sentence(parameters) -> None:
    with pytest.raises(GauntletError, match="patch needs 0 < share <= 1"):
        ATTACKS.create("patch", **parameters)
