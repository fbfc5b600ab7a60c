from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
import torch

from gauntlet.datasets import OPTIONS, DataSource, ImageSet, resolve
from gauntlet.registry import DATASETS, GauntletError, NotAvailable, select_one


@pytest.fixture
def mnist(source: DataSource, write_mnist) -> DataSource:
    """A source with 200 train and 50 test images in MNIST's files, of a time long past."""
    write_mnist(source, "MNIST", "train", 200)
    write_mnist(source, "MNIST", "t10k", 50)
    for path in (source.root / "MNIST/raw").iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return source


class TestTheSpellings:
    @pytest.mark.parametrize(
        ("spec", "label"),
        [
            ("digits", "digits"),
            ({"digits": {"hold_out": [0]}}, "digits hold_out=0"),
            ({"name": "digits", "only": ["3"], "label": "threes"}, "threes"),
            ({"name": "digits", "only": [3], "label": "digits"}, "digits"),
            ({"glyphs": {"count": 50, "limit": 10}}, "glyphs count=50 limit=10"),
        ],
    )
    def test_give_a_label_that_tells_parts_of_a_dataset_apart(self, source, spec, label):
        assert resolve(spec, source).label == label

    def test_a_selected_of_the_registry_is_taken(self, source):
        selected = select_one(DATASETS, {"glyphs": {"count": 20, "only": ["A"], "label": "As"}}, options=OPTIONS)
        resolved = resolve(selected, source)
        assert (resolved.label, resolved.parameters, resolved.options) == ("As", {"count": 20}, {"only": ["A"]})

    @pytest.mark.parametrize(
        ("spec", "problem"),
        [
            ("digit", "Unknown dataset 'digit'; did you mean 'digits'?"),
            ({"digits": {"hold_uot": [0]}}, "no parameter 'hold_uot'"),
            ({"digits": {"hold_out": ["ten"]}}, "Dataset 'digits' has no class 'ten'"),
            ({"glyphs": {"count": "many"}}, "parameter 'count' must be a whole number, got 'many'"),
        ],
    )
    def test_mistakes_are_one_sentence(self, source, spec, problem):
        with pytest.raises(GauntletError) as error:
            resolve(spec, source)
        assert problem in str(error.value)


class TestSplits:
    def test_digits_has_its_own_three(self, source):
        dataset = resolve("digits", source)
        assert dataset.splits == ("train", "val", "test")
        assert [len(dataset.load(split)) for split in dataset.splits] == [1077, 180, 540]

    def test_an_embedded_outlier_set_is_for_testing_only(self, source):
        assert resolve("glyphs", source).splits == ("test",)

    def test_val_is_a_tenth_of_train_with_its_class_shares(self, mnist):
        dataset = resolve("mnist", mnist)
        assert (len(dataset.load("train")), len(dataset.load("val"))) == (180, 20)
        assert set(Counter(dataset.load("val").labels.tolist()).values()) == {2}

    def test_train_and_val_are_the_train_files(self, mnist, write_mnist):
        images, _ = write_mnist(mnist, "MNIST", "train", 200)
        dataset = resolve("mnist", mnist)
        train, val = dataset.load("train"), dataset.load("val")
        indices = torch.cat([train.indices, val.indices])
        assert sorted(indices.tolist()) == list(range(200))
        assert np.array_equal(torch.cat([train.pixels, val.pixels])[:, 0].numpy(), images[indices.numpy()])

    @pytest.mark.parametrize("val", [0.2, 20])
    def test_val_takes_another_share(self, mnist, val):
        assert len(resolve({"mnist": {"val": val}}, mnist).load("val")) == 40

    def test_val_of_a_set_with_a_val_of_its_own_is_cut_from_both(self, source):
        dataset = resolve({"digits": {"val": 0.2}}, source)
        assert (len(dataset.load("train")), len(dataset.load("val"))) == (1006, 251)
        own = resolve("digits", source)
        pool = torch.cat([own.load("train").indices, own.load("val").indices])
        new = torch.cat([dataset.load("train").indices, dataset.load("val").indices])
        assert torch.equal(pool.sort().values, new.sort().values)

    def test_the_same_images_are_in_val_whatever_else_is_asked_for(self, mnist):
        everything = resolve("mnist", mnist).load("val")
        part = resolve({"mnist": {"hold_out": [0, 4], "shape": [3, 8, 8]}}, mnist).load("val")
        stays = (everything.labels != 0) & (everything.labels != 4)
        assert part.indices.tolist() == everything.indices[stays].tolist()
        limited = resolve({"mnist": {"limit": 5}}, mnist).load("val")
        assert set(limited.indices.tolist()) <= set(everything.indices.tolist())

    def test_a_split_that_a_set_does_not_have_is_an_error(self, source):
        dataset = resolve("glyphs", source)
        assert dataset.obstacle("train") == "Dataset 'glyphs' has no split 'train'; it has test."
        for use in (dataset.load, dataset.fingerprint):
            with pytest.raises(GauntletError, match="has no split 'train'; it has test"):
                use("train")

    def test_a_misspelt_split_is_an_error(self, source):
        with pytest.raises(GauntletError, match="no split 'tset'; did you mean 'test'"):
            resolve("digits", source).load("tset")

    def test_a_split_is_loaded_once(self, source):
        dataset = resolve("digits", source)
        assert dataset.load("test") is dataset.load("test")


