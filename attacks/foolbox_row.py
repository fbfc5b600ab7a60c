"""One row of foolbox's table of attacks: everything that tells one of its classes from another."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# GitPython, which foolbox imports, fails at import where there is no git program unless it is told to be quiet.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
import foolbox

from ..registry.facts import Access, Cost, Kind, Norm
from .steps import PATH

CHUNK = 128

#: The parameters of foolbox that take an object, write files, or are decided by the row.
HIDDEN = frozenset({"init_attack", "tensorboard", "distance", "constraint"})

#: The default initialisations of foolbox's attacks that walk from an image that is misclassified already.
STARTS = {
    "blended-50": lambda: foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50),
    "blended": lambda: foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(),
    "salt-and-pepper": lambda: foolbox.attacks.SaltAndPepperNoiseAttack(),
}


@dataclass(frozen=True)
class Row:
    """One foolbox attack.

    Attributes:
        name: ``foolbox/NORM/ATTACK``.
        source: Name of the class in ``foolbox.attacks``.
        reference: Paper or other source.
        access: What it asks of the model: ``gradient``, ``score``, ``decision`` or ``none``.
        cost: ``fast``, ``standard`` or ``full``.
        tags: Words for selections.
        alias: Further name, as in report R2.
        given: Values for parameters that foolbox gives no default.
        fixed: Parameters that the row decides.
        start: Which of :data:`STARTS` it walks from, or empty.
        feed: Whether it must be fed with images beforehand.
        targeted: Whether it can only aim at a class; it is given the most probable wrong one.
        chunk: Images in one call, by default.
        coupling: How an image's result depends on the others of its chunk, beyond the random numbers; or empty.
        known_fault: ``weak: why`` or ``broken: why``, or empty.
        unavailable: Why it cannot work here, or empty.
    """

    name: str
    source: str
    reference: str
    access: Access = "gradient"
    cost: Cost = "fast"
    tags: tuple[str, ...] = ()
    alias: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    feed: bool = False
    targeted: bool = False
    chunk: int = CHUNK
    coupling: str = ""
    known_fault: str = ""
    unavailable: str = ""

    @property
    def norm(self) -> Norm:
        """The norm, which is the middle of the name."""
        norm: Any = self.name.split("/")[1]
        return norm

    @property
    def original(self) -> type:
        """The class of foolbox."""
        return getattr(foolbox.attacks, self.source)

    @property
    def kind(self) -> Kind:
        """Whether it spends a budget, looks for the nearest adversarial, or does neither."""
        if issubclass(self.original, foolbox.attacks.base.MinimizationAttack):
            return "minimum-norm"
        return "fixed" if issubclass(self.original, foolbox.attacks.base.FixedEpsilonAttack) else "other"

    @property
    def fault(self) -> str:
        """``weak: why`` or ``broken: why``, or empty: what is known, and a default path of less than four epsilons."""
        known = inspect.signature(self.original).parameters
        if self.known_fault or self.kind != "fixed" or "rel_stepsize" not in known:
            return self.known_fault
        steps, stepsize = known["steps"].default, known["rel_stepsize"].default
        path = f"weak: {steps} steps of {stepsize:.3g} walk {steps * stepsize:.3g} epsilons by default, and not four"
        return path if steps * stepsize < PATH else ""

    @property
    def flexible(self) -> bool:
        """Whether distances may be measured in any norm; foolbox wants to be told which."""
        flexible = foolbox.attacks.base.FlexibleDistanceMinimizationAttack
        return self.norm != "l0" and issubclass(self.original, flexible)

    @property
    def requires(self) -> tuple[str, ...]:
        """Optional packages that it imports."""
        return ("numba",) if "BrendelBethge" in self.source else ()

    @property
    def endless(self) -> bool:
        """Whether its search for a step has no end where every step fails."""
        return self.source == "HopSkipJumpAttack"

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs beside images and labels, in words."""
        wanted = {
            "starting points": self.start or self.unavailable,
            "feed": self.feed,
            "distance": self.flexible or self.source == "PointwiseAttack",
            "targets": self.targeted,
            "numba": self.requires,
            "4-d images": self.source in ("SpatialAttack", "GaussianBlurAttack"),
        }
        return tuple(word for word, needed in wanted.items() if needed)

    @property
    def labels(self) -> tuple[str, ...]:
        """All tags: those given, and those that follow from the other fields."""
        white = ("white-box",) if self.access == "gradient" else ()
        fault = (self.fault.partition(":")[0],) if self.fault else ()
        return ("foolbox", *white, *self.tags, *fault)
