"""What a user's own dataset needs to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gauntlet.datasets import DataSource, ImageSet, resolve
from gauntlet.registry import DATASETS, GauntletError, NotAvailable, dataset, load_plugin

pytestmark = pytest.mark.usefixtures("temporary_registration")

MINIMAL = '''
"""The example of the package's docstring, complete."""
import numpy as np
from gauntlet import dataset

@dataset("my-letters")
def my_letters(split):
    """Letters that I scanned."""
    return np.zeros((6, 28, 28), dtype=np.uint8), [0, 1, 2, 0, 1, 2]
'''


def test_a_file_with_a_function_of_the_split_is_a_complete_plug_in(source, tmp_path):
    path = tmp_path / "letters.py"
    path.write_text(MINIMAL)
    try:
        load_plugin(str(path), [DATASETS])
        resolved = resolve({"my-letters": {"only": [2]}}, source)
        assert resolved.entry.summary == "Letters that I scanned."
        assert (resolved.splits, resolved.shape, resolved.classes) == (("test",), (1, 28, 28), ("2",))
        assert len(resolved.load("test")) == 2
        assert len(resolved.fingerprint("test")) == 32
    finally:
        DATASETS.remove_plugin(str(path.resolve()))


def test_the_fingerprint_follows_the_code(source, tmp_path):
    path = tmp_path / "letters.py"
    seen = set()
    for code in (MINIMAL, MINIMAL + "\n# a comment\n", MINIMAL.replace("zeros", "ones")):
        path.write_text(code)
        load_plugin(str(path), [DATASETS])
        seen.add(resolve("my-letters", source).fingerprint("test"))
    DATASETS.remove_plugin(str(path.resolve()))
    assert len(seen) == 2


def test_shape_and_classes_are_learned_with_one_load(source):
    calls = []

    @dataset("mine")
    def mine(split):
        calls.append(split)
        return np.zeros((2, 3, 5, 6)), [0, 3]

    resolved = resolve("mine", source)
    assert (resolved.shape, resolved.classes, len(resolved.load("test"))) == ((3, 5, 6), ("0", "1", "2", "3"), 2)
    assert resolved.shape == (3, 5, 6)
    assert calls == ["test"]


def test_declared_facts_save_the_load(source):
    @dataset("mine", classes=("a", "b"), shape=(1, 4, 4))
    def mine(split):
        pytest.fail("loaded")

    resolved = resolve({"mine": {"hold_out": ["a"]}}, source)
    assert (resolved.shape, resolved.classes) == ((1, 4, 4), ("b",))


def test_a_train_split_brings_a_val_split(source):
    @dataset("mine", splits=("train", "test"))
    def mine(split):
        return np.zeros((20, 4, 4)), np.arange(20) % 2

    resolved = resolve("mine", source)
    assert resolved.splits == ("train", "val", "test")
    assert [len(resolved.load(split)) for split in resolved.splits] == [18, 2, 20]


def test_a_smaller_test_split_without_the_last_class_keeps_all_class_names(source):
    @dataset("mine", splits=("train", "test"))
    def mine(split):
        return np.zeros((4, 4, 4)), [0, 1, 2, 2] if split == "train" else [0, 1, 0, 1]

    assert resolve("mine", source).load("test").classes == ("0", "1", "2")


def test_splits_with_different_classes_are_an_error(source):
    @dataset("mine", splits=("train", "test"))
    def mine(split):
        return np.zeros((2, 4, 4)), [0, 1], ["a", "b"] if split == "train" else ["b", "a"]

    with pytest.raises(GauntletError, match="test split has the classes b, a, expected a, b; declare `classes=`"):
        resolve("mine", source).load("test")


def test_images_without_labels_are_enough_for_an_outlier_set(source):
    @dataset("mine")
    def mine():
        return torch.rand(3, 1, 4, 4)

    assert resolve("mine", source, shape=(3, 8, 8)).load("test").labels.tolist() == [-1, -1, -1]


def test_it_may_return_an_image_set(source):
    @dataset("mine")
    def mine(split):
        return ImageSet(
            torch.rand(3, 1, 4, 4), torch.tensor([0, 1, -1]), ("x", "y"), torch.tensor([5, 6, 7]), "?", split
        )

    images = resolve({"mine": {"only": ["y"]}}, source).load("test")
    assert (images.name, images.classes, images.indices.tolist()) == ("mine", ("y",), [6])


def test_images_of_unknown_class_are_no_part_of_a_choice_of_classes(source):
    @dataset("mine")
    def mine():
        return torch.rand(3, 1, 4, 4), [0, 1, -1]

    assert resolve({"mine": {"hold_out": [0]}}, source).load("test").indices.tolist() == [1]


def test_files_tell_what_is_absent_and_when_it_changed(source: DataSource):
    @dataset("mine", files=lambda split, source, size: [source.root / f"{split}-{size}.npy"])
    def mine(split, source, *, size: int = 4):
        return np.load(source.root / f"{split}-{size}.npy", allow_pickle=False)

    assert resolve("mine", source).obstacle("test") == (
        f"Dataset 'mine' (test) needs test-4.npy in {source.root}: put them there."
    )
    with pytest.raises(NotAvailable, match=r"test-4\.npy"):
        _ = resolve("mine", source).shape
    prints = set()
    for value in (0.0, 1.0):
        np.save(source.root / "test-4.npy", np.full((2, 4, 4), value))
        prints.add(resolve("mine", source).fingerprint("test"))
    assert len(prints) == 2
    assert "test-5.npy" in str(resolve({"mine": {"size": 5}}, source).obstacle("test"))


def test_a_split_that_gauntlet_does_not_know_is_an_error_that_says_where(source):
    @dataset("mine", splits=("train", "valid"))
    def mine(split):
        return np.zeros((2, 4, 4))

    with pytest.raises(
        GauntletError, match=r"'mine' \(test_plugins.py:\d+\) declares the splits .* use train, val and"
    ):
        _ = resolve("mine", source).splits


def test_wrong_content_names_the_dataset(source):
    @dataset("mine")
    def mine(split):
        return np.full((2, 4, 4), 3.0)

    with pytest.raises(GauntletError, match=r"Dataset 'mine' \(test\): float images must be finite and in .0, 1."):
        resolve("mine", source).load("test")


class TestImagesWithoutALabel:
    """Label -1 is no error of the model: in-distribution sets are measured on the images that have a label."""

    @pytest.fixture
    def registered(self) -> None:
        @dataset("mine", splits=("train", "test"), classes=("a", "b"))
        def mine(split):
            return np.zeros((20, 4, 4)), np.arange(20) % 3 - 1

        @dataset("unlabelled", classes=("a", "b"))
        def unlabelled(split):
            return np.zeros((20, 4, 4)), np.full(20, -1)

    def test_they_are_left_out_and_counted(self, source, registered):
        with pytest.warns(UserWarning, match=r"'mine' \(test\): 7 of 20 images without a label left out"):
            found = resolve("mine", source, labelled=True).load("test")
        assert found.labels.min() == 0
        assert found.indices.tolist() == [index for index in range(20) if index % 3]
        assert found.conversion == "7 of 20 images without a label left out"

    def test_as_outliers_they_stay(self, source, registered):
        inside, outside = (resolve("mine", source, labelled=labelled) for labelled in (True, False))
        assert len(outside.load("test")) == 20
        with pytest.warns(UserWarning, match="left out"):
            assert inside.fingerprint("test") != outside.fingerprint("test")

    def test_a_set_without_any_label_stays_whole(self, source, registered):
        assert len(resolve("unlabelled", source, labelled=True).load("test")) == 20


@pytest.mark.parametrize("val", [0.1, 0.5, 0.9])
def test_every_class_keeps_an_image_to_train_on(source, val):
    @dataset("mine", splits=("train", "test"), classes=tuple("abcde"))
    def mine(split):
        return np.zeros((12, 4, 4)), [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4]

    resolved = resolve({"mine": {"val": val}}, source)
    train, own = resolved.load("train"), resolved.load("val")
    assert sorted(torch.cat([train.indices, own.indices]).tolist()) == list(range(12))
    assert set(train.labels.tolist()) == set(range(5))


def test_one_image_a_class_leaves_none_to_validate_on(source):
    @dataset("mine", splits=("train", "test"), classes=tuple("abcde"))
    def mine(split):
        return np.zeros((5, 4, 4)), range(5)

    resolved = resolve("mine", source)
    assert [len(resolved.load(split)) for split in ("train", "val")] == [5, 0]
