"""How models come to their weights: none is trained, or left untrained, unless somebody said so."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.bench.runner import prepare, run_suite
from gauntlet.bench.suite import load_suite
from gauntlet.models.build import own_copy
from gauntlet.registry import MODELS, GauntletError
from gauntlet.results.frame import load_results

EPOCH = {"standard": {"epochs": 1}}
HELD = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
HELD[1].bias.requires_grad_(False)
FACTORIES = """
from torch import nn
def net(classes=10, pretrained=False):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))
"""


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A factory that says nothing, one that says it is trained, and a module with a factory."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    gauntlet.model("says-nothing")(lambda pretrained=False: HELD)
    gauntlet.model("says-trained", trained=True)(lambda: HELD)
    (tmp_path / "arriving.py").write_text(FACTORIES)
    yield
    MODELS._forget(["says-nothing", "says-trained"])
    sys.modules.pop("arriving", None)


def suite(*specs: Any, **more: Any) -> dict[str, Any]:
    return {"datasets": ["digits"], "models": [*specs], "evaluators": ["accuracy"], **more}


INSIDE = {
    "a model": lambda spec: suite(spec),
    "a member": lambda spec: suite({"name": "ensemble", "members": [spec, "cnn-small"]}),
    "a start": lambda spec: suite({"name": "says-nothing", "label": "x", "recipe": EPOCH, "init_from": spec}),
    "a surrogate": lambda spec: suite(
        "cnn-small", evaluators=["attack"], attacks=[{"name": "transfer", "surrogate": spec}]
    ),
}


@pytest.mark.parametrize("where", INSIDE)
def test_where_nothing_says_how_a_model_comes_to_its_weights_the_plan_stops_and_names_both_cures(where: str) -> None:
    with pytest.raises(GauntletError, match=r"trained=True\), or name the recipe .* `recipe: standard`"):
        prepare(INSIDE[where]("says-nothing"))


@pytest.mark.parametrize(
    ("spec", "recipe"),
    [
        ("says-trained", "none"),
        ({"name": "says-nothing", "recipe": EPOCH}, "standard epochs=1"),
        ({"name": "says-trained", "recipe": EPOCH}, "standard epochs=1"),  # asked for, so it is trained further
        ({"name": "says-nothing", "recipe": "none"}, "none"),
        ({"name": "says-nothing", "pretrained": True}, "none"),
        ("cnn-small", "standard"),
    ],
    ids=str,
)
def test_what_is_said_holds(spec: Any, recipe: str) -> None:
    (model,) = prepare(suite(spec))[0].suite.model_specs
    assert model.recipe_label == recipe


def test_the_recipe_of_a_suite_trains_what_does_not_say_that_it_is_trained() -> None:
    found = prepare(suite("says-nothing", "says-trained", "cnn-small", recipe=EPOCH))[0].suite.model_specs
    assert [model.recipe_label for model in found] == ["standard epochs=1", "none", "standard epochs=1"]


def test_a_module_and_function_arrives_trained_unless_its_own_item_names_a_recipe(tmp_path: Path) -> None:
    sys.path.append(str(tmp_path))
    own = {"name": "arriving:net", "label": "own", "recipe": EPOCH}
    plan, _ = prepare(suite("arriving:net", own, recipe=EPOCH))
    assert [model.recipe_label for model in plan.suite.model_specs] == ["none", "standard epochs=1"]
    assert [note for note in plan.notes if "arrives trained" in note] == [
        "model 'arriving:net' arrives trained; write {name: 'arriving:net', recipe: ...} to train it."
    ]
    assert not prepare(suite("arriving:net"))[0].notes


@pytest.mark.parametrize(
    "spec", ["says-trained", {"name": "says-nothing", "recipe": EPOCH}], ids=["as it is", "trained"]
)
def test_an_object_that_a_factory_hands_over_stays_as_it_is(tmp_path: Path, spec: Any) -> None:
    before, places = copy.deepcopy(HELD.state_dict()), [value.data_ptr() for value in HELD.parameters()]
    run_suite(suite(spec), out=tmp_path)
    row = load_results(tmp_path).iloc[0]
    assert row["status"] == "ok", row["reason"]
    assert all(torch.equal(value, before[name]) for name, value in HELD.state_dict().items())
    assert [value.data_ptr() for value in HELD.parameters()] == places
    assert HELD.training
    assert [value.requires_grad for value in HELD.parameters()] == [True, False]
    assert not HELD._forward_hooks
    test = gauntlet.create_dataset("digits").load("test")
    with torch.no_grad():
        right = (HELD(test.images.float()).argmax(1) == test.labels).double().mean().item()
    assert (row["value"] == pytest.approx(right)) == (spec == "says-trained")


def test_weights_that_are_computed_before_each_pass_are_copied_too() -> None:
    normed = torch.nn.utils.weight_norm(nn.Linear(3, 2))
    normed(torch.ones(1, 3)).sum().backward()
    copied = own_copy(normed)
    assert torch.equal(copied(torch.ones(1, 3)), normed(torch.ones(1, 3)))
    with torch.no_grad():
        copied.weight_g.zero_()
    assert torch.equal(copied(torch.ones(1, 3))[0], copied.bias)
    assert not torch.equal(normed(torch.ones(1, 3))[0], normed.bias)


def test_what_cannot_be_copied_is_one_sentence() -> None:
    class Closed(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("a lock")

    with pytest.raises(GauntletError, match=r"Closed cannot be copied \(a lock\)"):
        own_copy(Closed(1, 1))


def written(folder: Path, model: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "suite.yaml"
    path.write_text(f"datasets: [digits]\nmodels: ['{model}']\nevaluators: [accuracy]\n")
    return path


@pytest.mark.parametrize("name", ["os:system", "os.path:join", "subprocess:run", "builtins:exec", "arriving:net"])
def test_a_suite_file_names_no_function_of_what_merely_can_be_imported(tmp_path: Path, name: str) -> None:
    sys.path.append(str(tmp_path))
    module = name.partition(":")[0]
    with pytest.raises(GauntletError, match=rf"suite.yaml:2:10: A suite names functions only .* `--plugin {module}`"):
        load_suite(written(tmp_path / "elsewhere", name))
    assert "arriving" not in sys.modules


@pytest.mark.parametrize("plugin", ["arriving", "arriving.py"])
def test_a_suite_file_names_functions_of_its_plugins(tmp_path: Path, plugin: str) -> None:
    sys.path.append(str(tmp_path))
    given = str(tmp_path / plugin) if plugin.endswith(".py") else plugin
    plan, _ = prepare(written(tmp_path / "elsewhere", "arriving:net"), plugins=[given])
    assert len(plan.cells) == 1


def test_a_suite_file_names_functions_of_what_lies_beside_it(tmp_path: Path) -> None:
    assert len(prepare(written(tmp_path, "arriving:net"))[0].cells) == 1


def test_a_file_beside_a_suite_lends_its_name_to_no_module_of_python(tmp_path: Path) -> None:
    (tmp_path / "os.py").write_text("")
    with pytest.raises(GauntletError, match="names functions only"):
        load_suite(written(tmp_path, "os:system"))


def test_planning_builds_and_calls_nothing_of_the_users(tmp_path: Path, write_plugin: Any) -> None:
    """Each component of the plug-in leaves a file when it is built or called."""
    plugin = write_plugin(f"""
        from pathlib import Path
        from gauntlet import attack, augmentation, calibrator, corruption, dataset, detector, metric, model, recipe
        from gauntlet.attacks import Attack
        from gauntlet.detectors import Detector

        def ran(name):
            (Path({str(tmp_path)!r}) / f"{{name}}.ran").touch()

        @model("runs-model")
        def a_model(depth: int = 1):
            ran("model")

        @recipe("runs-recipe")
        class ARecipe:
            def __init__(self, *, epochs: int = 1):
                ran("recipe")

        @attack("runs-attack")
        class AnAttack(Attack):
            def __init__(self, *, steps: int = 1):
                ran("attack")

        @detector("runs-detector", needs=("logits",))
        class ADetector(Detector):
            def __init__(self, *, k: int = 1):
                ran("detector")

        @corruption("runs-corruption")
        def a_corruption(images, severity):
            ran("corruption")

        @calibrator("runs-calibrator")
        class ACalibrator:
            def __init__(self, *, k: int = 1):
                ran("calibrator")

        @metric("runs-metric")
        def a_metric(right):
            ran("metric")

        @dataset("runs-dataset", splits=("test",), shape=(1, 28, 28), classes=("a",), files=())
        def a_dataset(split):
            ran("dataset")
    """)
    model = {
        "name": "runs-model",
        "depth": 2,
        "recipe": {"runs-recipe": {"epochs": 2}},
        "calibrator": "runs-calibrator",
    }
    more = {
        "attacks": [{"runs-attack": {"steps": 2}}],
        "detectors": [{"runs-detector": {"k": 2}}],
        "corruptions": ["runs-corruption"],
        "ood": ["runs-dataset"],
    }
    plan, _ = prepare({"datasets": ["digits"], "models": [model], **more}, plugins=[plugin])
    assert len(plan.cells) > 5
    assert sorted(path.name for path in tmp_path.glob("*.ran")) == []
