"""What suites say about training: profiles, joined recipes, outliers, calibrators, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gauntlet.bench.execution import Reporter
from gauntlet.bench.listing import listing
from gauntlet.bench.model_keys import model_key, training_key
from gauntlet.bench.model_specs import resolve_models
from gauntlet.bench.plan import make_plan
from gauntlet.bench.runner import run_suite
from gauntlet.bench.suite import load_suite
from gauntlet.datasets import DataSource, resolve
from gauntlet.registry import MODELS, GauntletError
from gauntlet.results.frame import load_results

from .conftest import small_suite

NOTHING_ELSE: dict[str, Any] = {"attacks": None, "epsilons": None, "detectors": None, "ood": None}
NOISE = {"gaussian-noise": {"count": 200, "seed": 1}}
EXPOSED = {"outlier-exposure": {"epochs": 2, "batch_size": 64, "outliers": [NOISE, {"permuted": {"limit": 100}}]}}


def source(tmp_path: Path) -> DataSource:
    return DataSource(root=tmp_path, cache=tmp_path / "cache")


def plan(tmp_path: Path, models: list[Any], **changes: Any):
    keys = {**NOTHING_ELSE, "attack_images": None, "evaluators": ["accuracy"]}
    return make_plan(load_suite(small_suite(models=models, **{**keys, **changes})), source(tmp_path))


def net(recipe: Any, **more: Any) -> dict[str, Any]:
    return {"name": "cnn-small", "recipe": recipe, **more}


# -- recipes --------------------------------------------------------------------------------------------------


def test_a_profile_gives_parameters_that_the_suite_may_override(tmp_path: Path):
    (model,) = resolve_models((net({"standard": {"profile": "r2", "epochs": 2}}),), None)
    facts = model.describe()["recipe"]
    assert (facts["profile"], facts["epochs"], facts["batch_size"], facts["schedule"]) == ("r2", 2, 120, "exponential")
    assert model.recipe_label == "standard r2 epochs=2"


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(GauntletError, match="Recipe 'standard' has no profile 'r3'; did you mean 'r"):
        resolve_models((net({"standard": {"profile": "r3"}}),), None)


def test_a_profile_that_is_known_to_fail_says_so(tmp_path: Path):
    made = plan(tmp_path, [net({"adversarial": {"profile": "r2"}})])
    (note,) = made.notes
    assert (
        "Recipe 'adversarial', profile 'r2', is known to have a weakness: report R2 documents it as unsuccessful"
        in note
    )
    assert plan(tmp_path, [net("adversarial")]).notes == ()


def test_joined_recipes_train_as_one_and_are_recorded(tmp_path: Path):
    recipe = [EXPOSED, {"logitnorm": {"temperature": 0.1}}]
    suite = small_suite(models=[net(recipe, label="both")], evaluators=["accuracy"], attacks=None, epsilons=None)
    suite = {key: value for key, value in suite.items() if key not in ("detectors", "ood")}
    outcome = run_suite(suite, out=tmp_path / "out")
    assert outcome.counts == {"ok": 1}
    frame = load_results(tmp_path / "out")
    assert frame["recipe"].iloc[0].startswith("outlier-exposure")
    assert frame["recipe"].iloc[0].endswith("+logitnorm temperature=0.1")
    assert '"also"' in frame["params"].iloc[0]


# -- outliers -------------------------------------------------------------------------------------------------


def test_outliers_are_part_of_the_training_key(tmp_path: Path):
    digits = resolve("digits", source(tmp_path))

    def key(outliers: list[Any]) -> str:
        (model,) = resolve_models((net({"outlier-exposure": {"outliers": outliers}}),), None)
        return training_key(model, digits, 0)

    assert key([NOISE]) == key([NOISE])
    assert len({key([NOISE]), key([{"gaussian-noise": {"count": 200, "seed": 2}}]), key([NOISE, "permuted"])}) == 3


def test_transformed_outliers_are_made_from_the_training_set(tmp_path: Path):
    from gauntlet.bench.recipes import build_recipe

    (model,) = resolve_models((net(EXPOSED),), None)
    assert model.recipe is not None
    recipe = build_recipe(model.recipe, resolve("digits", source(tmp_path)))
    noise, permuted = recipe.outliers  # type: ignore[attr-defined]
    assert (noise.split, len(noise), permuted.split, len(permuted)) == ("test", 200, "train", 100)
    assert permuted.shape == (1, 28, 28)


def test_an_absent_outlier_set_skips_its_rows_and_no_others(tmp_path: Path):
    models = [net("outlier-exposure", label="OE"), net({"standard": {"epochs": 1}}, label="plain")]
    made = plan(tmp_path, models)
    blocked = {job.row.model.label: job.row.obstacle for job in made.jobs}
    assert "Dataset 'fashion-mnist'" in blocked["OE"]
    assert blocked["plain"] == ""


# -- calibrators ----------------------------------------------------------------------------------------------


def test_a_calibrated_row_shares_the_training_and_not_the_key(tmp_path: Path):
    plain, calibrated = resolve_models(("cnn-small", {"name": "cnn-small", "calibrator": "temperature"}), "standard")
    digits = resolve("digits", source(tmp_path))
    assert calibrated.label == "cnn-small + T"
    assert training_key(plain, digits, 0) == training_key(calibrated, digits, 0)
    assert model_key(plain, digits, 0) != model_key(calibrated, digits, 0)
    assert calibrated.describe()["calibrator"] == {"name": "temperature"}


def test_a_calibrated_ensemble_of_calibrated_members_runs(tmp_path: Path):
    class Trainings(Reporter):
        def __init__(self) -> None:
            self.seen: set[str] = set()

        def training(self, model: str, done: int, total: int, figures: dict[str, Any]) -> None:
            self.seen.add(model)

    recipe = {"standard": {"epochs": 3}}
    members = [{"cnn-small": {}}, {"name": "cnn-small", "replica": 1}]
    after = [{"name": "cnn-small", "calibrator": "platt"}, {"name": "cnn-small", "replica": 1, "calibrator": "vector"}]
    models = [
        {"name": "ensemble", "label": "Ens", "members": members, "recipe": recipe},
        {"name": "ensemble", "label": "Ens + T", "members": members, "recipe": recipe, "calibrator": "temperature"},
        {
            "name": "ensemble",
            "label": "Ens of cal + T",
            "members": after,
            "recipe": recipe,
            "calibrator": "temperature",
        },
        {"name": "ensemble", "label": "Ens + W", "members": members, "recipe": recipe, "calibrator": "member-weights"},
    ]
    suite = small_suite(models=models, attacks=None, epsilons=None, detectors=["msp", "mahalanobis"])
    reporter = Trainings()
    outcome = run_suite(suite, out=tmp_path / "out", reporter=reporter)
    assert set(outcome.counts) == {"ok"}
    assert len(reporter.seen) <= 2  # two members, each trained once, whatever is calibrated
    frame = load_results(tmp_path / "out")
    ece = frame[frame["metric"] == "nll"].set_index("model")["value"]
    assert ece["Ens + T"] < ece["Ens"]
    assert ece["Ens of cal + T"] < ece["Ens"]
    assert ece["Ens + W"] == pytest.approx(ece["Ens"], abs=0.05)
    accuracy = frame[(frame["metric"] == "accuracy") & (frame["class"] == "")].set_index("model")["value"]
    assert accuracy["Ens + T"] == accuracy["Ens"]


def test_members_come_from_checkpoints_or_from_training(tmp_path: Path):
    torch.manual_seed(0)
    given = MODELS.create("cnn-small")
    save_file(given.state_dict(), tmp_path / "mine.safetensors")
    member = {"name": "cnn-small", "weights": str(tmp_path / "mine.safetensors")}

    class Trainings(Reporter):
        def __init__(self) -> None:
            self.seen: set[str] = set()

        def training(self, model: str, *_: Any) -> None:
            self.seen.add(model)

    for members, trained in (([member, member], 0), ([member, "cnn-small"], 1)):
        reporter = Trainings()
        models = [{"name": "ensemble", "members": members, "recipe": {"standard": {"epochs": 2, "lr": 0.003}}}]
        suite = small_suite(
            models=models, evaluators=["accuracy"], attacks=None, epsilons=None, detectors=None, ood=None
        )
        outcome = run_suite(suite, out=tmp_path / str(trained), reporter=reporter)
        assert outcome.complete
        assert len(reporter.seen) == trained


def test_an_unknown_calibrator_names_the_nearest():
    with pytest.raises(GauntletError, match="Unknown calibrator 'temprature'; did you mean 'temperature'"):
        resolve_models(({"name": "cnn-small", "calibrator": "temprature"},), None)


# -- lists and suites -----------------------------------------------------------------------------------------


def test_list_shows_several_kinds_with_parameter_counts_and_profiles():
    assert "torchvision/NAME" in listing(["models"])[0]
    text, _ = listing(["models", "recipes"], as_json=True)
    assert "21840" in text
    assert "4544332" in text
    assert "r1-plus" in text
    assert '"detector"' not in text


@pytest.mark.parametrize("name", ["r1-models", "r2-models", "r2-calibration", "recipes", "augmentation-study"])
@pytest.mark.parametrize("profile", [None, "full"])
def test_the_suites_of_the_reports_plan(name: str, profile: str | None, tmp_path: Path):
    made = make_plan(load_suite(name, profile=profile), source(tmp_path))
    assert made.left_out == ()
    assert all(job.row.obstacle for job in made.jobs)  # there are no data here


def test_a_module_and_function_is_a_model_of_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "suite_nets.py").write_text(
        "from torch import nn\ndef tiny(classes=10):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = {"datasets": ["digits"], "models": ["suite_nets:tiny"], "recipe": {"standard": {"epochs": 1}}}
    outcome = run_suite({**suite, "evaluators": ["accuracy"]}, out=tmp_path / "out")
    assert outcome.counts == {"ok": 1}


def test_a_shifted_test_set_shares_the_training(tmp_path: Path):
    trained: list[str] = []

    class Trainings(Reporter):
        def training(self, model: str, done: int, total: int, figures: dict[str, Any]) -> None:
            if done == total:
                trained.append(model)

    suite = {
        "datasets": ["digits", {"digits": {"shift": "noise"}}],
        "models": [net({"standard": {"epochs": 4, "lr": 2e-3}}, label="once")],
        "evaluators": ["accuracy"],
    }
    outcome = run_suite(suite, out=tmp_path / "out", reporter=Trainings())
    assert outcome.counts == {"ok": 2}
    assert trained == ["once"]
    frame = load_results(tmp_path / "out")
    accuracy = frame[frame["class"] == ""].set_index("dataset")["value"]
    assert accuracy["digits shift=noise"] < accuracy["digits"]


# -- loggers --------------------------------------------------------------------------------------------------

HISTORY = [{"epoch": 1, "loss": 2.0, "val_loss": 2.1}, {"epoch": 2, "loss": 1.0, "val_loss": 1.2}]


def test_tensorboard_holds_the_curves_of_every_training_once(tmp_path: Path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    suite = {"datasets": ["digits"], "models": [net({"standard": {"epochs": 2}})], "evaluators": ["accuracy"]}
    for _ in range(2):
        run_suite(suite, out=tmp_path / "out", logger="tensorboard")
    (folder,) = (tmp_path / "out" / "tensorboard").iterdir()
    assert len(list(folder.iterdir())) == 1
    reader = events.EventAccumulator(str(folder)).Reload()
    assert {"loss", "accuracy", "val_loss", "test_accuracy"} <= set(reader.Tags()["scalars"])
    assert [event.step for event in reader.Scalars("val_loss")] == [1, 2]


def test_wandb_is_offline_unless_the_user_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import sys
    from types import SimpleNamespace

    from gauntlet.results.trackers import open_logger

    calls: list[Any] = []
    run = SimpleNamespace(log=lambda row, step: calls.append((step, row["loss"])), finish=lambda: calls.append("end"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: calls.append(given["mode"]) or run))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    open_logger("wandb", tmp_path)("a" * 32, "CNN", HISTORY)
    assert calls == ["offline", (1, 2.0), (2, 1.0), "end"]


def test_an_unknown_or_absent_logger_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import sys

    from gauntlet.results.trackers import open_logger

    with pytest.raises(GauntletError, match="no logger 'tensorbord'; did you mean 'tensorboard'"):
        open_logger("tensorbord", tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(GauntletError, match=r"not installed: pip install 'gauntlet-bench\[wandb\]'"):
        open_logger("wandb", tmp_path)


def test_settings_that_cannot_work_are_found_before_anything_runs(tmp_path: Path):
    recipe = {"adversarial": {"epochs": 5, "weights": [[1, 0.1], [3, 0.5]]}}
    with pytest.raises(
        GauntletError, match=r"suite:5:3: recipe 'adversarial': its weights cover 4 epochs but it has epochs=5"
    ):
        plan(tmp_path, [net(recipe)])
    with pytest.raises(GauntletError, match="each replace the criterion: only one of them can"):
        plan(tmp_path, [net(["logitnorm", "logitnorm"])])


def test_a_cache_that_cannot_be_written_is_told_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class NoTraining(Reporter):
        def training(self, *_: Any) -> None:
            raise AssertionError("it trains")

    (tmp_path / "file").touch()
    monkeypatch.setenv("GAUNTLET_CACHE", str(tmp_path / "file"))
    suite = small_suite(evaluators=["accuracy"], **NOTHING_ELSE)
    outcome = run_suite(suite, out=tmp_path / "out", reporter=NoTraining())
    reasons = set(load_results(outcome.out)["reason"])
    assert len(reasons) == 1
    assert "set GAUNTLET_CACHE to a folder that can be written" in reasons.pop()
