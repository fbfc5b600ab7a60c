"""Lists in OpenOOD's syntax, and tables, name the images of a set and their labels."""

from __future__ import annotations

import pytest

from gauntlet import GauntletError
from gauntlet.datasets.files.image_list import parse_list


@pytest.fixture
def pool(tmp_path, photograph, save):
    """Six images of one size in a folder with a blank in its name."""
    for number in range(6):
        save(tmp_path / "data" / "some images" / f"{number}.png", photograph(number, (8, 8)))
    return tmp_path


def written(path, text):
    """A file with a text."""
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_is_a_path_and_a_label(open_set, pool):
    """The path may hold blanks; -1 and nothing are unknown."""
    written(pool / "test.txt", "some images/0.png 2\nsome images/1.png -1\n\nsome images/2.png 0\n")
    made = open_set({"image-list": {"path": "test.txt", "root": "data"}})
    assert made.label == "test"
    assert made.load("test").labels.tolist() == [2, -1, 0]
    assert made.classes == ("0", "1", "2")


def test_a_label_may_stand_in_a_dictionary_which_is_never_run(open_set, pool):
    """As in OpenOOD's lists with soft labels."""
    line = "some images/{}.png {{'label': {}, 'soft_label': [0.5, 0.5]}}\n"
    written(pool / "test.txt", line.format(0, 1) + line.format(1, -1))
    assert open_set({"image-list": {"path": "test.txt", "root": "data"}}).load("test").labels.tolist() == [1, -1]
    written(pool / "bad.txt", "some images/0.png {'label': __import__('os').getpid()}\n")
    with pytest.raises(GauntletError, match=r"bad\.txt:1: expected a label"):
        open_set({"image-list": {"path": "bad.txt", "root": "data"}}).load("test")


def test_names_of_classes_are_labels(open_set, pool):
    """Numbered in their order, or in that of the classes given."""
    written(pool / "test.txt", "some images/0.png dog\nsome images/1.png cat\n")
    spec = {"path": "test.txt", "root": "data"}
    assert open_set({"image-list": spec}).load("test").labels.tolist() == [1, 0]
    assert open_set({"image-list": {**spec, "classes": ["dog", "cat"]}}).load("test").labels.tolist() == [0, 1]


def test_lists_of_splits_number_their_classes_alike(open_set, pool):
    """Also where one lacks a class."""
    written(pool / "train.txt", "".join(f"some images/{n}.png {'ab'[n % 2]}\n" for n in range(4)))
    written(pool / "test.txt", "some images/4.png b\nsome images/5.png b\n")
    made = open_set({"image-list": {"path": "test.txt", "train": "train.txt", "root": "data"}})
    assert made.load("test").labels.tolist() == [1, 1]
    assert made.declared_splits == ("train", "val", "test")


def test_several_roots_are_tried_in_order(open_set, pool, photograph, save):
    """As OpenOOD's two image folders."""
    save(pool / "more" / "x.png", photograph(9, (8, 8)))
    written(pool / "test.txt", "some images/0.png 0\nx.png 1\n")
    made = open_set({"image-list": {"path": "test.txt", "root": ["data", "more"]}})
    assert len(made.load("test")) == 2


def test_absent_files_are_counted_and_named(open_set, pool):
    """All absent says that the root is wrong."""
    written(pool / "test.txt", "".join(f"some images/{n}.png 0\n" for n in range(10)))
    with pytest.raises(GauntletError, match=r"4 of 10 files \(some images/6\.png, some images/7\.png, some images/8"):
        open_set({"image-list": {"path": "test.txt", "root": "data"}}).load("test")
    with pytest.raises(GauntletError, match=r"10 of 10 files.*is `root:` the folder where the paths start"):
        open_set({"image-list": {"path": "test.txt"}}).load("test")


def test_a_list_is_a_path_in_a_suite(open_set, pool):
    """Its images start beside it."""
    written(pool / "data" / "test.txt", "some images/0.png 0\nsome images/1.png 1\n")
    assert open_set(str(pool / "data" / "test.txt")).load("test").labels.tolist() == [0, 1]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_tables_name_their_columns(open_set, pool, sign):
    """The usual headings are found, whatever separates them, after a mark of the byte order too."""
    rows = [["filename", "size", "label"], *([f"some images/{n}.png", "9", "ab"[n % 2]] for n in range(4))]
    written(pool / "t.csv", "\ufeff" + "\n".join(sign.join(row) for row in rows))
    made = open_set({"csv": {"path": "t.csv", "root": "data"}}).load("test")
    assert made.labels.tolist() == [0, 1, 0, 1]
    assert made.classes == ("a", "b")


def test_a_column_may_say_the_split(open_set, pool):
    """One table for all."""
    rows = ["path,label,split", *(f"some images/{n}.png,{n % 2},{'train' if n < 4 else 'test'}" for n in range(6))]
    written(pool / "t.csv", "\n".join(rows))
    made = open_set({"csv": {"path": "t.csv", "root": "data", "split_column": "split"}})
    assert len(made.load("test")) == 2
    assert len(made.load("train")) + len(made.load("val")) == 4


@pytest.mark.parametrize(
    ("text", "more", "sentence"),
    [
        ("", {}, "has no rows"),
        ("a,b\n1,2\n", {}, "has the columns a, b: say which one with `path_column:`"),
        ("path,kind\nx.png,2\n", {}, "say which one with `label_column:`"),
        ("path,label\nx.png,2\n", {"label_column": "lable"}, "no column 'lable'; did you mean 'label'"),
        ("path,label\nsome images/0.png,1.5\n", {}, "labels must be whole numbers, got 1.5"),
        ("path,label,split\nsome images/0.png,1,later\n", {"split_column": "split"}, "must say train, val or test"),
    ],
)
def test_what_cannot_be_right_in_a_table_is_a_sentence(open_set, pool, text, more, sentence):
    """Before an image is opened."""
    written(pool / "t.csv", text)
    with pytest.raises(GauntletError, match=sentence):
        open_set({"csv": {"path": "t.csv", "root": "data", **more}}).load("test")


def test_an_empty_list_and_one_that_is_no_text_are_refused(tmp_path):
    """By name."""
    with pytest.raises(GauntletError, match="names no images"):
        parse_list(written(tmp_path / "a.txt", "\n"))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GauntletError, match="no text in UTF-8"):
        parse_list(tmp_path / "b.txt")
