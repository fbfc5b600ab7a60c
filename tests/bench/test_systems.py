"""Models that are more, or less, than a classifier: what they declare decides plan and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gauntlet.bench.model_keys import model_key, training_key
from gauntlet.bench.model_specs import resolve_model, resolve_models
from gauntlet.bench.plan import Plan, make_plan
from gauntlet.bench.recipes import default_recipe
from gauntlet.bench.runner import prepare, run_suite
from gauntlet.bench.suite import load_suite
from gauntlet.datasets import DataSource, resolve
from gauntlet.registry import REGISTRIES, GauntletError, load_plugins
from gauntlet.results.frame import load_results

from .conftest import small_suite

CODER = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    from gauntlet import model, recipe
    from gauntlet.models.training.hooks import Hook, LossOutput
    from gauntlet.models.training.trainer import Trainer


    @model("coder", outputs=("embedding", "features"), recipe="decorrelation")
    class Coder(nn.Module):
        '''Eight numbers an image.'''

        def __init__(self, *, width: int = 8):
            super().__init__()
            self.layer = nn.Linear(784, width)

        def forward(self, x):
            return self.layer(x.flatten(1))

        def forward_outputs(self, x):
            return {"embedding": self(x), "features": self(x)}


    class Decorrelate(Hook):
        replaces = "criterion"

        def objective(self, loop, batch, inner):
            codes = F.normalize(loop.module(batch.images), dim=1)
            return LossOutput((codes @ codes.T).square().mean(), None)

        def evaluate(self, loop, images):
            loop.module.eval()
            with torch.no_grad():
                return {"loss": float(loop.module(images.images.to(loop.device)).square().mean())}


    @recipe("decorrelation", needs=("embedding",))
    class Decorrelation(Trainer):
        '''Codes that differ.'''

        name = "decorrelation"
        labelled = False

        def own_hooks(self):
            return [Decorrelate()]

        def _check_model(self, module, train, device):
            return None
"""

PROBING = """
    @model("probe", children="encoder")
    class Probe(nn.Module):
        '''A linear classifier on a frozen encoder.'''

        def __init__(self, encoder="coder", *, classes: int = 10):
            super().__init__()
            self.encoder = encoder.requires_grad_(False)
            self.fc = nn.Linear(encoder.layer.out_features, classes)

        def forward(self, x):
            return self.fc(self.encoder(x))
"""

CODES = [{"name": "coder", "label": "codes", "recipe": {"decorrelation": {"epochs": 2}}}]
PROBE = {"name": "probe", "encoder": CODES[0], "recipe": {"standard": {"epochs": 10, "lr": 0.02}}}

NO_AXES: dict[str, Any] = {"attacks": None, "epsilons": None, "detectors": None, "ood": None}


@pytest.fixture
def coder(write_plugin: Any) -> str:
    return loaded(write_plugin, CODER + PROBING)


def loaded(write_plugin: Any, code: str) -> str:
    path = write_plugin(code, "coder.py")
    load_plugins([path], REGISTRIES.values())
    return path


def plan_of(tmp_path: Path, **changes: Any) -> Plan:
    return make_plan(load_suite(small_suite(**changes)), DataSource(root=tmp_path / "data", cache=tmp_path))


def test_a_model_brings_the_recipe_that_can_train_it(coder: str):
    default = default_recipe("standard")
    model = resolve_model("coder", default)
    assert model.recipe is not None
    assert model.recipe.entry.name == "decorrelation"
    assert resolve_model({"name": "coder", "recipe": "none"}, default).recipe is None


def test_a_recipe_that_cannot_train_the_model_is_refused(coder: str):
    message = "Recipe 'standard' trains models that yield logits, but model 'coder' yields embedding, features; its own"
    with pytest.raises(GauntletError, match=message):
        resolve_models(({"name": "coder", "recipe": "standard"},), None)
    with pytest.raises(GauntletError, match="Recipe 'decorrelation' trains models that yield embedding, but model"):
        resolve_models(({"name": "cnn-small", "recipe": "decorrelation"},), None)


def test_a_calibrator_needs_logits(coder: str):
    with pytest.raises(GauntletError, match="Calibrator 'temperature' needs logits, but model 'coder"):
        resolve_models(({"name": "coder", "calibrator": "temperature"},), None)


