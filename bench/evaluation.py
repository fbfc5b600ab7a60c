"""`gauntlet.evaluate`: any model, any data, in one line, on the same path as a suite."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..attacks import peers as attack_peers
from ..datasets import DataSource, ImageSet, resolve
from ..detectors import peers as detector_peers
from ..models.named_features import NamedFeatures
from ..models.normalisation import read_normalisation
from ..models.own import OwnModel, borrowed
from ..registry import EVALUATORS, GauntletError, digest, parse_spec
from ..registry.folders import cache_folder, data_root
from ..results.results import Results
from ..results.store import Store
from .data_given import as_spec
from .device import pick_device
from .execution import Reporter
from .inspection import Inspection, class_names
from .lending import Lending, labelled, model_identity, name_of
from .runner import run_suite

Spec = str | dict[str, Any]


def evaluate(
    model: Any,
    data: Any,
    *,
    attacks: Any = (),
    eps: Any = None,
    detectors: Any = (),
    ood: Any = None,
    corruptions: Any = (),
    calibration: bool = False,
    errors: bool = False,
    train: Any = None,
    val: Any = None,
    normalize: Any = None,
    features: Any = None,
    head: Any = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int | str = "auto",
    device: str = "auto",
    name: str | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    classes: Any = None,
) -> Results:
    """Measure any classifier: accuracy, and whatever else is asked for.

    Args:
        model: A ``torch.nn.Module``, a callable from images (N, C, H, W) to logits (N, K), the name of a registered
            model or of one of a zoo, or a mapping from labels to several of these. It is left as it was.
        data: Test images: the name or spec of a data set, ``(images, labels)`` as arrays or tensors (images (N, C, H,
            W) or (N, H, W), floats in [0, 1] or 8 bits), a torch ``Dataset`` or ``DataLoader``, a folder or list file.
        attacks: Names, specs, globs, functions of ``victim, images, labels, epsilon``, or attack objects of foolbox,
            torchattacks, ART or adversarial-library; one, a list, or a mapping from labels.
        eps: Budgets in units of pixels in [0, 1], such as ``8/255``; one, several, or a mapping from norms.
        detectors: Names, specs, globs, functions such as ``f(logits)``, or detector objects of pytorch-ood or oodeel.
        ood: OOD sets: a list, or ``{"near": [...], "far": [...]}``, of anything that ``data`` takes.
        corruptions: Names, specs, globs, or functions of ``images, severity``.
        calibration: Whether calibration is measured.
        errors: Whether it is measured how well confidence tells right from wrong answers.
        train: Training images, to which detectors are fitted; where ``data`` is a name, its own.
        val: Validation images; a tenth of ``train`` where nothing is said.
        normalize: What the model wants done to images in [0, 1]: ``(mean, std)``, a callable, a usual one by name
            (``"imagenet"``), or ``"auto"`` to ask the model's library. None: it takes them as they are.
        features: What the penultimate features are, where they are not found: name of a layer, module, or callable.
        head: The final linear layer that reads them: name, module, or ``(weight, bias)``.
        limit: Most images of each split of each set.
        seed: Of everything random.
        batch_size: Most images in a pass; ``"auto"`` begins with 512 and halves it where memory runs out.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        name: Label of a single model, and name of the run.
        out: A folder for the store, which a later call goes on with; None keeps everything in memory.
        data_root: Where data sets lie.
        download: Whether absent files may be downloaded.
        classes: Which logit belongs to each class of the data, where the model has others: positions or names.

    Returns:
        The results: a tidy data frame with ``table``, ``plot``, ``summary``, ``scores`` and ``save``.

    Raises:
        GauntletError: Something given is wrong; one sentence says what. Failing cells do not raise, they are rows.

    Example:
        >>> import gauntlet
        >>> results = gauntlet.evaluate(network, (images, labels), detectors=["msp"], ood=["glyphs"])  # doctest: +SKIP
    """
    lending = Lending(own_budgets=eps is None)
    notes: list[str] = []
    source = DataSource(root=_root(data_root), cache=cache_folder(), download=download)
    models = _models(model, name)
    own = {label: one for label, one in models.items() if not _is_named(one)}
    modules = [one for one in own.values() if isinstance(one, nn.Module)]
    where = pick_device(device)
    suite: dict[str, Any] = {
        "name": name or ", ".join(models)[:80],
        "recipe": "none" if own else "standard",
        "datasets": [as_spec(data, source, "data", train=train, val=val, limit=limit)],
        "seeds": [seed],
        **_optional(lending, attacks=attacks, detectors=detectors, corruptions=corruptions),
        **_ood(source, ood, limit),
        **({} if eps is None else {"epsilons": _budgets(eps)}),
        **({} if batch_size == "auto" else {"batch_size": batch_size}),
    }
    _require_pairs(suite)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lending.known())
        stack.enter_context(borrowed(*modules))
        test = _test_images(suite["datasets"][0], source) if own else None
        suite["models"] = [
            _named(label, one)
            if _is_named(one)
            else _lend_model(lending, label, one, test, (normalize, features, head, classes), notes)
            for label, one in models.items()
        ]
        suite["evaluators"] = _evaluators(suite, calibration=calibration, errors=errors)
        with lending.known():
            return _run(suite, out, notes, device=str(where), data=data_root, download=download)


def _run(suite: Mapping[str, Any], out: str | Path | None, notes: list[str], **options: Any) -> Results:
    heard = _Heard()
    if out is None:
        store = Store.in_memory()
        outcome = run_suite(suite, store=store, notes=notes, reporter=heard, **options)
        return Results.of(store, outcome.run_id, notes=[*notes, *heard.notes], keep=True)
    outcome = run_suite(suite, out=out, notes=notes, reporter=heard, **options)
    with Store.open(outcome.out / "store.sqlite", create=False) as store:
        return Results.of(store, outcome.run_id, notes=[*notes, *heard.notes])


class _Heard(Reporter):
    """Keeps what a user should read."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it once."""
        if text not in self.notes:
            self.notes.append(text)


