"""Nobody is measured on what they were trained on, under whatever name the images come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gauntlet.bench.runner import run_suite
from gauntlet.datasets import ImageSet
from gauntlet.datasets.imageset import content_hashes
from gauntlet.results import render
from gauntlet.results.frame import load_results
from gauntlet.results.presets import PRESETS

from .conftest import small_suite

RENAMED = '''
    import numpy as np
    from gauntlet import dataset
    from gauntlet.datasets.glyphs import glyphs

    @dataset("letters-of-mine", classes=list("ABCDEFGHIJ"))
    def letters(split):
        """The glyphs in another order, as floats."""
        images, labels = glyphs(count=100)
        return images[::-1].astype(np.float32) / 255, labels[::-1].copy()
'''


@pytest.mark.parametrize("evaluator", ["ood", "open-set"])
def test_ood_sets_that_were_outliers_of_the_training_are_left_out(tmp_path: Path, write_plugin: Any, evaluator: str):
    recipe = {"outlier-exposure": {"epochs": 1, "outliers": [{"glyphs": {"count": 100}}]}}
    suite = small_suite(
        models=[{"name": "cnn-small", "label": "OE", "recipe": recipe}, {"name": "cnn-small", "label": "plain"}],
        recipe={"standard": {"epochs": 1}},
        detectors=["msp"],
        ood=[{"glyphs": {"count": 100}}, "letters-of-mine", {"glyphs": {"count": 100, "seed": 1, "label": "others"}}],
        evaluators=[evaluator],
    )
    run_suite(suite, out=tmp_path / "out", plugins=[write_plugin(RENAMED)])
    frame = load_results(tmp_path / "out").drop_duplicates(["model", "ood_dataset"])
    found = frame.set_index(["model", "ood_dataset"])
    for name in ("glyphs count=100", "letters-of-mine"):
        assert found.loc[("OE", name), "status"] == "skipped"
        assert "100 of the 100 test images" in found.loc[("OE", name), "reason"]
        assert found.loc[("plain", name), "status"] == "ok"
    assert found.loc[("OE", "others"), "status"] == "ok"


def test_equal_pictures_have_equal_hashes_and_others_do_not() -> None:
    pixels = torch.randint(256, (50, 1, 4, 4), dtype=torch.uint8)
    first, second = (
        ImageSet(part, torch.zeros(50, dtype=torch.int64), ("a",), torch.arange(50), name, "test")
        for part, name in ((pixels, "a"), (pixels.flip(0).float() / 255, "b"))
    )
    assert np.array_equal(content_hashes(first), content_hashes(second)[::-1])
    assert len(set(content_hashes(first).tolist())) == 50


OVERLAP = '''
    import numpy as np
    from gauntlet import dataset
    from gauntlet.datasets.glyphs import glyphs

    @dataset("overlapping", classes=list("ABCDEFGHIJ"), splits=("train", "test"))
    def overlapping(split):
        """A tenth of the test images are training images, in another place and as floats."""
        images, labels = glyphs(count=200)
        kept = slice(0, 150) if split == "train" else slice(145, 195)
        return images[kept].astype(np.float32) / 255, labels[kept]
'''


@pytest.mark.parametrize("oracle", [False, True])
def test_test_images_that_trained_the_model_are_refused_unless_told(tmp_path: Path, write_plugin: Any, oracle: bool):
    suite = {
        "name": "leak", "datasets": ["overlapping"], "models": ["cnn-small"], "evaluators": ["accuracy", "ood"],
        "recipe": {"standard": {"epochs": 1}}, "detectors": ["knn"], "ood": ["uniform-noise"], "fit_limit": 60,
        **({"oracle": True} if oracle else {}),
    }  # fmt: skip
    run_suite(suite, out=tmp_path, plugins=[write_plugin(OVERLAP)])
    frame = load_results(tmp_path)
    said = "of the 50 test images of overlapping trained cnn-small (overlapping, train)"
    assert set(frame["status"]) == ({"ok"} if oracle else {"skipped"})
    assert frame["reason"].str.contains(said, regex=False).all()
    if oracle:
        for preset, fitted in (("ood", True), ("safety", False)):
            text = "\n".join(render(table) for table in PRESETS[preset](frame))
            assert said in text
            assert ("Fitted to 60 of the" in text) == fitted


def test_the_other_part_of_the_outliers_is_marked_in_every_table(make_exposed: pd.DataFrame):
    text = "\n".join(render(table) for preset in PRESETS.values() for table in preset(make_exposed))
    assert "glyphs: OE was trained on its test part." in text
    assert "plain was trained" not in text


@pytest.fixture
def make_exposed(tmp_path: Path) -> pd.DataFrame:
    recipe = {"outlier-exposure": {"epochs": 1, "outliers": [{"glyphs": {"count": 100}}]}}
    suite = small_suite(
        models=[{"name": "cnn-small", "label": "OE", "recipe": recipe}, {"name": "cnn-small", "label": "plain"}],
        recipe={"standard": {"epochs": 1}}, detectors=["msp"], ood=[{"glyphs": {"count": 100, "seed": 1}}],
        evaluators=["ood"],
    )  # fmt: skip
    run_suite(suite, out=tmp_path)
    return load_results(tmp_path)
