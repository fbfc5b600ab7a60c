"""Checks that ask the model itself, on a few images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

from ...attacks import PerImageRNG, Victim, build_attack
from ...attacks.diagnostics import disagreement, lost_gradients, roughness
from ...attacks.inputs import output_kind
from ...registry import GauntletError
from .check_context import CheckContext, CheckResult, NotApplicable

_TRACE = 1e-4  # AutoAttack's threshold for changes of the logits
_LOST = 0.05


def deterministic(evidence: CheckContext) -> CheckResult:
    """2: five passes of the same images agree."""
    with evidence.victim() as victim:
        changed, largest = disagreement(victim, evidence.images[0])
        scale = float(victim.outputs(evidence.images[0]).abs().max())
    if changed or largest > _TRACE * max(scale, 1.0):
        text = f"over five passes {changed:.0%} of the predictions change, and logits by up to {largest:.2g}"
        return CheckResult(False, f"The model is random: {text}; attacks must average over it.", changed)
    return CheckResult(True, "Five passes of the same images agree.", changed)


def logits(evidence: CheckContext) -> CheckResult:
    """3: the outputs are logits and not probabilities, nor independent sigmoids."""
    outputs = evidence.context.outputs(evidence.row.dataset, "test").logits
    assert outputs is not None
    kind = output_kind(outputs)
    if kind in ("probabilities", "sigmoids"):
        what = "probabilities" if kind == "probabilities" else "values in [0, 1], as independent sigmoids do"
        return CheckResult(False, f"The model returns {what}: losses saturate on them; let it return logits.")
    return CheckResult(True, f"The outputs are {kind}, not probabilities.")


def varied_answers(evidence: CheckContext) -> CheckResult:
    """19, ours: the model does not give one answer to everything, which no attack could change."""
    outputs = evidence.context.outputs(evidence.row.dataset, "test")
    assert outputs.logits is not None
    given, due = outputs.logits.argmax(dim=1).bincount(), outputs.labels[outputs.labels >= 0].bincount()
    share, expected = float(given.max()) / int(given.sum()), float(due.max()) / int(due.sum())
    answer = evidence.row.dataset.classes[int(given.argmax())]
    if share - expected > 0.5:
        text = f"The model answers {answer!r} to {share:.0%} of the clean images"
        return CheckResult(
            False, f"{text}: it has learned nothing, and to be hard to fool is then no robustness.", share
        )
    return CheckResult(True, f"The most frequent answer, {answer!r}, goes to {share:.0%} of the clean images.", share)


def gradients(evidence: CheckContext) -> CheckResult:
    """4: the loss gradient exists and is not zero, for the cross entropy and for the margin."""
    with evidence.victim() as victim:
        try:
            lost = lost_gradients(victim, *evidence.images)
        except GauntletError as error:
            return CheckResult(False, str(error), 1.0)
    shares = ", ".join(f"of the {name} for {share:.0%}" for name, share in lost.items())
    worst = max(lost.values())
    if worst > _LOST:
        return CheckResult(False, f"The gradient vanishes ({shares} of the images): gradient attacks are blind.", worst)
    return CheckResult(True, f"The gradient is there (it vanishes {shares} of the images).", worst)


def finite_gradients(evidence: CheckContext) -> CheckResult:
    """20, ours: the gradient is a number at every pixel."""
    with evidence.victim() as victim:
        try:
            victim.gradient(*evidence.images)
        except GauntletError as error:
            raise NotApplicable(str(error)) from None
        entries, lost = victim.gradient_entries()
    share = lost / max(entries, 1)
    if lost:
        text = f"The gradient is NaN or infinite at {share:.1%} of the pixels, where it counts as 0"
        return CheckResult(share <= _LOST, f"{text}: gradient attacks do not see them.", share)
    return CheckResult(True, "The gradient is a number at every pixel.", share)


def chance_at_large_budget(evidence: CheckContext) -> CheckResult:
    """7: at Linf 0.5, where every image can become grey, no model is better than chance."""
    never = _never_fooled(evidence)
    labels = evidence.context.images(evidence.row.dataset, "test").subset(evidence.targets.positions).labels
    chance = max(1 / len(evidence.row.dataset.classes), float(labels.bincount().max()) / len(labels))
    with evidence.victim() as victim:
        try:
            fooled = evidence.attacked("pgd", 0.5, victim, steps=50, rel_stepsize=0.1)
        except GauntletError as error:
            return CheckResult(False, str(error))
    accuracy = float((~fooled).float().mean()) * float(evidence.targets.right.float().mean())
    text = f"PGD at Linf 0.5, where every image can become grey, leaves {accuracy:.0%} right (chance: {chance:.0%})"
    if accuracy > chance + _LOST:
        return CheckResult(False, f"{text}: it does not see the way.", accuracy)
    if never > _LOST:
        return CheckResult(
            False, f"No minimum-norm attack ever fools {never:.0%} of the images, whatever the distance.", never
        )
    return CheckResult(True, f"{text}.", accuracy)


def _never_fooled(evidence: CheckContext) -> float:
    """Share of images for which no white-box minimum-norm attack finds anything, at any distance."""
    found = [
        dict(zip(arrays["index"][arrays["attacked"]].tolist(), np.isfinite(arrays["smallest"]).tolist(), strict=True))
        for run in evidence.runs
        if run.kind == "minimum-norm" and run.gradient and run.sound
        for arrays in [run.result.arrays]
    ]
    common = set(found[0]).intersection(*found[1:]) if found else set()
    return float(np.mean([not any(one[i] for one in found) for i in common])) if common else 0.0


def clean_at_zero(evidence: CheckContext) -> CheckResult:
    """18: with no budget the attacked model is as accurate as the measured one."""
    row, context = evidence.row, evidence.context
    positions = evidence.targets.positions
    outputs = context.outputs(row.dataset, "test")
    assert outputs.logits is not None
    expected = outputs.logits[positions.to(outputs.logits.device)].argmax(dim=1)
    with evidence.victim() as victim:
        images = context.images(row.dataset, "test").subset(positions)
        found = victim.outputs(images.images.to(context.device)).argmax(dim=1)
    differ = int((found != expected.to(found.device)).sum())
    zero = [run for run in evidence.runs if run.epsilon == 0 and run.result.arrays["success"].any()]
    if differ or zero:
        who = f"{zero[0].label} succeeds at epsilon 0" if zero else f"{differ} of {len(found)} predictions differ"
        return CheckResult(False, f"The attacked model is not the measured one: {who}.", differ)
    return CheckResult(True, f"Without a budget all {len(found)} predictions are those of the clean accuracy.", 0.0)


def converged(evidence: CheckContext) -> CheckResult:
    """9: a path two and a half times as long, and three starts, change little."""
    with evidence.victim() as victim:
        once = evidence.attacked("pgd", evidence.epsilon, victim)
        longer = evidence.attacked("pgd", evidence.epsilon, victim, steps=100, rel_stepsize=0.1, restarts=3)
    before, after = (float((~fooled).float().mean()) for fooled in (once, longer))
    text = f"{before:.1%} on a path of 4 epsilons and {after:.1%} on three paths of 10"
    return CheckResult(before - after <= _LOST, f"PGD at Linf {evidence.epsilon:g} leaves {text}.", before - after)


def best_iterate(evidence: CheckContext) -> CheckResult:
    """10: what fooled the model on the way also does at the end."""
    with evidence.victim() as victim:
        kept = evidence.attacked("pgd", evidence.epsilon, victim)
        last = evidence.attacked("pgd", evidence.epsilon, victim, stop_when_fooled=False)
    lost = float((kept & ~last).float().mean())
    text = f"PGD at Linf {evidence.epsilon:g}: {lost:.1%} of the images were fooled on the way and not at the end"
    return CheckResult(lost <= 2 * _LOST, f"{text} (native attacks keep the best, foolbox's the last).", lost)


def noise_loses(evidence: CheckContext) -> CheckResult:
    """12: a hundred random draws are not stronger than PGD."""
    with evidence.victim() as victim:
        guided = evidence.attacked("pgd", evidence.epsilon, victim)
        random = evidence.attacked("foolbox/linf/repeated-uniform-noise", evidence.epsilon, victim)
    ours, theirs = (float((~fooled).float().mean()) for fooled in (guided, random))
    text = f"At Linf {evidence.epsilon:g} a hundred random draws leave {theirs:.1%}, PGD {ours:.1%}"
    return CheckResult(theirs >= ours - 0.02, f"{text}.", ours - theirs)


def transfer_loses(evidence: CheckContext) -> CheckResult:
    """13: images made on another model are not stronger than those made on this one."""
    if not evidence.others:
        raise NotApplicable("The suite has no other model on these data.")
    x, y = evidence.images
    attack = build_attack("pgd", {"stop_when_fooled": False})
    draws = PerImageRNG("checks/transfer", evidence.targets.images.indices.to(evidence.context.device))
    with evidence.victim() as victim:
        ours = float((~evidence.attacked("pgd", evidence.epsilon, victim)).float().mean())
    found = {}
    for other in evidence.others[:3]:
        with Victim(evidence.context.module_of(other), device=evidence.context.device) as surrogate:
            moved = attack.run(surrogate, x, y, [evidence.epsilon], rng=draws)[0].images
        with evidence.victim() as victim:
            found[other.model.label] = float((~victim.fooled(moved, y)).float().mean())
    best = min(found, key=lambda label: found[label])
    text = f"PGD at Linf {evidence.epsilon:g} leaves {ours:.1%}; made on {best} and carried over, {found[best]:.1%}"
    return CheckResult(found[best] >= ours - 0.02, f"{text}.", ours - found[best])


def smooth_loss(evidence: CheckContext) -> CheckResult:
    """15: the loss changes little in random directions."""
    with evidence.victim() as victim:
        change = roughness(victim, *evidence.images)
    text = f"In a hundred random directions of size 8/255 the loss changes by {change:.0%} (mean)"
    return CheckResult(change <= 0.5, f"{text}.", change)


def intact_graph(evidence: CheckContext) -> CheckResult:
    """16: the forward pass optimises nothing, and a gradient reaches the images."""
    x, y = (part[:2] for part in evidence.images)
    with evidence.victim() as victim:
        with _traced() as calls, torch.enable_grad():
            victim.module(x)
        if calls:
            return CheckResult(
                False, f"The model's forward calls {calls[0]}: it optimises while it infers.", len(calls)
            )
        try:
            victim.gradient(x, y)
        except GauntletError as error:
            return CheckResult(False, str(error))
    return CheckResult(True, "The forward pass calls no optimisation, and a gradient reaches the images.")


def class_count(evidence: CheckContext) -> CheckResult:
    """17: there are classes enough for the losses of strong attacks."""
    classes = len(evidence.row.dataset.classes)
    fit = (
        "all losses apply"
        if classes > 3
        else "the targeted DLR loss does not apply"
        if classes == 3
        else "DLR does not apply"
    )
    return CheckResult(True, f"{classes} classes: {fit}.", classes)


@contextlib.contextmanager
def _traced() -> Iterator[list[str]]:
    """Names of the functions that compute gradients and are called meanwhile."""
    calls: list[str] = []

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*arguments, **options)

        return call

    with (
        mock.patch.object(torch.autograd, "grad", noted("torch.autograd.grad", torch.autograd.grad)),
        mock.patch.object(torch.autograd, "backward", noted("torch.autograd.backward", torch.autograd.backward)),
        mock.patch.object(torch.Tensor, "backward", noted("backward", torch.Tensor.backward)),
    ):
        yield calls