class TestClasses:
    def test_held_out_classes_are_gone_and_the_rest_is_relabelled_with_names_kept(self, source):
        everything = resolve("digits", source).load("test")
        dataset = resolve({"digits": {"hold_out": [0, "5"]}}, source)
        part = dataset.load("test")
        assert dataset.classes == part.classes == ("1", "2", "3", "4", "6", "7", "8", "9")
        names = [everything.classes[label] for label in everything.labels]
        assert [part.classes[label] for label in part.labels] == [name for name in names if name not in "05"]

    def test_hold_out_and_only_share_out_the_images(self, source):
        total = len(resolve("digits", source).load("test"))
        inside = resolve({"digits": {"hold_out": [0, 1]}}, source).load("test")
        outside = resolve({"digits": {"only": [0, 1]}}, source).load("test")
        assert len(inside) + len(outside) == total
        assert not set(inside.indices.tolist()) & set(outside.indices.tolist())

    def test_every_class_that_stays_has_a_label_from_0_upwards(self, source):
        labels = resolve({"digits": {"only": [9, 2, 5]}}, source).load("train").labels
        assert labels.unique().tolist() == [0, 1, 2]

    def test_a_split_without_any_image_of_the_classes_is_an_error(self, source, write_mnist):
        write_mnist(source, "MNIST", "t10k", 6, labels=[1, 1, 1, 2, 2, 2])
        with pytest.raises(GauntletError, match=r"its test split has no images of 7\."):
            resolve({"mnist": {"only": [7]}}, source).load("test")


class TestLimit:
    def test_a_limit_is_a_fixed_part_of_each_split(self, source):
        whole = resolve("digits", source)
        small, large = (resolve({"digits": {"limit": limit}}, source).load("test") for limit in (30, 100))
        assert (len(small), len(large)) == (30, 100)
        assert set(small.indices.tolist()) < set(large.indices.tolist()) < set(whole.load("test").indices.tolist())

    def test_a_limit_above_the_size_changes_nothing(self, source):
        assert len(resolve({"digits": {"limit": 10_000}}, source).load("val")) == 180


