from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from gauntlet.datasets import DataSource
from gauntlet.datasets import source as module
from gauntlet.registry import GauntletError


@pytest.fixture
def file(source: DataSource) -> Path:
    path = source.root / "data.bin"
    write(path, b"first")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to compute a sum."""
    read: list[Path] = []
    original = module._md5
    monkeypatch.setattr(module, "_md5", lambda path: read.append(path) or original(path))
    return read


def write(path: Path, content: bytes, *, time: int = 1_000_000_000) -> None:
    path.write_bytes(content)
    os.utime(path, (time, time))


def test_the_sum_is_md5(source, file):
    assert source.md5(file) == hashlib.md5(b"first").hexdigest()


def test_an_unchanged_file_is_read_once(source, file, reads):
    assert source.md5(file) == source.md5(file)
    assert reads == [file]


def test_another_object_with_the_same_cache_does_not_read_it_either(source, file, reads):
    source.md5(file)
    DataSource(source.root, source.cache).md5(file)
    assert reads == [file]


@pytest.mark.parametrize(("content", "time"), [(b"longer than before", 1_000_000_000), (b"other", 1_000_000_001)])
def test_another_size_or_time_is_another_version(source, file, content, time):
    source.md5(file)
    write(file, content, time=time)
    assert source.md5(file) == hashlib.md5(content).hexdigest()


def test_a_file_of_this_second_is_read_again_because_its_time_may_not_tell(source, reads):
    path = source.root / "new.bin"
    path.write_bytes(b"1234")
    before = source.md5(path)
    status = path.stat()
    path.write_bytes(b"5678")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert source.md5(path) != before


def test_many_files_are_written_to_the_cache_at_once(source, file):
    second = source.root / "second.bin"
    write(second, b"second")
    assert source.md5s([file, second, file]) == [hashlib.md5(x).hexdigest() for x in (b"first", b"second", b"first")]
    assert len(json.loads((source.cache / "md5.json").read_text())) == 2
    assert [path.name for path in source.cache.iterdir()] == ["md5.json"]


def test_a_cache_that_cannot_be_written_costs_only_time(source, file, reads):
    source.cache.write_text("a file where the folder should be")
    assert source.md5(file) == source.md5(file) == hashlib.md5(b"first").hexdigest()
    assert len(reads) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '"text"'])
def test_a_damaged_cache_is_ignored(source, file, content):
    source.cache.mkdir()
    (source.cache / "md5.json").write_text(content)
    assert source.md5(file) == hashlib.md5(b"first").hexdigest()


def test_a_folder_in_place_of_the_file_is_one_sentence(source):
    with pytest.raises(GauntletError, match=r"root cannot be read"):
        source.md5(source.root)


def test_either_is_the_first_that_exists_else_the_last(source, file):
    assert source.either("absent", "data.bin") == file
    assert source.either("absent", "gone") == source.root / "gone"


def test_the_home_folder_is_expanded():
    assert DataSource(Path("~/data"), Path("~/cache")).root == Path.home() / "data"
