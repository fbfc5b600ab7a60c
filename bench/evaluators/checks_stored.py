"""Checks of what the attacks left behind: they need no model, only stored arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ...attacks.norms import InvalidAdversarial
from .check_context import AttackRun, CheckContext, CheckResult, NotApplicable, accuracies

#: Differences of robust accuracy up to this are chance or rounding.
SLACK = 0.02

#: Parts the attacks of one ball into those that should lose and those that should win.
Split = Callable[[list[AttackRun]], tuple[list[AttackRun], list[AttackRun]]]


def valid_outputs(evidence: CheckContext) -> CheckResult:
    """1: every result is finite, in its ball and in [0, 1], and its success is confirmed by a second prediction."""
    for trial in evidence.failures:
        if trial.result.error == InvalidAdversarial.__name__:
            return CheckResult(False, trial.result.reason)
    checked = _needed(evidence.trials)
    for trial in checked:
        arrays = trial.result.arrays
        lies = int((arrays["claimed"] & ~arrays["success"]).sum())
        if lies > max(1, 0.02 * len(arrays["claimed"])):
            return CheckResult(
                False, f"{trial.where} claims {lies} successes that a second prediction does not confirm.", lies
            )
    return CheckResult(True, f"All results of {len(checked)} attacks are finite, in their ball, and confirmed.")


def work_done(evidence: CheckContext) -> CheckResult:
    """5: attacks ask the model, and change the images."""
    checked = [trial for trial in _needed(evidence.trials) if trial.epsilon]
    for trial in checked:
        if not trial.measured("forwards") > 0 or (trial.gradient and not trial.measured("backwards") > 0):
            return CheckResult(False, f"{trial.where} asked the model for nothing.", 0.0)
        still = float((trial.result.arrays["distances"][0] == 0).mean())
        if trial.kind == "fixed" and trial.gradient and trial.sound and still > 0.5:  # noise may end where it began
            return CheckResult(False, f"{trial.where} left {still:.0%} of the images as they were.", still)
    return CheckResult(True, f"All {len(checked)} attacks asked the model and moved the images.")


def monotone(evidence: CheckContext) -> CheckResult:
    """6: a larger budget never helps the model (iterative gradient attacks; single steps and noise may overshoot)."""
    lines: dict[str, list[AttackRun]] = {}
    for trial in evidence.trials:
        if trial.epsilon is not None and trial.gradient and trial.sound and "single-step" not in trial.entry.tags:
            lines.setdefault(trial.label, []).append(trial)
    curves = [sorted(line, key=lambda trial: trial.epsilon or 0) for line in lines.values() if len(line) > 1]
    if not curves:
        raise NotApplicable("No iterative gradient attack has two budgets.")
    worst, text = 0.0, ""
    for curve in curves:
        for small, large in itertools.pairwise(curve):
            before, after = accuracies([small], [large])
            if after - before > worst:
                worst, text = (
                    after - before,
                    f"{large.where}: {after:.1%} robust, and {before:.1%} at {small.epsilon:g}.",
                )
    if worst > SLACK:
        return CheckResult(False, f"A larger budget helps the model: {text}", worst)
    return CheckResult(True, f"Robust accuracy never grows with the budget ({len(curves)} attacks).", worst)


def iterative_wins(evidence: CheckContext) -> CheckResult:
    """8: at equal budgets an iterative attack is at least as strong as a single step."""

    def split(group: list[AttackRun]) -> tuple[list[AttackRun], list[AttackRun]]:
        white = [trial for trial in group if trial.gradient and trial.sound]
        single = [trial for trial in white if "single-step" in trial.entry.tags]
        return single, [trial for trial in white if trial not in single]

    return _compare(
        evidence, split, "A single step is stronger than iterating", "Iterating is at least as strong as a single step"
    )


def black_box_loses(evidence: CheckContext) -> CheckResult:
    """11: an attack without gradients is not stronger than all those with."""

    def split(group: list[AttackRun]) -> tuple[list[AttackRun], list[AttackRun]]:
        return [trial for trial in group if not trial.gradient], [trial for trial in group if trial.gradient]

    return _compare(
        evidence,
        split,
        "An attack without gradients is stronger than all with",
        "No attack without gradients is stronger",
    )


def worst_case(evidence: CheckContext) -> CheckResult:
    """14: what survives every attack of a norm together, image by image."""
    parts = []
    balls = {norm: (epsilon, group) for norm, epsilon, group in evidence.by_budget() if len(group) > 1}
    for norm, (epsilon, group) in balls.items():
        union, *single = accuracies(group, *([trial] for trial in group))
        best = int(np.argmin(single))
        parts.append(
            f"{norm} {epsilon:g}: {union:.1%} survive all {len(group)} attacks, {single[best]:.1%} the strongest "
            f"({group[best].label})"
        )
    if not parts:
        raise NotApplicable("No two attacks share a norm and a budget.")
    return CheckResult(True, "; ".join(parts) + ".")


def _compare(evidence: CheckContext, split: Split, bad: str, good: str) -> CheckResult:
    """Whether in some ball one of the first attacks beats all of the second together."""
    worst, text, balls = 0.0, "", 0
    for norm, epsilon, group in evidence.by_budget():
        weaker, stronger = split(group)
        balls += bool(weaker and stronger)
        for trial in weaker if stronger else ():
            one, all_ = accuracies([trial], stronger)
            if all_ - one > worst:
                worst = all_ - one
                text = f"{trial.label} leaves {one:.1%}, the others {all_:.1%} ({norm} {epsilon:g})"
    if not balls:
        raise NotApplicable("No budget has attacks of both kinds.")
    if worst > SLACK:
        return CheckResult(False, f"{bad}: {text}.", worst)
    return CheckResult(True, f"{good} ({balls} budgets).", worst)


def _needed(trials: Sequence[AttackRun]) -> list[AttackRun]:
    chosen = [trial for trial in trials if "claimed" in trial.result.arrays]
    if not chosen:
        raise NotApplicable("No attack has a result.")
    return chosen
