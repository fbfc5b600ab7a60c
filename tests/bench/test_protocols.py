"""One line of a suite is a protocol of the field, with exactly the images of the published lists."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gauntlet import GauntletError
from gauntlet.bench.plan import make_plan
from gauntlet.bench.protocols import known, protocol
from gauntlet.bench.suite import load_suite
from gauntlet.datasets import DataSource, resolve
from gauntlet.datasets.files.openood import known_lists

OPENOOD = [name for name in known() if name.startswith("openood/")]


def sets_of(given):
    """All data sets that a protocol gives."""
    return [*given["datasets"], *given["ood"]["near"], *given["ood"]["far"], *given.get("shifted", [])]


@pytest.fixture
def generated(tmp_path):
    """Makes lists and images for a protocol: six a list, of two classes where it has labels, in several sizes."""
    rng = np.random.default_rng(0)

    def make(given):
        for spec in sets_of(given):
            for key in ("list", "train", "val"):
                if key in spec:
                    _write(tmp_path, spec[key], spec in given["datasets"] or spec in given.get("shifted", []), rng)
        return DataSource(tmp_path, tmp_path / "cache")

    return make


def _write(root, name, labelled, rng):
    lines, folder = [], root / "images_classic" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        size = (40 + number, 36, 3) if "imagenet" not in name else (260, 240 + number, 3)
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(folder / f"{number}.jpg")
        lines.append(f"{name}/{number}.jpg {number % 2 if labelled else -1}\n")
    path = root / "benchmark_imglist" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))


@pytest.mark.parametrize("name", OPENOOD)
def test_every_openood_protocol_is_planned_and_its_images_are_read(name, generated):
    """On generated files: ID, near, far and shifted sets, in the shape of OpenOOD's preprocessing."""
    given = protocol(name, verify=False)
    source = generated(given)
    suite = load_suite(
        {
            "protocol": {"name": name, "verify": False},
            "models": [{"name": "torchvision/resnet18", "pretrained": False}],
            "detectors": ["msp"],
            "recipe": "standard",
            "evaluators": ["ood"] if "imagenet" in name else ["accuracy", "ood"],
        }
    )
    side = 224 if "imagenet" in name else 32
    for spec in sets_of(given):
        made = resolve(spec, source, shape=(3, side, side)).load("test")
        assert made.shape == (3, side, side)
        assert len(made) == 6
    if "imagenet" not in name:  # whose train lists are class folders
        rows = {cell.identity.ood_dataset for cell in make_plan(suite, source).cells}
        assert {spec["label"] for group in given["ood"].values() for spec in group} <= rows


def test_every_list_that_a_protocol_names_is_published():
    """Its hash is shipped; the train lists of ImageNet are whole folders, and none is named."""
    for name in OPENOOD:
        for spec in sets_of(protocol(name)):
            assert {f"{spec[key]}.txt" for key in ("list", "train", "val") if key in spec} <= set(known_lists())


def test_another_version_of_a_list_is_refused(generated):
    """Unless it is meant."""
    source = generated(protocol("openood/cifar10"))
    with pytest.raises(GauntletError, match=r"is not OpenOOD v1\.5's list: it has 6 lines where that has 9000"):
        resolve({"openood": {"list": "cifar10/test_cifar100"}}, source).load("test")
    assert len(resolve({"openood": {"list": "cifar10/test_cifar100", "verify": False}}, source).load("test")) == 6


def test_absent_lists_and_images_are_skipped_with_what_to_get(tmp_path):
    """Where OpenOOD's own script puts them."""
    made = resolve({"openood": {"list": "cifar10/test_svhn"}}, DataSource(tmp_path, tmp_path), shape=(3, 32, 32))
    assert "benchmark_imglist/cifar10/test_svhn.txt" in made.obstacle("test")


def test_a_protocol_gives_its_keys_alone():
    """What it gives is not given twice, and misspelt ones are told."""
    with pytest.raises(GauntletError, match="gives datasets: leave the key out"):
        load_suite({"protocol": "robustbench/cifar10/linf", "datasets": ["digits"], "models": ["resnet18"]})
    with pytest.raises(GauntletError, match="no protocol 'openood/cifar'; did you mean"):
        load_suite({"protocol": "openood/cifar", "models": ["resnet18"]})


def test_robustbench_is_autoattack_at_its_budgets():
    """On all test images."""
    suite = load_suite({"protocol": "robustbench/cifar10/linf", "models": ["resnet18"]})
    assert suite.budgets("linf") == (8 / 255,)
    assert suite.attack_images == 10_000
    assert load_suite({"protocol": "robustbench/cifar10/l2", "models": ["resnet18"]}).budgets("l2") == (0.5,)


@pytest.mark.parametrize("name", ["cifar10-c", "cifar100-c", "imagenet-c"])
def test_published_corruptions_are_shifted_sets(name):
    """Fifteen kinds at five severities."""
    assert len(protocol(name)["shifted"]) == 75
