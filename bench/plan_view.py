"""A plan for readers: what runs, what is cached, what is skipped or left out, and why."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..results.store import Store
from .jobs import Job
from .plan import Plan


def cell_states(plan: Plan, out: Path) -> dict[str, str]:
    """For every key ``cached``, ``skipped`` (not possible here) or ``run``."""
    path = out / "store.sqlite"
    statuses: dict[str, str] = {}
    if path.is_file():
        with Store.open(path, create=False) as store:
            statuses = store.statuses([cell.key for cell in plan.cells])
    states = {}
    for job in plan.jobs:
        for cell in job.cells:
            waits = "skipped" if job.obstacle(cell) else "run"
            states[cell.key] = "cached" if statuses.get(cell.key) == "ok" else waits
    return states


def describe_plan(plan: Plan, out: Path) -> str:
    """A table of jobs, the reasons of what is skipped, and what was left out."""
    states = cell_states(plan, out)
    rows = []
    for job in plan.jobs:
        counts = Counter(states[cell.key] for cell in job.cells)
        row = job.row
        rows.append([row.model.label, row.dataset.label, row.seed, job.evaluator, _label(job), *_numbers(counts)])
    headers = ["model", "dataset", "seed", "evaluator", "job", "run", "cached", "skipped"]
    total = Counter(states[cell.key] for cell in plan.cells)
    parts = [
        f"{plan.suite.name}: {len(plan.cells)} cells in {len(plan.jobs)} jobs: {total['run']} to run, "
        f"{total['cached']} cached, {total['skipped']} skipped."
        + (" Cached, to be verified: a run compares each model's outputs first." if total["cached"] else ""),
        tabulate(rows, headers=headers, tablefmt="simple"),
    ]
    if reasons := _skip_reasons(plan, states):
        parts.append("Skipped:\n" + "\n".join(f"  {count} cells: {reason}" for reason, count in reasons.items()))
    if plan.notes:
        parts.append("Note:\n" + "\n".join(f"  {note}" for note in plan.notes))
    if plan.left_out:
        parts.append("Left out:\n" + "\n".join(f"  {item.what}: {item.reason}" for item in plan.left_out))
    return "\n\n".join(parts)


def plan_as_json(plan: Plan, out: Path) -> str:
    """The same for programs: every cell with its identity, key and state."""
    states = cell_states(plan, out)
    content: dict[str, Any] = {
        "suite": plan.suite.name,
        "cells": [
            {
                **vars(cell.identity),
                "key": cell.key,
                "state": states[cell.key],
                "reason": job.obstacle(cell),
            }
            for job in plan.jobs
            for cell in job.cells
        ],
        "left_out": [vars(item) for item in plan.left_out],
    }
    return json.dumps(content, indent=1)


def _label(job: Job) -> str:
    return "" if job.label == job.evaluator else job.label


def _numbers(counts: Counter[str]) -> list[Any]:
    return [counts[state] or "" for state in ("run", "cached", "skipped")]


def _skip_reasons(plan: Plan, states: dict[str, str]) -> Counter[str]:
    return Counter(job.obstacle(cell) for job in plan.jobs for cell in job.cells if states[cell.key] == "skipped")
