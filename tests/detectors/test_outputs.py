from __future__ import annotations

import pytest
import torch

from gauntlet.detectors import Head, Outputs, random_projection


@pytest.fixture
def outputs() -> Outputs:
    n = 10
    images = torch.arange(n, dtype=torch.float32).reshape(n, 1, 1, 1)
    return Outputs(
        labels=torch.arange(n),
        logits=torch.arange(n)[:, None] * torch.ones(1, 3),
        features=torch.arange(n)[:, None] * torch.ones(1, 5),
        named={"members": torch.arange(n)[:, None, None] * torch.ones(1, 2, 3)},
        head=Head(torch.ones(3, 5), torch.zeros(3)),
        image_batches=lambda: iter(images.split(4)),
    )


def _seen(outputs: Outputs) -> list[int]:
    assert outputs.image_batches is not None
    return torch.cat(list(outputs.image_batches())).flatten().int().tolist()


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (slice(2, 9, 3), [2, 5, 8]),
        ([9, 0, 4, 4], [9, 0, 4, 4]),
        (torch.tensor([0, 9]), [0, 9]),
        (torch.arange(10) % 2 == 1, [1, 3, 5, 7, 9]),
        ([-1], [9]),
        ([], []),
    ],
)
def test_a_subset_keeps_everything_aligned_to_the_chosen_images(outputs, positions, expected):
    part = outputs.subset(positions if not isinstance(positions, list) else torch.tensor(positions, dtype=torch.long))
    assert len(part) == len(expected)
    assert part.labels.tolist() == expected
    assert part.logits[:, 0].int().tolist() == expected
    assert part.features[:, 0].int().tolist() == expected
    assert part.named["members"][:, 0, 0].int().tolist() == expected
    assert part.head is outputs.head
    assert (_seen(part) if expected else list(part.image_batches())) == expected


def test_a_subset_can_be_read_twice_and_leaves_the_whole_as_it_was(outputs):
    part = outputs.subset(torch.tensor([7, 3]))
    assert _seen(part) == _seen(part) == [7, 3]
    assert _seen(outputs) == list(range(10))


def test_a_subset_of_a_subset_is_counted_within_it(outputs):
    assert _seen(outputs.subset(slice(5, 10)).subset(torch.tensor([4, 1]))) == [9, 6]


def test_absent_outputs_stay_absent_in_a_subset():
    part = Outputs(labels=torch.arange(3)).subset([0])
    assert part.logits is part.features is part.projected is part.image_batches is part.model is None


def test_a_need_is_found_by_its_name(outputs):
    assert outputs.get("logits") is outputs.logits
    assert outputs.get("images") is outputs.image_batches
    assert outputs.get("members") is outputs.named["members"]
    assert outputs.get("output:members") is outputs.named["members"]
    assert outputs.get("output:nothing") is None
    assert outputs.get("model") is None


def test_compact_features_are_the_projected_ones_where_there_are_any(outputs):
    assert outputs.projected_features is outputs.features
    outputs.projected = torch.zeros(10, 2)
    assert outputs.projected_features is outputs.projected
    assert outputs.subset([1, 2]).projected_features.shape == (2, 2)


def test_the_random_projection_is_fixed_and_does_not_touch_the_global_stream():
    torch.manual_seed(3)
    first = random_projection(64, 16, "cpu")
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(first, random_projection(64, 16, "cpu"))
    assert first.shape == (64, 16)


def test_the_random_projection_keeps_lengths_on_average():
    vectors = torch.randn(200, 512, generator=torch.Generator().manual_seed(0))
    ratio = (vectors @ random_projection(512, 2048, "cpu")).norm(dim=1) / vectors.norm(dim=1)
    assert abs(float(ratio.mean()) - 1) < 0.01
    assert float(ratio.std()) < 0.03