def test_what_can_never_fit_is_left_out_of_the_plan_once_with_its_reason(tmp_path: Path, coder: str):
    models = [*CODES, {"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 1}}}]
    plan = plan_of(tmp_path, models=models, detectors=["msp", {"knn": {"k": 5}}], seeds=[0, 1])
    cells = {(cell.identity.model, cell.identity.evaluator, cell.identity.detector) for cell in plan.cells}
    assert {(evaluator, detector) for model, evaluator, detector in cells if model == "codes"} == {("ood", "knn k=5")}
    reasons = {item.what: item.reason for item in plan.left_out}
    assert reasons["msp of codes on digits"] == "it needs logits, and codes yields embedding, features"
    assert reasons["attack of codes on digits"] == "it needs logits, and codes yields embedding, features"
    assert not any("CNN" in what for what in reasons)


def test_a_suite_in_which_nothing_fits_says_why(tmp_path: Path, write_plugin: Any):
    loaded(write_plugin, CODER)
    with pytest.raises(GauntletError, match="accuracy of codes on digits: it needs logits"):
        plan_of(tmp_path, models=CODES, evaluators=["accuracy"], **NO_AXES)


def test_a_model_is_trained_on_top_of_another_that_is_trained_first(tmp_path: Path, coder: str):
    models = [*CODES, {**PROBE, "label": "probe"}]
    outcome = run_suite(small_suite(models=models, evaluators=["accuracy", "ood"]), out=tmp_path / "out")
    assert set(outcome.counts) == {"ok"}
    frame = load_results(tmp_path / "out")
    accuracy = frame[(frame["metric"] == "accuracy") & (frame["class"] == "")]
    assert accuracy["model"].tolist() == ["probe"]
    assert accuracy["value"].item() > 0.2  # chance is 0.1
    assert frame[frame["model"] == "probe"]["recipe"].iloc[0] == "standard epochs=10 lr=0.02"


def test_the_weights_of_the_inner_model_stay_as_it_was_trained(tmp_path: Path, coder: str):
    from gauntlet.bench.context import Resources, RowContext
    from gauntlet.registry.folders import cache_folder

    suite = small_suite(models=[*CODES, {**PROBE, "label": "probe"}], evaluators=["accuracy", "ood"])
    plan, _ = prepare(suite)
    resources = Resources(torch.device("cpu"), cache_folder())
    rows = {job.row.model.label: job.row for job in plan.jobs}
    modules = {label: RowContext(row, plan.suite, resources).module() for label, row in rows.items()}
    assert torch.equal(modules["codes"].layer.weight, modules["probe"].encoder.layer.weight)


def test_the_key_of_a_training_covers_the_models_inside(tmp_path: Path, coder: str):
    digits = resolve("digits", DataSource(root=tmp_path, cache=tmp_path))
    longer = {**PROBE, "encoder": {"coder": {"recipe": {"decorrelation": {"epochs": 3}}}}}
    plain, changed = (resolve_models((spec,), None)[0] for spec in (PROBE, longer))
    assert training_key(plain, digits, 0) != training_key(changed, digits, 0)


# -- init_from ------------------------------------------------------------------------------------------------

SHORT = {"name": "cnn-small", "recipe": {"standard": {"epochs": 4}}}


def test_a_training_may_start_from_another_models_weights(tmp_path: Path):
    still = {"standard": {"epochs": 1, "lr": 1e-12, "steps": 1}}
    models = [
        {**SHORT, "label": "first"},
        {"name": "cnn-small", "label": "second", "recipe": still, "init_from": SHORT},
    ]
    run_suite(small_suite(models=models, evaluators=["accuracy"], **NO_AXES), out=tmp_path / "out")
    frame = load_results(tmp_path / "out")
    first, second = frame[(frame["metric"] == "accuracy") & (frame["class"] == "")]["value"]
    assert first > 0.5
    assert abs(first - second) < 0.02
    assert '"init_from"' in frame[frame["model"] == "second"]["params"].iloc[0]


def test_init_from_is_part_of_the_key(tmp_path: Path):
    digits = resolve("digits", DataSource(root=tmp_path, cache=tmp_path))
    plain, started = (resolve_models((spec,), None)[0] for spec in (SHORT, {**SHORT, "init_from": SHORT}))
    assert model_key(plain, digits, 0) != model_key(started, digits, 0)
    assert started.trains


def test_init_from_must_be_of_the_same_architecture_and_be_trained_further():
    with pytest.raises(GauntletError, match="init_from is the start of a training: it must name a 'cnn-small'"):
        resolve_models(({**SHORT, "init_from": "m3"},), None)
    with pytest.raises(GauntletError, match="and the model must have a recipe"):
        resolve_models(({"name": "cnn-small", "recipe": "none", "init_from": SHORT},), None)
