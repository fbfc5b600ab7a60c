"""What somebody holds in Python becomes something that a suite can name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from gauntlet import GauntletError
from gauntlet.datasets import DataSource, as_spec, resolve

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 9), dtype=np.uint8)
LABELS = np.arange(12) % 3


def opened(data, **more):
    """The test split of what a spec names."""
    return resolve(as_spec(data, **more), DataSource.default()).load("test")


class Photographs(Dataset):
    """Pillow images of several sizes with a label each."""

    classes = ("cat", "dog")

    def __len__(self):
        return 6

    def __getitem__(self, position):
        return Image.new("RGB", (30 + position, 20), (position, 0, 0)), position % 2


@pytest.mark.parametrize(
    "data",
    [
        (IMAGES, LABELS),
        (torch.from_numpy(IMAGES), torch.from_numpy(LABELS)),
        [IMAGES, LABELS.tolist()],
        (IMAGES, LABELS.astype(np.float32)),
        (IMAGES, np.eye(3)[LABELS]),
        {"test": (IMAGES, LABELS)},
        TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS)),
        TensorDataset(torch.from_numpy(IMAGES) / 255, torch.from_numpy(LABELS)),
    ],
    ids=["arrays", "tensors", "list", "float-labels", "one-hot", "splits", "tensor-dataset", "float-dataset"],
)
def test_arrays_tensors_and_datasets_are_the_same_set(data):
    """Pixels and labels are those given."""
    made = opened(data)
    assert torch.equal((made.images * 255).round().byte(), torch.from_numpy(IMAGES))
    assert made.labels.tolist() == LABELS.tolist()


def test_the_same_images_have_the_same_name_and_fingerprint():
    """So that what was computed for them is found again."""
    first, again = as_spec((IMAGES, LABELS)), as_spec((IMAGES.copy(), LABELS))
    assert first == again != as_spec((IMAGES, LABELS[::-1].copy()))
    source = DataSource.default()
    assert resolve(first, source).fingerprint("test") == resolve(again, source).fingerprint("test")


def test_pillow_images_of_several_sizes_become_photographs():
    """With the names of the classes that the Dataset has."""
    made = opened(Photographs())
    assert made.shape == (3, 224, 224)
    assert made.classes == ("cat", "dog")


def test_names_paths_and_specs_stay_specs(tmp_path):
    """A folder, a list, a table or a file of arrays by its path; a label where one is given."""
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    assert as_spec("digits") == "digits"
    assert as_spec({"digits": {"limit": 9}}) == {"digits": {"limit": 9}}
    assert as_spec(tmp_path / "a.npz") == {"npz": {"path": str(tmp_path / "a.npz")}}
    assert as_spec(str(tmp_path)) == {"image-folder": {"path": str(tmp_path)}}
    assert as_spec("digits", label="mine") == {"name": "digits", "label": "mine"}
    assert opened(tmp_path / "a.npz", label="mine").labels.tolist() == LABELS.tolist()


def test_what_is_not_there_or_no_data_is_a_sentence(tmp_path):
    """At once."""
    with pytest.raises(GauntletError, match="There is no file or folder"):
        as_spec(tmp_path / "absent")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(GauntletError, match="neither a folder of images nor a file"):
        as_spec(tmp_path / "a.docx")
    with pytest.raises(GauntletError, match="normalisation out of its transform"):
        as_spec(TensorDataset(torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)))
    with pytest.raises(GauntletError, match="has no items"):
        as_spec(TensorDataset(torch.zeros(0, 3, 8, 8)))
