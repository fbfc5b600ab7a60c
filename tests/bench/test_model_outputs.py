"""Outputs on disk: kept, mapped, evicted, and never a reason to fail."""

from __future__ import annotations

import os

import pytest
import torch

from gauntlet.bench.model_outputs import OutputCache
from gauntlet.models import weights_fingerprint


@pytest.fixture
def cache(tmp_path) -> OutputCache:
    return OutputCache(tmp_path / "outputs")


def test_what_was_kept_is_found_again(cache):
    values = torch.randn(5, 3)
    cache.keep("key", {"logits": values, "output/odd name": values[:, 0]}, {"asked": ["logits"]})
    found = cache.load("key", ["logits", "output/odd name", "absent"])
    assert torch.equal(found["logits"], values)
    assert torch.equal(found["output/odd name"], values[:, 0])
    assert set(found) == {"logits", "output/odd name"}
    assert cache.facts("key") == {"asked": ["logits"]}


def test_nothing_is_known_of_another_key(cache):
    assert cache.facts("other") == {}
    assert cache.load("other", ["logits"]) == {}


def test_a_damaged_file_is_as_good_as_none(cache):
    cache.keep("key", {"logits": torch.zeros(2)}, {})
    (cache.folder / "key" / "logits.safetensors").write_bytes(b"damaged")
    (cache.folder / "key" / "facts.json").write_text("{", encoding="utf-8")
    assert cache.load("key", ["logits"]) == {}
    assert cache.facts("key") == {}


def test_what_was_used_least_recently_goes_first(tmp_path):
    cache = OutputCache(tmp_path, limit=10_000)
    for age, key in enumerate(["first", "second", "third"]):
        cache.keep(key, {"logits": torch.zeros(750)}, {})  # 3 kB
        os.utime(tmp_path / key, (age, age))
    cache.load("first", ["logits"])
    cache.keep("fourth", {"logits": torch.zeros(750)}, {})
    assert {path.name for path in tmp_path.iterdir()} == {"first", "third", "fourth"}


def test_what_would_fill_half_of_the_cache_is_not_kept(tmp_path):
    OutputCache(tmp_path / "outputs", limit=1000).keep("key", {"logits": torch.zeros(200)}, {})
    assert not (tmp_path / "outputs").exists()


def test_a_folder_that_cannot_be_made_costs_only_the_passes(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    cache = OutputCache(tmp_path / "file" / "outputs")
    cache.keep("key", {"logits": torch.zeros(2)}, {})
    assert cache.load("key", ["logits"]) == {}


def test_weights_have_one_fingerprint_wherever_they_came_from():
    torch.manual_seed(0)
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert weights_fingerprint(first) != weights_fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert weights_fingerprint(first) == weights_fingerprint(second)
    with torch.no_grad():
        second.bias[0] += 1e-7
    assert weights_fingerprint(first) != weights_fingerprint(second)
