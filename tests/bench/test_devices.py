"""What only another device than the CPU shows: sets too large to live there, indices across devices, and TF32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gauntlet.attacks.foolbox_adapter import _StallGuard
from gauntlet.bench import device_images
from gauntlet.bench.context import Resources
from gauntlet.bench.runner import run_suite
from gauntlet.detectors import Outputs
from gauntlet.registry.folders import cache_folder

from .conftest import small_suite

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def tf32() -> Iterator[None]:
    """It is allowed, whatever was said before."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_cuda_does_not_round_to_tf32(device: str, tf32: None):
    """Nothing is asked of the device, so this runs without one; elsewhere the process is left as it was."""
    Resources(torch.device(device), cache_folder())
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert kept == ((True, True) if device == "cpu" else (False, False))


def test_patience_begins_on_any_device():
    """Before, the first images were compared with none on the CPU, which CUDA (and `meta`) refuses."""
    images = torch.zeros(2, 1, 4, 4, device="meta")
    assert _StallGuard(torch.nn.Flatten())(images).shape == (2, 16)


def test_patience_still_ends():
    patient, images = _StallGuard(torch.nn.Flatten(), patience=3), torch.zeros(2, 1, 4, 4)
    for _ in range(3):
        patient(images)
    with pytest.raises(ValueError, match="too small to change an image"):
        patient(images)


@needs_cuda
def test_a_mask_on_cuda_picks_outputs():
    outputs = Outputs(torch.arange(4).cuda(), torch.eye(4).cuda())
    assert outputs.subset(outputs.labels > 1).labels.tolist() == [2, 3]


@needs_cuda
def test_sets_that_stay_on_the_cpu_are_attacked_on_cuda(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_images, "_KEEP_ON_DEVICE", 0)
    evaluators = ["accuracy", "attack", "adversarial-detection", "checks"]
    suite = small_suite(evaluators=evaluators, checks="full", attack_images=20, ood=None)
    outcome = run_suite(suite, out=tmp_path, device="cuda")
    assert "failed" not in outcome.counts
