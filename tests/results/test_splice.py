"""Generated parts of a text file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gauntlet.registry import GauntletError
from gauntlet.results.splice import splice

BEGIN, END = "<!-- gauntlet:ood -->", "<!-- /gauntlet:ood -->"


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    assert splice(path, "ood", "| new |") is True
    assert path.read_text(encoding="utf-8") == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    assert splice(path, "ood", "| new |") is False


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(f"{BEGIN}\r\n{END}\r\n".encode())
    splice(path, "ood", "a\nb")
    assert path.read_bytes() == f"{BEGIN}\r\na\r\nb\r\n{END}\r\n".encode()


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_markers_that_do_not_fit_change_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(GauntletError, match=r"must hold <!-- gauntlet:ood --> and, after it"):
        splice(path, "ood", "x")
    assert path.read_text(encoding="utf-8") == text


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GauntletError, match=r"There is no file .*absent.md; it must hold <!-- gauntlet:ood -->"):
        splice(tmp_path / "absent.md", "ood", "x")
