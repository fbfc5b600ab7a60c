"""A detector leaves the model exactly as it found it, in every gradient mode."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from gauntlet.detectors import build_detector, check_scores
from gauntlet.registry import DETECTORS

MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def state_of(model: torch.nn.Module) -> dict:
    """Everything about a model that a detector could change."""
    return {
        "tensors": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [parameter.grad for parameter in model.parameters()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), len(m._backward_pre_hooks))
            for m in model.modules()
        ],
    }


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("entry", [e for e in DETECTORS if e.plugin is None], ids=lambda entry: entry.name)
def test_detectors_leave_the_model_as_it_was(entry, mode, net, train, test):
    """Drawn from the registry; detectors whose needs this small network lacks are another test's business."""
    built = build_detector(entry, {"k": 5} if entry.has("k") else {})
    if any(test.get(need) is None for need in built.needs):
        pytest.skip("needs what this network does not yield")
    net.fc.bias.requires_grad_(False)  # a mixed state must survive too
    before = state_of(net)
    images_before = torch.cat(list(test.image_batches()))
    with MODES[mode]():
        if built.needs_fit:
            built.fit(train, test, test.head)
        check_scores(built.score(test), len(test), entry.name)
    after = state_of(net)
    tensors = after.pop("tensors")
    assert all(torch.equal(value, tensors[name]) for name, value in before.pop("tensors").items())
    assert before == after
    assert torch.equal(torch.cat(list(test.image_batches())), images_before)


def test_odin_scores_are_the_same_in_every_mode(test):
    found = []
    for mode in MODES.values():
        with mode():
            found.append(build_detector(DETECTORS.get("odin")).score(test).clone())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_odin_takes_images_that_are_inference_tensors(net):
    with torch.inference_mode():
        images = torch.rand(3, 1, 6, 6, dtype=torch.float64)
        assert images.is_inference()
        scores = DETECTORS.get("odin").factory(images, net)
    assert scores.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["msp", "max-logit", "energy", "entropy", "cross-entropy", "mahalanobis", "knn"])
def test_scores_on_a_gpu_are_those_on_the_cpu(name, train, test):
    from dataclasses import replace

    def on_gpu(outputs):
        return replace(
            outputs,
            labels=outputs.labels.cuda(),
            logits=outputs.logits.float().cuda(),
            features=outputs.features.float().cuda(),
        )

    found = []
    for move in (lambda o: o, on_gpu):
        built = build_detector(DETECTORS.get(name), {"k": 5} if name == "knn" else {})
        if built.needs_fit:
            built.fit(move(train), None, None)
        found.append(built.score(move(test)).cpu().double())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