class TestShape:
    def test_a_set_that_renders_any_shape_renders_that_of_the_id_set(self, source):
        dataset = resolve("uniform-noise", source, shape=(3, 16, 16))
        assert dataset.shape == dataset.load("test").shape == (3, 16, 16)
        assert dataset.conversion == dataset.load("test").conversion == ""
        assert dataset.parameters == {"shape": (3, 16, 16)}

    def test_a_shape_that_the_suite_gave_is_rendered_and_then_converted(self, source):
        dataset = resolve({"patches": {"shape": [3, 32, 32], "count": 4}}, source, shape=(1, 28, 28))
        assert dataset.shape == dataset.load("test").shape == (1, 28, 28)
        assert dataset.conversion == dataset.load("test").conversion == "3x32x32 -> 1x28x28: luma (ITU-R 601), bilinear"

    def test_other_sets_are_converted(self, source):
        dataset = resolve({"glyphs": {"count": 5}}, source, shape=(3, 32, 32))
        assert dataset.shape == dataset.load("test").shape == (3, 32, 32)
        assert (
            dataset.describe()["conversion"]
            == dataset.load("test").conversion
            == "1x28x28 -> 3x32x32: grey repeated, bilinear"
        )

    def test_the_option_converts_an_id_set(self, source):
        dataset = resolve({"digits": {"shape": [3, 20, 20]}}, source)
        assert dataset.shape == dataset.load("test").shape == (3, 20, 20)

    def test_the_shape_is_known_without_loading(self, source, monkeypatch):
        monkeypatch.setattr(ImageSet, "__post_init__", lambda self: pytest.fail("loaded"))
        assert resolve("mnist", source).shape == (1, 28, 28)
        assert resolve("fake", source).shape == (3, 32, 32)


class TestFingerprint:
    def test_it_is_the_same_in_another_object(self, mnist):
        assert resolve("mnist", mnist).fingerprint("test") == resolve("mnist", mnist).fingerprint("test")

    def test_it_loads_nothing(self, mnist, monkeypatch):
        monkeypatch.setattr(ImageSet, "__post_init__", lambda self: pytest.fail("loaded"))
        for spec in ("mnist", "digits", "glyphs", "fake"):
            assert len(resolve({spec: {"limit": 7}}, mnist).fingerprint("test")) == 32

    def test_it_reads_the_files_once(self, mnist, monkeypatch):
        before = resolve("mnist", mnist).fingerprint("test")
        monkeypatch.setattr("gauntlet.datasets.source._md5", lambda path: pytest.fail("read"))
        assert resolve("mnist", mnist).fingerprint("test") == before

    def test_it_does_not_depend_on_where_the_files_are(self, mnist, tmp_path):
        before = resolve("mnist", mnist).fingerprint("test")
        mnist.root.rename(tmp_path / "elsewhere")
        assert resolve("mnist", DataSource(tmp_path / "elsewhere", tmp_path / "none")).fingerprint("test") == before

    def test_it_changes_with_a_file_of_the_split_and_no_other(self, mnist, write_mnist):
        before = {split: resolve("mnist", mnist).fingerprint(split) for split in ("train", "val", "test")}
        write_mnist(mnist, "MNIST", "t10k", 50, labels=np.zeros(50))
        after = {split: resolve("mnist", mnist).fingerprint(split) for split in ("train", "val", "test")}
        assert {split for split in before if before[split] != after[split]} == {"test"}

    @pytest.mark.parametrize(
        "spec",
        [
            {"digits": {"hold_out": [0]}},
            {"digits": {"only": [0]}},
            {"digits": {"limit": 100}},
            {"digits": {"shape": [3, 28, 28]}},
            {"digits": {"shape": [1, 32, 32]}},
            "glyphs",
        ],
    )
    def test_options_that_give_other_images_change_it(self, source, spec):
        assert resolve(spec, source).fingerprint("test") != resolve("digits", source).fingerprint("test")

    @pytest.mark.parametrize("parameters", [{"count": 999}, {"seed": 1}, {"shape": [3, 28, 28]}])
    def test_parameters_change_it(self, source, parameters):
        changed = resolve({"patches": parameters}, source).fingerprint("test")
        assert changed != resolve("patches", source).fingerprint("test")

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"digits": {"hold_out": [0]}}, {"digits": {"hold_out": "0", "label": "no zeros"}}),
            ({"digits": {"only": [3, 4]}}, {"digits": {"only": ["4", "3"]}}),
            ({"digits": {"hold_out": [0]}}, {"digits": {"only": list(range(1, 10))}}),
            ("glyphs", {"glyphs": {"count": 1000, "seed": 0}}),
            ({"uniform-noise": {"shape": [1, 28, 28]}}, "uniform-noise"),
        ],
    )
    def test_two_ways_to_ask_for_the_same_images_have_the_same(self, source, one, other):
        assert resolve(one, source).fingerprint("test") == resolve(other, source).fingerprint("test")

    def test_val_decides_train_and_val_but_not_test(self, mnist):
        default, other = resolve("mnist", mnist), resolve({"mnist": {"val": 0.2}}, mnist)
        differ = {split for split in default.splits if default.fingerprint(split) != other.fingerprint(split)}
        assert differ == {"train", "val"}
        same = resolve({"mnist": {"val": 10}}, mnist)
        assert all(default.fingerprint(split) == same.fingerprint(split) for split in default.splits)

    def test_the_splits_differ(self, source):
        dataset = resolve("digits", source)
        assert len({dataset.fingerprint(split) for split in dataset.splits}) == 3

    def test_another_version_of_the_library_that_holds_the_content_is_another_content(self, source, monkeypatch):
        before = {
            name: resolve(name, source).fingerprint("test") for name in ("digits", "glyphs", "fake", "uniform-noise")
        }
        monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
        changed = {name for name, old in before.items() if resolve(name, source).fingerprint("test") != old}
        assert changed == {"digits", "glyphs", "fake"}


