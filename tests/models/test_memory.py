"""What training asks of the memory allocator."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from gauntlet.models.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()

def passes(count):
    for _ in range(count):
        blocks = [torch.ones(2**20) for _ in range(8)]  # eight times 4 MiB
passes(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_passes_reuse_the_memory_of_the_one_before():
    default = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    returned, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], env=default, capture_output=True, check=True).stdout)
        for how in ("returned", "kept")
    )
    assert kept < 0.2 * returned
