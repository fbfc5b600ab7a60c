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
    for run in evidence.failures:
        if run.result.error == InvalidAdversarial.__name__:
            return CheckResult(False, run.result.reason)
    checked = _needed(evidence.runs)
    for run in checked:
        arrays = run.result.arrays
        lies = int((arrays["claimed"] & ~arrays["success"]).sum())
        if lies > max(1, 0.02 * len(arrays["claimed"])):
            return CheckResult(
                False, f"{run.where} claims {lies} successes that a second prediction does not confirm.", lies
            )
    return CheckResult(True, f"All results of {len(checked)} attacks are finite, in their ball, and confirmed.")


def work_done(evidence: CheckContext) -> CheckResult:
    """5: attacks ask the model, and change the images."""
    checked = [run for run in _needed(evidence.runs) if run.epsilon]
    for run in checked:
        if not run.measured("forwards") > 0 or (run.gradient and not run.measured("backwards") > 0):
            return CheckResult(False, f"{run.where} asked the model for nothing.", 0.0)
        still = float((run.result.arrays["distances"][0] == 0).mean())
        if run.kind == "fixed" and run.gradient and run.sound and still > 0.5:  # noise may end where it began
            return CheckResult(False, f"{run.where} left {still:.0%} of the images as they were.", still)
    return CheckResult(True, f"All {len(checked)} attacks asked the model and moved the images.")


def monotone(evidence: CheckContext) -> CheckResult:
    """6: a larger budget never helps the model (iterative gradient attacks; single steps and noise may overshoot)."""
    lines: dict[str, list[AttackRun]] = {}
    for run in evidence.runs:
        if run.epsilon is not None and run.gradient and run.sound and "single-step" not in run.entry.tags:
            lines.setdefault(run.label, []).append(run)
    curves = [sorted(line, key=lambda run: run.epsilon or 0) for line in lines.values() if len(line) > 1]
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
        white = [run for run in group if run.gradient and run.sound]
        single = [run for run in white if "single-step" in run.entry.tags]
        return single, [run for run in white if run not in single]

    return _compare(
        evidence, split, "A single step is stronger than iterating", "Iterating is at least as strong as a single step"
    )


def black_box_loses(evidence: CheckContext) -> CheckResult:
    """11: an attack without gradients is not stronger than all those with."""

    def split(group: list[AttackRun]) -> tuple[list[AttackRun], list[AttackRun]]:
        return [run for run in group if not run.gradient], [run for run in group if run.gradient]

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
        union, *single = accuracies(group, *([run] for run in group))
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
        for run in weaker if stronger else ():
            one, all_ = accuracies([run], stronger)
            if all_ - one > worst:
                worst = all_ - one
                text = f"{run.label} leaves {one:.1%}, the others {all_:.1%} ({norm} {epsilon:g})"
    if not balls:
        raise NotApplicable("No budget has attacks of both kinds.")
    if worst > SLACK:
        return CheckResult(False, f"{bad}: {text}.", worst)
    return CheckResult(True, f"{good} ({balls} budgets).", worst)


def _needed(runs: Sequence[AttackRun]) -> list[AttackRun]:
    chosen = [run for run in runs if "claimed" in run.result.arrays]
    if not chosen:
        raise NotApplicable("No attack has a result.")
    return chosen