# -- models ---------------------------------------------------------------------------------------------------


def _models(model: Any, name: str | None) -> dict[str, Any]:
    if isinstance(model, Mapping) and model and not any(isinstance(key, str) and key == "name" for key in model):
        return {str(label): one for label, one in model.items()}
    if isinstance(model, (str, Mapping)):
        return {name or parse_spec(model, "model")[0]: model}
    if not callable(model):
        raise GauntletError(
            f"model must be a torch.nn.Module, a callable, a name, or a mapping from labels to these, got "
            f"{type(model).__name__}."
        )
    return {name or name_of(model): model}


def _is_named(model: Any) -> bool:
    return isinstance(model, (str, Mapping))


def _named(label: str, model: Any) -> Spec:
    """The spec of a registered model, under its label."""
    name, rest = parse_spec(model, "model")
    return {"name": name, "label": label, **rest}


def _lend_model(
    lending: Lending, label: str, model: Any, test: ImageSet | None, given: tuple[Any, ...], notes: list[str]
) -> Spec:
    """The spec of a model in memory, which is looked at first."""
    normalize, features, head, classes = given
    if not callable(model):
        raise GauntletError(
            f"Model {label!r} must be a torch.nn.Module, a callable or a name, got {type(model).__name__}."
        )
    assert test is not None
    options: dict[str, Any] = {"normalize": read_normalisation(normalize, model)}
    by_hand = {"features": features, "head": head}
    named = features is not None or head is not None
    module = NamedFeatures(model, **by_hand, **options) if named else OwnModel(model, **options)
    seen = Inspection(module, label, test, classes, class_names(model))
    seen.look_for_normalisation()
    notes += seen.notes
    content = digest(model_identity(model), repr(module.normalize), classes, _said(features), _said(head))
    facts: dict[str, Any] = {"trained": True, **({} if seen.gradients else {"gradients": False})}
    return lending.add("model", label, lambda: module, content, **facts)


def _said(value: Any) -> str:
    """Features or a head that were given, for the identity of a model."""
    return repr(value) if isinstance(value, str) else name_of(value)


# -- data -----------------------------------------------------------------------------------------------------


def _root(given: str | Path | None) -> Path:
    return data_root(given)


def _test_images(spec: Spec, source: DataSource) -> ImageSet:
    return resolve(spec, source, labelled=True).load("test")


