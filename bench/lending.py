"""Objects of the caller's under names that a suite can hold, known to the registries for as long as one run takes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..models import weights_fingerprint
from ..registry import REGISTRIES, Entry, digest, source_fingerprint
from ..registry.parameters import read_signature

#: Packages whose classes are versions of a library, and no source of the caller's.
_INSTALLED = ("torch", "torchvision", "timm", "transformers", "gauntlet")


@dataclass
class Lending:
    """Entries that hold objects; a suite names them by what the methods return.

    Attributes:
        own_budgets: Whether attack objects keep the budget that they were made with.
    """

    own_budgets: bool = True
    entries: list[Entry] = field(default_factory=list)

    def add(self, of: str, label: str, factory: Callable[..., Any], content: str, /, **facts: Any) -> dict[str, str]:
        """The spec of an object that ``factory`` gives; ``content`` is what distinguishes it from others."""
        name = f"in-memory/{_slug(label)}-{digest(content)[:8]}"
        needs = facts.pop("needs", ())
        parameters = facts.pop("parameters", ())
        self.entries.append(
            Entry(of, name, factory, summary=label, needs=needs, parameters=parameters, meta=facts, row=content)
        )
        return {"name": name, "label": label}

    def function(self, kind: str, label: str, function: Callable[..., Any], **facts: Any) -> dict[str, str]:
        """The spec of a function that a decorator would register, such as a detector of logits."""
        needs, parameters = read_signature(function, leading=True)
        content = source_fingerprint(Entry(kind, label, function))
        return self.add(kind, label, function, content, needs=needs, parameters=parameters, **facts)

    @contextlib.contextmanager
    def known(self) -> Iterator[None]:
        """The registries know the entries in the block."""
        with contextlib.ExitStack() as stack:
            for kind, registry in REGISTRIES.items():
                registry.discover()
                stack.enter_context(registry.lending([entry for entry in self.entries if entry.kind == kind]))
            yield


def model_identity(model: Any) -> str:
    """Digest of a model's weights and of the source of its classes (of a function: of its own source)."""
    if not isinstance(model, nn.Module):
        return digest("callable", source_fingerprint(_as_entry(model)))
    kinds = {type(part) for part in model.modules()}
    own = {kind for kind in kinds if kind.__module__.partition(".")[0] not in _INSTALLED}
    sources = sorted(source_fingerprint(_as_entry(kind)) for kind in own)
    return digest("module", weights_fingerprint(model), repr(model), sources)


def _as_entry(value: Any) -> Entry:
    known = value if hasattr(value, "__qualname__") else type(value)
    return Entry("model", getattr(known, "__name__", "model"), known)


def labelled(items: Any, kind: str) -> list[tuple[str, Any]]:
    """Pairs of label and item, from one item, a list of items, or a mapping of labels to items."""
    if isinstance(items, Mapping) and not _is_spec(items):
        return [(str(label), item) for label, item in items.items()]
    listed = list(items) if isinstance(items, (list, tuple, set)) else [items]
    found: list[tuple[str, Any]] = []
    for item in listed:
        label = item if isinstance(item, str) else name_of(item)
        taken = {known for known, _ in found}
        number = next(n for n in range(1, len(listed) + 2) if (label if n == 1 else f"{label} {n}") not in taken)
        found.append((label if number == 1 else f"{label} {number}", item))
    return found


def _is_spec(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is the spec of one component: it has a name, or its only value is a mapping of parameters."""
    return "name" in value or (len(value) == 1 and isinstance(next(iter(value.values())), (Mapping, type(None))))


def name_of(item: Any) -> str:
    """What an object is called: a function's name, else its class's."""
    while hasattr(item, "func") and not hasattr(item, "__name__"):  # functools.partial
        item = item.func
    return str(getattr(item, "__name__", None) or type(item).__name__)


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "object"
