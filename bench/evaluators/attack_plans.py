"""What a suite's attack comes to for one row: norm, images, what its key covers, and the surrogate it may need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...attacks import Victim
from ...attacks.function import norm_of
from ...attacks.transfer import inner_attack
from ...models.build import check_fit
from ...registry import MODELS, GauntletError, Selected, nearest, source_fingerprint
from ..availability import unavailable
from ..model_specs import ModelSpec, resolve_model
from ..recipes import resolve_recipe

if TYPE_CHECKING:
    from ..context import RowContext
    from ..plan import Job, Row
    from ..suite import Suite


@dataclass(frozen=True)
class AttackPlan:
    """An attack on the model of one row.

    Attributes:
        attack: As the suite selects it.
        norm: In which budgets are measured.
        images: How many of them it gets.
        content: What the key of its cells covers.
        params: What the column ``params`` says.
        surrogate: The model it makes its images on, if it takes one.
        blocked: Why it cannot run here, or nothing.
    """

    attack: Selected
    norm: str
    images: int
    content: tuple[Any, ...]
    params: dict[str, Any]
    surrogate: Row | None = None
    blocked: str = ""

    @property
    def others(self) -> tuple[Row, ...]:
        """Rows whose models must be there beside the attacked one."""
        return () if self.surrogate is None else (self.surrogate,)


def plan_attack(suite: Suite, row: Row, attack: Selected) -> AttackPlan:
    """Look at an attack and a row.

    Raises:
        GauntletError: It names a surrogate that is neither in the suite nor registered.
    """
    entry, parameters = attack.entry, {**attack.entry.defaults(), **attack.parameters}
    images = suite.images_for(str(entry.meta.get("cost", "fast")))
    plan = AttackPlan(
        attack,
        norm_of(entry, attack.parameters),
        images,
        (entry.name, parameters, source_fingerprint(entry)),
        {"attack": {"name": entry.name, **parameters}, "images": images},
        blocked=unavailable(entry),
    )
    return _with_surrogate(plan, suite, row) if "surrogate" in entry.meta.get("inputs", ()) else plan


def victim_of(job: Job, bench: RowContext) -> Victim:
    """The model of a job's row, to be entered, with the job's surrogate where it has one."""
    other = None
    for row in job.others:
        module = bench.module_of(row)
        check_fit(module, row.model.label, row.dataset.label, row.dataset.shape, len(row.dataset.classes))
        other = Victim(module, device=bench.device, batch_size=bench.batch_size)
    return Victim(bench.module(), device=bench.device, batch_size=bench.batch_size, surrogate=other)


def _with_surrogate(plan: AttackPlan, suite: Suite, row: Row) -> AttackPlan:
    """The plan with the surrogate's key in place of its spec, and what the inner attack is."""
    from ..plan import make_row, misfit

    model = _surrogate(plan.attack, suite, row)
    if isinstance(model, str):
        return replace(plan, blocked=model)
    if reason := misfit(model, row.dataset):
        return replace(plan, blocked=f"Attack {plan.attack.label!r}: as a surrogate, {reason}.")
    surrogate = make_row(model, row.dataset, row.seed)
    name, parameters, source = plan.content
    inner = inner_attack(parameters["attack"])
    facts = {**parameters, "attack": {"name": inner.entry.name, **inner.entry.defaults(), **inner.parameters}}
    described = {"label": model.label, "name": model.entry.name, **model.describe(len(row.dataset.classes))}
    return replace(
        plan,
        content=(name, {**facts, "surrogate": surrogate.key}, source, source_fingerprint(inner.entry)),
        params={"attack": {"name": name, **facts, "surrogate": described}, "images": plan.images},
        surrogate=None if surrogate.blocked else surrogate,
        blocked=plan.blocked or surrogate.blocked,
    )


def _surrogate(attack: Selected, suite: Suite, row: Row) -> ModelSpec | str:
    """The model that a suite's attack names, by default the first other one of the suite; or why there is none."""
    known = {model.label: model for model in suite.model_specs}
    wanted = attack.parameters.get("surrogate")
    if wanted is None:
        from ..plan import misfit

        others = (model for label, model in known.items() if label != row.model.label)
        found = next((model for model in others if not misfit(model, row.dataset)), None)
        return found or (
            f"Attack {attack.label!r} needs a surrogate, and the suite has no other model on {row.dataset.label}: "
            f"write {{name: {attack.entry.name}, surrogate: MODEL}}."
        )
    if wanted == row.model.label:
        return f"Attack {attack.label!r}: {row.model.label!r} is the attacked model itself, and no surrogate for it."
    if isinstance(wanted, str) and wanted in known:
        return known[wanted]
    where = f"{suite.at('attacks')}: attack {attack.label!r}"
    if isinstance(wanted, str) and wanted not in MODELS:
        names = [*known, *(entry.name for entry in MODELS)]
        raise GauntletError(f"{where}: there is no model {wanted!r} to be its surrogate; {nearest(wanted, names)}")
    try:
        return resolve_model(wanted, resolve_recipe(suite.recipe))
    except GauntletError as error:
        raise type(error)(f"{where}: its surrogate: {error}") from None
