"""Files that are missing, altered, extra or damaged are named, and images that occur twice are found."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from gauntlet import GauntletError
from gauntlet.bench.cli_data import data
from gauntlet.datasets.audit import read_manifest


@pytest.fixture
def gauntlet_data(tmp_path, monkeypatch):
    """Run `gauntlet data` with an empty cache; gives exit status and output."""
    monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        result = CliRunner().invoke(data, list(map(str, arguments)))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


@pytest.fixture
def insects(tmp_path):
    """Train and test images of two classes, three each."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / "insects" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "insects"


def test_a_whole_set_is_described(gauntlet_data, insects):
    """Split by split."""
    status, text = gauntlet_data("check", insects)
    assert status == 0
    assert "ok    test: 6 images 3x8x8, 2 classes, 3 to 3 a class" in text


def test_damaged_files_are_named(gauntlet_data, insects):
    """With what is wrong."""
    (insects / "test" / "bee" / "1.png").write_bytes(b"no image")
    status, text = gauntlet_data("check", insects)
    assert status == 1
    assert "FAIL  test: " in text
    assert "1 of 6 files are damaged" in text


def test_missing_altered_and_extra_files_are_told_apart(gauntlet_data, insects, tmp_path):
    """From what was written down before."""
    saved = tmp_path / "insects.json"
    assert gauntlet_data("check", insects, "--save", saved)[0] == 0
    status, text = gauntlet_data("check", insects, "--against", saved)
    assert status == 0
    assert "all 12 files are as they were" in text
    (insects / "test" / "ant" / "0.png").unlink()
    shutil.copy(insects / "test" / "bee" / "0.png", insects / "test" / "bee" / "9.png")
    shutil.copy(insects / "test" / "bee" / "1.png", insects / "test" / "bee" / "2.png")
    status, text = gauntlet_data("check", insects, "--against", saved)
    assert status == 1
    for sentence in ("missing: test/ant/0.png", "extra: test/bee/9.png", "altered: test/bee/2.png"):
        assert f"1 files are {sentence}" in text


def test_images_in_two_splits_are_found_whatever_their_format(gauntlet_data, insects):
    """A PNG saved anew as BMP is the same image."""
    assert gauntlet_data("audit", insects) == (0, "No image occurs twice.\n")
    with Image.open(insects / "train" / "ant" / "1.png") as image:
        image.save(insects / "test" / "bee" / "copy.bmp")
    status, text = gauntlet_data("audit", insects)
    assert status == 1
    assert "images of insects (test) are in insects (train) too: bee/copy.bmp" in text or "(val) too" in text


def test_id_images_inside_an_ood_set_are_found(gauntlet_data, insects, tmp_path):
    """As the authors of NINCO found them in the usual sets."""
    (tmp_path / "far").mkdir()
    shutil.copy(insects / "test" / "ant" / "2.png", tmp_path / "far" / "x.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "far" / "y.png")
    status, text = gauntlet_data("audit", insects, "--ood", tmp_path / "far", "--ood", "digits")
    assert status == 1
    assert "1 of 2 images of far (test) are in insects (test) too: x.png" in text
    assert "digits" not in text


def test_what_was_not_written_down_here_is_refused(tmp_path):
    """A file of another kind."""
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(GauntletError, match="no list of files"):
        read_manifest(tmp_path / "x.json")
