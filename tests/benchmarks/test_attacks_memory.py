"""Memory of native attacks: bounded by the batch, not by the number of epsilons or images."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.benchmark_suite

#: A fresh process each: what one run has freed would hide what the next one takes.
SCRIPT = """
import resource, sys
import torch
from gauntlet.attacks import PerImageRNG, Victim
from gauntlet.registry import ATTACKS, MODELS

images, epsilons = int(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
model = MODELS.create("madry").eval()
x = torch.rand(images, 1, 28, 28)
budgets = [0.01 * (k + 1) for k in range(epsilons)]
with Victim(model, batch_size=32) as victim:
    y = victim.outputs(x).argmax(dim=1)
    attack = ATTACKS.create(sys.argv[3], **{"steps": 3})
    attack.run(victim, x, y, budgets, rng=PerImageRNG("k", torch.arange(images)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(images: int, epsilons: int, name: str) -> float:
    """Megabytes that the process had at most."""
    command = [sys.executable, "-c", SCRIPT, str(images), str(epsilons), name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "fmn"])
def test_sixteen_times_the_images_and_four_times_the_epsilons_take_little_more_than_what_they_return(name) -> None:
    """A pass over all 2,048 pairs at once would take about 600 MiB: 75,000 activations each, and their gradients."""
    small, large = peak(32, 1, name), peak(512, 4, name)
    returned = 512 * 4 * 28 * 28 * 4 / 2**20
    print(f"\n{name}: {small:.0f} MiB, {large:.0f} MiB with 64 times the pairs, whose images take {returned:.1f} MiB")
    assert large - small < 16 * returned