class TestWhatIsMissing:
    def test_absent_files_are_one_sentence_that_names_files_folder_and_way_out(self, source):
        folder = source.root / "MNIST" / "raw"
        assert resolve("mnist", source).obstacle("test") == (
            f"Dataset 'mnist' (test) needs t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz in {folder}: put them "
            "there, or pass --download to let torchvision fetch them."
        )

    def test_only_what_is_absent_is_named(self, mnist):
        (mnist.root / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
        sentence = resolve("mnist", mnist).obstacle("test")
        assert sentence is not None
        assert "labels" in sentence
        assert "images" not in sentence

    def test_val_is_missing_when_train_is(self, source, write_mnist):
        write_mnist(source, "MNIST", "t10k", 10)
        dataset = resolve("mnist", source)
        assert dataset.splits == ("test",)
        assert "train-images" in str(dataset.obstacle("val"))

    def test_loading_it_is_not_available(self, source):
        dataset = resolve("mnist", source)
        for use in (dataset.load, dataset.fingerprint):
            with pytest.raises(NotAvailable, match="--download"):
                use("test")

    def test_a_root_that_does_not_exist_is_no_other_case(self, tmp_path):
        assert resolve("mnist", DataSource(tmp_path / "none", tmp_path / "cache")).splits == ()

    def test_a_set_that_cannot_be_downloaded_does_not_promise_it(self, source):
        sentence = str(resolve("notmnist", source).obstacle("test"))
        assert "--download" not in sentence
        assert "notMNIST_small" in sentence

    def test_present_files_are_not_missing(self, mnist):
        assert resolve("mnist", mnist).obstacle("test") == ""


class TestDownloads:
    @pytest.fixture
    def allowed(self, source: DataSource) -> DataSource:
        return DataSource(source.root, source.cache, download=True)

    @pytest.fixture
    def torchvision_download(self, monkeypatch, write_mnist) -> list[tuple]:
        """Stands in for torchvision's download: leaves files as it would."""
        calls: list[tuple] = []

        def fetch(root, train, download):
            calls.append((train, download))
            write_mnist(DataSource(root, root), "MNIST", "train" if train else "t10k", 30, suffix="")

        monkeypatch.setattr("torchvision.datasets.MNIST", fetch)
        return calls

    def test_absent_files_are_fetched_once_and_then_read(self, allowed, torchvision_download):
        dataset = resolve("mnist", allowed)
        assert len(dataset.load("test")) == 30
        assert len(resolve("mnist", allowed).load("test")) == 30
        assert torchvision_download == [(False, True)]

    def test_without_leave_nothing_is_fetched(self, source, torchvision_download):
        assert resolve("mnist", source).splits == ()
        assert torchvision_download == []

    def test_a_failed_download_is_tried_once_and_is_one_sentence(self, allowed, monkeypatch):
        calls = []

        def fail(*_, **__):
            calls.append(1)
            raise OSError("<urlopen error no network>")

        monkeypatch.setattr("torchvision.datasets.MNIST", fail)
        dataset = resolve("mnist", allowed)
        for _ in range(2):
            sentence = str(dataset.obstacle("test"))
            assert sentence.endswith("and the download failed: <urlopen error no network>.")
        assert len(calls) == 1
