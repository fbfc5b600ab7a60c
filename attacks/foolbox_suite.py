"""Registers foolbox's attacks, each with foolbox's own defaults (Rauber et al. 2020, doi 10.21105/joss.02607)."""

from __future__ import annotations

from ..registry import attack
from .foolbox_adapter import factory
from .foolbox_rows import ROWS

for _row in ROWS:
    attack(
        _row.name,
        norm=_row.norm,
        kind=_row.kind,
        access=_row.access,
        cost=_row.cost,
        inputs=_row.needs,
        extras=_row.requires,
        coupling=_row.coupling,
        fault=_row.fault,
        unavailable=_row.unavailable,
        tags=_row.labels,
        aliases=(_row.alias,) if _row.alias else (),
        reference=_row.reference,
        versions=("foolbox", *_row.requires),
        row=repr(_row),
    )(factory(_row))
