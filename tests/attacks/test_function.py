"""Attacks of one's own: a function is enough, and what it may get wrong is one sentence."""

from __future__ import annotations

import pytest
import torch

from gauntlet.attacks import PerImageRNG, Victim, build_attack
from gauntlet.attacks.conformance import assert_conforms
from gauntlet.registry import ATTACKS, GauntletError


@pytest.fixture
def registered():
    """Register for one test."""
    names = []

    def register(name, **facts):
        names.append(name)
        return ATTACKS.register(name, **facts)

    yield register
    for name in names:
        ATTACKS._entries.pop(name, None)


def run(name, model, data, epsilons, batch_size=512, **parameters):
    images, labels = data
    with Victim(model, batch_size=batch_size) as victim:
        draws = PerImageRNG("k", torch.arange(len(images)))
        return build_attack(name, parameters).run(victim, images, labels, epsilons, rng=draws)


def test_a_function_of_images_and_a_budget_is_an_attack(registered, trained, correct) -> None:
    @registered("my-sign", norm="linf")
    def my_sign(victim, images, labels, epsilon, *, share: float = 1.0):
        """One step along the sign of the gradient."""
        gradient, _ = victim.gradient(images, labels)
        return (images + share * epsilon * gradient.sign()).clamp(0, 1)

    ours = run("my-sign", trained, correct, [0, 0.1, 0.3])
    native = run("fgsm", trained, correct, [0, 0.1, 0.3])
    for own, other in zip(ours, native, strict=True):
        assert torch.equal(own.images, other.images)
        assert torch.equal(own.success, other.success)
        assert own.epsilon == other.epsilon
    assert [result.backwards for result in ours] == [0, len(correct[0]), len(correct[0])]
    smaller = run("my-sign", trained, correct, [0.3], share=0.5)[0]
    assert torch.allclose(smaller.images, run("fgsm", trained, correct, [0.15])[0].images)
    assert_conforms(build_attack("my-sign"))


def test_it_is_called_batch_by_batch_and_draws_belong_to_images(registered, trained, correct) -> None:
    sizes = []

    @registered("my-noise", norm="linf")
    def my_noise(images, epsilon, draws):
        """Uniform noise."""
        sizes.append(len(images))
        return (images + epsilon * (2 * draws.uniform(images.shape[1:], purpose="my-noise") - 1)).clamp(0, 1)

    (whole,) = run("my-noise", trained, correct, [0.2])
    sizes.clear()
    (split,) = run("my-noise", trained, correct, [0.2], batch_size=7)
    assert max(sizes) == 7
    assert torch.equal(whole.images, split.images)


def test_something_else_than_images_is_one_sentence(registered, trained, correct) -> None:
    @registered("my-none", norm="linf")
    def my_none(images):
        """Forgets to return."""

    with pytest.raises(GauntletError, match=r"^Attack 'my-none' must return images of shape .*, got NoneType\.$"):
        run("my-none", trained, correct, [0.1])


def test_a_class_that_is_no_attack_is_one_sentence(registered) -> None:
    @registered("my-class", norm="linf")
    class MyClass:
        """Does not derive from Attack."""

    with pytest.raises(
        GauntletError, match=r"does not derive from gauntlet\.attacks\.Attack: .* or register a function"
    ):
        build_attack("my-class")


def test_an_unknown_argument_is_one_sentence(registered) -> None:
    with pytest.raises(GauntletError, match="model"):

        @registered("my-model", norm="linf")
        def my_model(model, images):
            """Asks for the model."""


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_with_few_steps_crosses_the_ball_all_the_same(trained, correct, norm) -> None:
    """Its default step suits forty; with five it would end where it started."""
    epsilon = {"linf": 0.1, "l2": 1.0}[norm]
    single = run("fgsm", trained, correct, [epsilon], norm=norm)[0].success.sum()
    few = run("pgd", trained, correct, [epsilon], norm=norm, steps=5)[0].success.sum()
    assert few >= single
    assert build_attack("pgd", {"norm": norm, "steps": 5}).rel_stepsize == 0.8  # four epsilons in five steps
    assert (
        build_attack("pgd", {"norm": norm, "steps": 60}).rel_stepsize
        == build_attack("pgd", {"norm": norm}).rel_stepsize
    )
