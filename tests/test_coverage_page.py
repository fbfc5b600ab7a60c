"""docs/coverage.md names only what is registered, and leaves out no detector or attack that stands on a board."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pytorch_ood import api
from pytorch_ood import detector as peer

from gauntlet.registry import REGISTRIES

PAGE = (Path(__file__).parents[1] / "docs" / "coverage.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
ENTRIES = [row for row in ROWS if row[1] != "here"]
#: What a column may name beside what is registered under that name.
REGISTERED = {entry.name for registry in REGISTRIES.values() for entry in registry}


@pytest.mark.parametrize("row", ENTRIES, ids=lambda row: row[0])
def test_a_row_names_what_is_registered_or_says_why_there_is_nothing(row: list[str]) -> None:
    _, here, remarks = row
    if here == "-":
        assert remarks
    else:
        named = re.findall(r"`([^`]+)`", here)
        assert named
        assert set(named) <= REGISTERED


def test_every_detector_of_pytorch_ood_has_a_row() -> None:
    exported = {name for name, kind in vars(peer).items() if isinstance(kind, type) and issubclass(kind, api.Detector)}
    told = {name.strip() for row in ENTRIES for name in row[0].split(",")}
    assert exported <= told


def test_every_native_attack_and_detector_of_the_lists_of_others_is_told() -> None:
    told = set(re.findall(r"`([a-z0-9/-]+)`", PAGE))
    own = {"constant", "random", "reconstruction", "discriminator", "euinet", "cross-entropy", "max-2-max", "doctor"}
    detectors = {entry.name for entry in REGISTRIES["detector"] if entry.plugin is None}
    assert detectors - told - own <= {"at-layer", "mc-disagreement"}
