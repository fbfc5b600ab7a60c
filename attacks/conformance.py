"""The conformance suite: what an attack does on models of which the right answer is known.

from gauntlet.attacks.conformance import assert_conforms

def test_my_attack():
    assert_conforms(MyAttack(steps=10))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..datasets.per_image_rng import PerImageRNG, seeded
from ..registry import ATTACKS, Entry, GauntletError
from .base import Attack, AttackResult
from .diagnostics import disagreement, lost_gradients
from .function import build_attack
from .known_models import Constant, KnownModel, Masked, Randomised, exact_distances, linear, trained
from .norms import check_ball
from .victim import Victim

#: A budget in each norm that any attack worth the name can use on 8 x 8 digits.
AMPLE = {"linf": 0.5, "l2": 3.0, "l1": 20.0, "l0": 20.0, "none": 1.0}

#: The largest value of each parameter for a quick look.
_FEW = {
    "steps": 20,
    "targets": 3,
    "trials": 3,
    "queries": 200,
    "repeats": 5,
    "restarts": 2,
    "directions": 20,
    "binary_search_steps": 3,
    "initial_gradient_eval_steps": 10,
    "max_gradient_eval_steps": 20,
    "lr_num_decay": 2,
}


@dataclass(frozen=True)
class Finding:
    """What was seen on one model.

    Attributes:
        model: ``linear``, ``constant``, ``masked``, ``randomised`` or ``trained``.
        passed: Whether it is as it must be.
        text: What was seen, in one sentence.
    """

    model: str
    passed: bool
    text: str


def few_steps(entry: Entry) -> dict[str, Any]:
    """Parameters that make an attack quick: steps, queries and repeats are cut down where they are larger.

    An entry registered with ``few={...}`` says more about itself.
    """
    defaults = entry.defaults()
    numbers = {name: defaults.get(name) for name in _FEW}
    cut = {name: _FEW[name] for name, value in numbers.items() if value is not None and value > _FEW[name]}
    return {**cut, **entry.meta.get("few", {})}


def verify(name: str, *, full: bool = False, **parameters: Any) -> list[Finding]:
    """Verify a registered attack; with ``full`` at its own settings, else with :func:`few_steps`.

    Raises:
        GauntletError: It is unknown or cannot work here.
    """
    quick = {} if full else few_steps(ATTACKS.get(name))
    return examine(build_attack(name, {**quick, **parameters}))


def assert_conforms(attack: Attack | str) -> None:
    """For the tests of a plug-in: fail with what was found if an attack does what no attack may.

    Args:
        attack: The attack, or the name of a registered one, which then takes few steps.
    """
    findings = verify(attack) if isinstance(attack, str) else examine(attack)
    wrong = [f"{finding.model}: {finding.text}" for finding in findings if not finding.passed]
    if wrong:
        raise AssertionError("\n".join(wrong))


def examine(attack: Attack) -> list[Finding]:
    """Run an attack on the linear, constant, masked, randomised and trained model; one finding each."""
    looks = {
        "linear": _linear,
        "constant": _constant,
        "masked": _masked,
        "randomised": _randomised,
        "trained": _trained,
    }
    findings = []
    for name, look in looks.items():
        try:
            passed, text = look(attack)
        except GauntletError as error:
            passed, text = False, f"It stopped: {error}"
        findings.append(Finding(name, passed, text))
    return findings


def _linear(attack: Attack) -> tuple[bool, str]:
    known = linear()
    if attack.norm == "none":
        (result,) = _run(attack, known, [1.0])
        return True, f"It fools {_percent(result)}; it has no budget to compare."
    exact = exact_distances(known, attack.norm)
    tight, ample = (float(value) for value in (exact.median(), 8 * exact.max()))
    if attack.norm == "l0":  # a whole number of pixels, and all of them
        tight, ample = float(int(tight)), 64.0
    small, large = _run(attack, known, [tight, ample])
    too_near = small.success & (exact > tight * 1.0001 + 1e-6)
    if large.smallest is not None:
        too_near |= large.smallest < exact * 0.999 - 1e-6
    if too_near.any():
        return (
            False,
            f"It claims success nearer than the exact distance for {int(too_near.sum())} of {len(exact)} images.",
        )
    said = f"It fools {_percent(large)} with ample budget and none nearer than the exact distance"
    if large.smallest is None or not large.smallest.isfinite().any():
        return True, f"{said}."
    ratio = float((large.smallest / exact)[large.smallest.isfinite()].median())
    return True, f"{said}; what it finds is {ratio:.3g} times as far (median)."


def _constant(attack: Attack) -> tuple[bool, str]:
    images = trained().images[:8]
    (result,) = _run(attack, KnownModel(Constant(), images, torch.full((8,), 3)), [AMPLE[attack.norm]])
    claimed = int(result.success.sum())
    if result.smallest is not None:
        claimed = max(claimed, int(result.smallest.isfinite().sum()))
    if claimed:
        return False, f"It claims success on {claimed} of 8 images, where nothing can succeed."
    return True, "Nothing succeeds, as it must be."


def _masked(attack: Attack) -> tuple[bool, str]:
    open_ = trained()
    masked = _right(Masked(open_.model), open_)
    (before,), (after,) = (_run(attack, known, [AMPLE[attack.norm]]) for known in (open_, masked))
    with Victim(masked.model) as victim:
        lost = lost_gradients(victim, masked.images, masked.labels)["cross entropy"]
    deceived = float(after.success.float().mean()) < float(before.success.float().mean()) - 0.1
    verdict = "the mask deceives it" if deceived else "the mask does not deceive it"
    flag = "the check of the gradients flags the model" if lost > 0.5 else "but no check flags the model"
    return lost > 0.5, (
        f"It fools {_percent(before)} without the mask and {_percent(after)} behind it ({verdict}); {flag}: "
        f"they are zero for {lost:.0%} of the images."
    )


def _randomised(attack: Attack) -> tuple[bool, str]:
    open_ = trained()
    with seeded(0, torch.device("cpu")):
        known = KnownModel(Randomised(open_.model), open_.images, open_.labels)
        (result,) = _run(attack, known, [AMPLE[attack.norm]])
        with Victim(known.model) as victim:
            again = victim.fooled(result.images, known.labels)
            _, change = disagreement(victim, known.images)
    stays = int((again & result.success).sum())
    flag = "flags the model" if change > 1e-4 else "does not flag the model"
    return change > 1e-4, (
        f"It fools {_percent(result)}; asked again, {stays} of those {int(result.success.sum())} still are; the check "
        f"for randomness {flag}."
    )


def _trained(attack: Attack) -> tuple[bool, str]:
    known = trained()
    zero, ample = _run(attack, known, [0.0, AMPLE[attack.norm]])
    if not torch.equal(zero.images, known.images) or zero.success.any():
        return False, "At epsilon 0 it changes images or claims success."
    with Victim(known.model) as victim:
        lies = int((ample.success & ~victim.fooled(ample.images, known.labels)).sum())
    if lies:
        return False, f"It claims {lies} successes on images that the model gets right."
    return True, f"It fools {_percent(ample)} at epsilon {ample.epsilon:g}; at epsilon 0 images come back unchanged."


def _run(attack: Attack, known: KnownModel, epsilons: Sequence[float]) -> list[AttackResult]:
    """The results, each checked to be finite, in the box and in its ball."""
    with Victim(known.model, surrogate=Victim(trained().model)) as victim:
        draws = PerImageRNG("conformance", torch.arange(len(known.images)))
        results = attack.run(victim, known.images, known.labels, epsilons, rng=draws)
    if len(results) != len(epsilons):
        raise GauntletError(f"it gave {len(results)} results for {len(epsilons)} epsilons.")
    for result in results:
        check_ball(result.images, known.images, attack.norm, result.epsilon)
    return results


def _right(model: torch.nn.Module, known: KnownModel) -> KnownModel:
    with torch.no_grad():
        right = model(known.images).argmax(dim=1) == known.labels
    return KnownModel(model, known.images[right], known.labels[right])


def _percent(result: AttackResult) -> str:
    return f"{float(result.success.float().mean()):.0%}"
