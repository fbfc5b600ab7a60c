from __future__ import annotations

import pytest
import torch
from torch import nn

from gauntlet.attacks import Victim
from gauntlet.registry import GauntletError


@pytest.fixture
def mixed() -> nn.Module:
    """A module whose parts are in different modes, with one layer frozen by its owner."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.Flatten(), nn.Linear(16, 5))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


def state(model: nn.Module) -> list[object]:
    flags = [(part.training, len(list(part.children()))) for part in model.modules()]
    tensors = [(p.requires_grad, p.stride(), p.data_ptr(), p.device) for p in model.parameters()]
    return [flags, tensors, [(b.data_ptr(), b.stride()) for b in model.buffers()]]


def test_inside_the_module_is_in_eval_mode_and_frozen(mixed: nn.Module) -> None:
    with Victim(mixed):
        assert not any(part.training for part in mixed.modules())
        assert not any(parameter.requires_grad for parameter in mixed.parameters())


def test_on_exit_every_flag_and_layout_is_as_it_was(mixed: nn.Module) -> None:
    before = state(mixed)
    with Victim(mixed, memory_format=torch.channels_last) as victim:
        assert mixed[0].weight.is_contiguous(memory_format=torch.channels_last)
        victim.gradient(torch.rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
    assert state(mixed) == before
    assert all(parameter.grad is None for parameter in mixed.parameters())


def test_a_layer_of_one_channel_is_laid_out_channels_last_too() -> None:
    """Its strides fit both formats until they are set, and the convolution would take the slower one."""
    layer = nn.Conv2d(1, 10, 5)
    with Victim(nn.Sequential(layer, nn.Flatten())):
        assert layer.weight.stride() == (25, 1, 5, 1)
    assert layer.weight.stride() == (25, 25, 5, 1)


def test_the_module_is_restored_after_an_exception(mixed: nn.Module) -> None:
    before = state(mixed)
    with pytest.raises(KeyError), Victim(mixed):
        raise KeyError
    assert state(mixed) == before


def test_a_victim_outside_its_context_refuses_to_answer(mixed: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="with Victim"):
        Victim(mixed).logits(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("memory_format", [None, torch.contiguous_format, torch.channels_last])
def test_answers_equal_those_of_the_bare_module(trained, correct, memory_format) -> None:
    images, labels = correct[0][:50], correct[1][:50].roll(1)
    inputs = images.clone().requires_grad_()
    logits = trained(inputs)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), inputs)
    with Victim(trained, batch_size=16, memory_format=memory_format) as victim:
        torch.testing.assert_close(victim.logits(images), logits.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(victim.loss(images, labels), losses.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(victim.gradient(images, labels)[0], gradient, rtol=1e-4, atol=1e-5)
        assert torch.equal(victim.fooled(images, labels), logits.argmax(dim=1) != labels)
        assert not victim.logits(images).requires_grad


def test_queries_are_counted_in_images(trained, correct) -> None:
    images, labels = correct[0][:10], correct[1][:10]
    with Victim(trained, batch_size=4) as victim:
        victim.logits(images)
        assert (victim.forwards, victim.backwards) == (10, 0)
        victim.gradient(images, labels)
        assert (victim.forwards, victim.backwards) == (20, 10)
        victim.reset_counts()
        victim.module(images.clone().requires_grad_()).sum().backward()
        assert (victim.forwards, victim.backwards) == (10, 10)


def test_a_module_that_calls_view_falls_back_to_contiguous_images() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv(images).view(-1, 16)

    model, images = Views(), torch.rand(2, 3, 4, 4)
    with Victim(model, memory_format=torch.channels_last) as victim:
        torch.testing.assert_close(victim.logits(images), model(images))
        gradient, _ = victim.gradient(images, torch.tensor([0, 1]))
    assert gradient.isfinite().all()


def test_nan_logits_are_an_error_and_never_fooled(not_a_number) -> None:
    images, labels = torch.full((2, 1, 8, 8), 0.5), torch.tensor([3, 3])
    images[1] += 0.1
    with Victim(not_a_number) as victim:
        assert victim.logits(images[:1]).isfinite().all()
        with pytest.raises(GauntletError, match="NaN for 1 of 2 images"):
            victim.logits(images)
        assert not victim.fooled(images, labels).any()


def test_a_model_without_gradient_is_one_sentence() -> None:
    class Detached(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.detach().flatten(1)

    with Victim(Detached()) as victim, pytest.raises(GauntletError, match="No gradient of the model's loss"):
        victim.gradient(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))


def test_gradients_are_taken_under_no_grad_too(trained, correct) -> None:
    with torch.no_grad(), Victim(trained) as victim:
        assert victim.gradient(correct[0][:2], correct[1][:2])[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("answer", "found"),
    [(lambda x: (x, x), "tuple"), (lambda x: x, r"\(2, 1, 4, 4\)"), (lambda x: x.flatten(1)[:1], r"\(1, 16\)")],
)
def test_outputs_of_another_shape_are_an_error_that_names_it(answer, found) -> None:
    class Odd(nn.Module):
        def forward(self, images: torch.Tensor) -> object:
            return answer(images)

    with Victim(Odd()) as victim, pytest.raises(GauntletError, match=f"must map 2 images to logits.*{found}"):
        victim.logits(torch.rand(2, 1, 4, 4))