def _ood(source: DataSource, ood: Any, limit: int | None) -> dict[str, Any]:
    if ood is None:
        return {}
    if isinstance(ood, Mapping) and set(map(str, ood)) <= {"near", "far"}:
        groups = {
            str(group): [
                as_spec(one, source, f"{group} OOD {n}", limit=limit) for n, one in enumerate(_several(sets), 1)
            ]
            for group, sets in ood.items()
        }
        return {"ood": groups}
    return {"ood": [as_spec(one, source, f"OOD {n}", limit=limit) for n, one in enumerate(_several(ood), 1)]}


def _several(sets: Any) -> list[Any]:
    """A list of sets; one set, which may be a tuple of images and labels, stands for itself."""
    return list(sets) if isinstance(sets, list) else [sets]


# -- components -----------------------------------------------------------------------------------------------


def _optional(lending: Lending, **axes: Any) -> dict[str, list[Any]]:
    """The axes of a suite that are not empty, with objects lent."""
    found: dict[str, list[Any]] = {}
    for axis, given in axes.items():
        if given is None or (isinstance(given, (list, tuple, Mapping)) and not given):
            continue
        kind = axis.removesuffix("s")
        found[axis] = [_component(lending, kind, label, item) for label, item in labelled(given, kind)]
    return found


def _component(lending: Lending, kind: str, label: str, item: Any) -> Spec:
    if isinstance(item, str):
        return item if label == item else {"name": item, "label": label}
    if isinstance(item, Mapping):
        return dict(item)
    if kind == "attack" and (peer := attack_peers.recognised(item)) is not None:
        return _attack_object(lending, label, peer)
    if kind == "detector" and (found := detector_peers.recognised(item)) is not None:
        made, needs, content = found
        return lending.add("detector", label, made, content, needs=needs)
    if not callable(item):
        raise GauntletError(f"{kind} {label!r}: expected a name, a spec, a function or an object, got {item!r}.")
    return lending.function(kind, label, item)


def _attack_object(lending: Lending, label: str, peer: attack_peers.Peer) -> Spec:
    """The spec of an attack object, with the budget that it was made with where ``eps`` says none."""
    made = attack_peers.factory(peer)
    needs = () if peer.kind == "minimum-norm" else ("victim", "images", "labels", "epsilon", "draws")
    facts = {"norm": peer.norm, "kind": peer.kind, "access": "gradient"}
    spec = dict(lending.add("attack", label, made, peer.content, needs=needs, **facts))
    if peer.epsilon is None or not lending.own_budgets:
        return {**spec}
    return {**spec, "epsilons": [float(peer.epsilon)]}


def _budgets(eps: Any) -> Any:
    if isinstance(eps, Mapping):
        return {norm: _budgets(values) for norm, values in eps.items()}
    return (
        [eps]
        if isinstance(eps, (int, float, str))
        else [value if isinstance(value, str) else float(value) for value in eps]
    )


def _require_pairs(suite: Mapping[str, Any]) -> None:
    """Raise where detectors lack OOD sets or the other way round, or budgets attacks.

    Raises:
        GauntletError: They do.
    """
    for given, lacking, hint in (
        ("detectors", "ood", 'OOD sets: give ood=[...], such as ood=["uniform-noise"]'),
        ("ood", "detectors", 'detectors: give detectors=[...], such as detectors=["msp", "knn"]'),
        ("epsilons", "attacks", 'attacks: give attacks=[...], such as attacks=["pgd"]'),
    ):
        if given in suite and lacking not in suite:
            raise GauntletError(f"{'eps' if given == 'epsilons' else given} need {hint}.")


def _evaluators(suite: Mapping[str, Any], *, calibration: bool, errors: bool) -> list[str]:
    """Accuracy, what the axes ask for as in a suite, and what is asked for by name."""
    by_keys = {entry.name: entry.meta.get("default_with") for entry in EVALUATORS}
    names = [name for name, keys in by_keys.items() if keys and all(key in suite or key == "checks" for key in keys)]
    names += ["accuracy", *(["calibration"] if calibration else []), *(["misclassification"] if errors else [])]
    return names
