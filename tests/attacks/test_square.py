"""square: squares tried ahead change nothing but the time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from gauntlet.attacks import AttackResult, PerImageRNG, Victim, square
from gauntlet.registry import ATTACKS


class OneByOne(nn.Module):
    """A model that sees each image alone, so that rounding does not depend on the batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.inner(image[None]) for image in images])


@dataclass
class Search:
    """What a run found, what it asked, and the queries of every search, as (item, steps_done) in order of item."""

    results: list[AttackResult]
    asked: int
    queries: list[tuple[int, int]]


@pytest.fixture
def searched(trained, correct, monkeypatch):
    step, ended = square.Square._step, []

    def watched(self, batch, sides, restart, state):
        done = step(self, batch, sides, restart, state)
        assert (state.steps_done < self.queries).all()
        ended.extend(zip(state.item[done].tolist(), (state.steps_done[done] + 1).tolist(), strict=True))
        return done

    monkeypatch.setattr(square.Square, "_step", watched)

    def run(most: int, *, batch_size: int = 512, **parameters) -> Search:
        monkeypatch.setattr(square, "_MOST", most)
        ended.clear()
        with Victim(OneByOne(trained), batch_size=batch_size) as victim:
            results = ATTACKS.create("square", **parameters).run(
                victim, correct[0][:12], correct[1][:12], [0.05, 0.1], rng=PerImageRNG("k", torch.arange(12))
            )
            return Search(results, victim.forwards, sorted(ended))

    return run


@pytest.mark.parametrize("batch_size", [512, 40, 7])
@pytest.mark.parametrize("parameters", [{}, {"restarts": 2}, {"norm": "l2"}], ids=str)
def test_squares_tried_ahead_change_no_result(searched, batch_size, parameters) -> None:
    parameters = {"queries": 60, **parameters}
    one, ahead = searched(1, **parameters), searched(8, batch_size=batch_size, **parameters)
    for ours, theirs in zip(ahead.results, one.results, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.success, theirs.success)
    assert ahead.queries == one.queries
    assert max(taken for _, taken in ahead.queries) == 60
    assert one.asked <= ahead.asked < 1.5 * one.asked


def test_the_first_good_entry_of_each_group() -> None:
    group = torch.tensor([0, 0, 0, 2, 2, 5, 7, 7])
    good = torch.tensor([False, True, True, False, False, True, True, True])
    assert square._first(group, good).tolist() == [1, 5, 6]
    assert square._first(group, good & False).tolist() == []
