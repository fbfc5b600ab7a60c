"""What a suite's attack comes to for one row: norm, images, what its key covers, and the surrogate it may need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...attacks import Victim, build_attack
from ...attacks.function import norm_of
from ...attacks.transfer import inner_attack
from ...models.build import check_fit
from ...registry import MODELS, GauntletError, Obstacle, Selected, nearest, source_fingerprint
from ...results.records import PlannedCell
from ..jobs import Job, ModelRow
from ..model_specs import ModelSpec, resolve_model
from ..recipes import default_recipe
from ..suite import Epsilon, parse_epsilons
from .base import Evaluator, examples_key

if TYPE_CHECKING:
    from ..context import RowContext
    from ..suite import Suite


#: With so many classes every loss can be computed; an attack is asked only where there are fewer.
_ENOUGH_CLASSES = 4


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
        epsilons: Its own budgets, or those of the suite; None for the smallest that succeeds.
        obstacle: Why it cannot run here.
    """

    attack: Selected
    norm: str
    images: int
    content: tuple[Any, ...]
    params: dict[str, Any]
    epsilons: tuple[Epsilon, ...]
    surrogate: ModelRow | None = None
    obstacle: Obstacle = ""

    @property
    def others(self) -> tuple[ModelRow, ...]:
        """Rows whose models must be there beside the attacked one."""
        return () if self.surrogate is None else (self.surrogate,)

    def cells(self, evaluator: Evaluator, suite: Suite, row: ModelRow) -> tuple[PlannedCell, ...]:
        """One cell an epsilon."""
        return tuple(
            evaluator.cell(
                row,
                self.content,
                "minimal" if epsilon is None else epsilon,
                row.seed,
                self.images,
                *examples_key(suite),
                facts={"norm": self.norm},
                params=self.params,
                attack=self.attack.label,
                epsilon=epsilon,
            )
            for epsilon in self.epsilons
        )

    def obstacles(self, cells: Sequence[PlannedCell]) -> dict[str, Obstacle]:
        """Why cells of the attack cannot be computed, by key."""
        found = {cell.key: self._obstacle_at(cell.identity.epsilon) for cell in cells}
        return {key: obstacle for key, obstacle in found.items() if obstacle}

    def _obstacle_at(self, epsilon: Epsilon) -> Obstacle:
        if self.norm == "l0" and epsilon is not None and epsilon != int(epsilon):
            return f"Attack {self.attack.label!r}: an L0 epsilon must be a whole number of pixels, got {epsilon:g}."
        return self.obstacle


def plan_attack(suite: Suite, row: ModelRow, attack: Selected) -> AttackPlan:
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
        budgets(suite, attack),
        obstacle=entry.obstacle or _without_gradients(attack, row.model),
    )
    plan = _with_few_classes(plan, len(row.dataset.classes))
    return _with_surrogate(plan, suite, row) if "surrogate" in entry.meta.get("inputs", ()) else plan


def _without_gradients(attack: Selected, model: ModelSpec) -> Obstacle:
    """Why an attack cannot climb the loss of a model that says it has no gradients."""
    if attack.entry.meta.get("access") != "gradient" or model.entry.meta.get("gradients", True):
        return ""
    return f"Attack {attack.label!r} needs gradients, and no gradient of {model.label} reaches its images."


def _with_few_classes(plan: AttackPlan, classes: int) -> AttackPlan:
    """The plan with what cannot run against so few classes: the attack itself, or parts that its params then name."""
    entry = plan.attack.entry
    if classes >= _ENOUGH_CLASSES or plan.obstacle or not entry.is_ours:
        return plan
    left_out = build_attack(entry, plan.attack.parameters).left_out(classes)
    if "" in left_out:
        return replace(plan, obstacle=f"Attack {plan.attack.label!r} {left_out['']}.")
    return replace(plan, params={**plan.params, "without": left_out}) if left_out else plan


