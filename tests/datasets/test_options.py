from __future__ import annotations

import pytest

from gauntlet.datasets.options import Options
from gauntlet.registry import GauntletError

CLASSES = ("cat", "dog", "frog", "horse")


def kept(**values) -> tuple[int, ...]:
    return Options.parse(values, "pets").kept(CLASSES, "pets")


def test_without_options_every_class_stays():
    assert kept() == (0, 1, 2, 3)


@pytest.mark.parametrize("held_out", [["dog"], [1], "dog", 1])
def test_held_out_classes_go_by_name_or_index(held_out):
    assert kept(hold_out=held_out) == (0, 2, 3)


def test_only_keeps_the_original_order():
    assert kept(only=["horse", 0]) == (0, 3)


def test_hold_out_takes_away_from_only():
    assert kept(only=["cat", "dog"], hold_out=["dog"]) == (0,)


def test_a_class_whose_name_is_a_number_is_found_by_text():
    assert Options.parse({"only": ["7"]}, "odd").kept(("9", "7"), "odd") == (1,)


@pytest.mark.parametrize(("val", "share"), [(0.2, 0.2), (20, 0.2), (1, 0.01), ("5", 0.05), (99.5, 0.995)])
def test_val_is_a_share_or_a_percentage(val, share):
    assert Options.parse({"val": val}, "pets").val == pytest.approx(share)


def test_what_was_given_is_recorded_for_the_result_rows():
    values = {"only": "cat", "limit": 10.0, "val": 20, "shape": [1, 28, 28]}
    recorded = {"only": ["cat"], "limit": 10, "val": 0.2, "shape": [1, 28, 28]}
    assert Options.parse(values, "pets").recorded() == recorded
    assert Options.parse({"limit": None}, "pets").recorded() == {}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"hold_out": ["dgo"]}, "has no class 'dgo'; did you mean 'dog'?"),
        ({"only": ["zebra"]}, "has no class 'zebra'; known: cat, dog, frog, horse."),
        ({"only": [4]}, "has no class 4: indices go from 0 to 3."),
        ({"hold_out": [-1]}, "has no class -1"),
        ({"hold_out": [0, 1, 2, 3]}, "hold_out leaves no class"),
        ({"only": [0], "hold_out": [0]}, "hold_out leaves no class"),
        ({"only": []}, "only must name at least one class, got an empty list"),
        ({"only": [True]}, "only must be a list of class names or indices, got [True]"),
        ({"hold_out": {"cat": 1}}, "hold_out must be a list of class names or indices"),
        ({"limit": 0}, "limit must be at least 1 image, got 0"),
        ({"limit": 2.5}, "limit must be a whole number, got 2.5"),
        ({"val": 0}, "val must be a share above 0 and below 1, or a percentage from 1 to below 100, got 0"),
        ({"val": 100}, "val must be a share"),
        ({"val": -0.1}, "val must be a share"),
        ({"val": float("nan")}, "val must be a share"),
        ({"val": True}, "val must be a number, got True"),
        ({"shape": [28, 28]}, "shape must be a list of 3 values"),
        ({"shape": [2, 28, 28]}, "shape must be [C, H, W] with C = 1 or 3"),
        ({"shape": [1, 0, 28]}, "shape must be [C, H, W]"),
        ({"holdout": [1]}, "has no option 'holdout'; did you mean 'hold_out'?"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_dataset_and_option(values, problem):
    with pytest.raises(GauntletError) as error:
        kept(**values)
    assert problem in str(error.value)
    assert str(error.value).startswith("Dataset 'pets'")
    assert "\n" not in str(error.value)


def test_a_set_without_classes_cannot_be_cut_by_class():
    with pytest.raises(GauntletError, match="has no classes to choose from, got 0"):
        Options.parse({"only": [0]}, "noise").kept((), "noise")
