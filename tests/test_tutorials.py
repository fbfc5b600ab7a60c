"""The tutorials, followed literally in an empty folder: their files written, their commands typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.S)
CONSOLE = re.compile(r"```console\n(.*?)```", re.S)
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))


def commands(page: str) -> list[str]:
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    return [line for block in CONSOLE.findall(text) for line in block.splitlines()]


def test_every_page_shows_files_and_commands():
    assert len(PAGES) >= 6
    for page in PAGES:
        assert FILE.findall((FOLDER / f"{page}.md").read_text(encoding="utf-8")), page
        assert all(line.startswith("gauntlet ") for line in commands(page)), page


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_it_works_as_it_stands(page: str, tmp_path: Path):
    for name, text in FILE.findall((FOLDER / f"{page}.md").read_text(encoding="utf-8")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    program = f"{sys.executable} -m gauntlet"
    environment = {**os.environ, "GAUNTLET_CACHE": str(tmp_path / "cache")}
    environment.pop("GAUNTLET_DATA", None)
    for line in commands(page):
        typed = re.sub(r"^gauntlet\b", program, line)
        done = subprocess.run(
            ["bash", "-c", typed], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