def budgets(suite: Suite, attack: Selected) -> tuple[Epsilon, ...]:
    """The attack's own budgets, or those of the suite; None for the smallest that succeeds."""
    if attack.entry.meta.get("kind") == "other":
        return (None,)
    given = attack.options.get("epsilons")
    if given is None:
        return suite.budgets(norm_of(attack.entry, attack.parameters))
    return parse_epsilons(given if isinstance(given, (list, tuple)) else [given], f"attack {attack.label!r}")


def unused_budgets(suite: Suite) -> Iterator[str]:
    """What a suite says of norms, budgets and numbers of images that none of its attacks has."""
    own = [attack for attack in suite.attacks if "epsilons" not in attack.options]
    norms = {norm_of(attack.entry, attack.parameters) for attack in own}
    for norm in suite.norm_epsilons:
        if norm not in norms:
            yield f"{suite.at('epsilons', norm)}: no attack of this suite takes its {norm} epsilons from here."
    if suite.epsilons and not own:
        yield f"{suite.at('epsilons')}: every attack of this suite has epsilons of its own."
    costs = {str(attack.entry.meta.get("cost", "fast")) for attack in suite.attacks}
    for cost in {} if isinstance(suite.attack_images, int) else suite.attack_images:
        if cost not in costs:
            yield f"{suite.at('attack_images', cost)}: no attack of this suite is {cost}."


@dataclass(frozen=True, kw_only=True)
class AttackingJob(Job):
    """A job that attacks: with which attack, and how many images of the test split."""

    attack: Selected
    images: int

    @property
    def shared(self) -> str:
        """The attack, whose results other evaluators look at too."""
        return f"attack {self.attack.label} on {self.images} images"


def victim_of(job: Job, context: RowContext) -> Victim:
    """The model of a job's row, to be entered, with the job's surrogate where it has one."""
    other = None
    for row in job.others:
        module = context.module_of(row)
        check_fit(module, row.model.label, row.dataset.label, row.dataset.shape, len(row.dataset.classes))
        other = Victim(module, device=context.device, batch_size=context.batch_size)
    return Victim(context.module(), device=context.device, batch_size=context.batch_size, surrogate=other)


def _with_surrogate(plan: AttackPlan, suite: Suite, row: ModelRow) -> AttackPlan:
    """The plan with the surrogate's key in place of its spec, and what the inner attack is."""
    model = _surrogate(plan.attack, suite, row)
    if isinstance(model, str):
        return replace(plan, obstacle=model)
    if reason := model.obstacle(row.dataset):
        return replace(plan, obstacle=f"Attack {plan.attack.label!r}: as a surrogate, {reason}.")
    surrogate = ModelRow.of(model, row.dataset, row.seed)
    name, parameters, source = plan.content
    inner = inner_attack(parameters["attack"])
    facts = {**parameters, "attack": {"name": inner.entry.name, **inner.entry.defaults(), **inner.parameters}}
    described = {"label": model.label, "name": model.entry.name, **model.describe(len(row.dataset.classes))}
    return replace(
        plan,
        content=(name, {**facts, "surrogate": surrogate.key}, source, source_fingerprint(inner.entry)),
        params={"attack": {"name": name, **facts, "surrogate": described}, "images": plan.images},
        surrogate=None if surrogate.obstacle else surrogate,
        obstacle=plan.obstacle or surrogate.obstacle,
    )


def _surrogate(attack: Selected, suite: Suite, row: ModelRow) -> ModelSpec | Obstacle:
    """The model that a suite's attack names, by default the first other one of the suite; or why there is none."""
    known = {model.label: model for model in suite.model_specs}
    wanted = attack.parameters.get("surrogate")
    if wanted is None:
        others = (model for label, model in known.items() if label != row.model.label)
        found = next((model for model in others if not model.obstacle(row.dataset)), None)
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
        return resolve_model(wanted, default_recipe(suite.recipe))
    except GauntletError as error:
        raise type(error)(f"{where}: its surrogate: {error}") from None
