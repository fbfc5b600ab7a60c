"""The plan: the cross product, what is left out, and keys that change exactly when a number could."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gauntlet.bench.model_specs import resolve_models
from gauntlet.bench.plan import Plan, make_plan
from gauntlet.bench.runner import prepare
from gauntlet.bench.suite import load_suite
from gauntlet.datasets import DataSource
from gauntlet.registry import MODELS, GauntletError

from .conftest import small_suite


def plan_of(tmp_path: Path, **changes: Any) -> Plan:
    return make_plan(load_suite(small_suite(**changes)), DataSource(root=tmp_path / "data", cache=tmp_path))


def keys(plan: Plan) -> dict[str, str]:
    return {str(cell.identity): cell.key for cell in plan.cells}


def test_cells_are_the_cross_product_of_the_axes(tmp_path):
    plan = plan_of(tmp_path, seeds=[0, 1])
    by_evaluator: dict[str, int] = {}
    for cell in plan.cells:
        by_evaluator[cell.identity.evaluator] = by_evaluator.get(cell.identity.evaluator, 0) + 1
    assert by_evaluator == {"accuracy": 2, "calibration": 2, "ood": 2 * 2 * 2, "attack": 2 * 2 * 2}
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)


def test_keys_do_not_depend_on_batch_size_labels_or_other_cells(tmp_path):
    before = keys(plan_of(tmp_path))
    assert keys(plan_of(tmp_path, batch_size=7)) == before
    assert set(keys(plan_of(tmp_path, detectors=["msp"])).values()) < set(before.values())
    renamed = plan_of(tmp_path, attacks=[{"name": "fgsm", "label": "other"}, {"name": "pgd", "steps": 3}])
    assert set(keys(renamed).values()) == set(before.values())


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"models": [{"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 4}}}]}, "all"),
        (
            {"models": [{"name": "cnn-small", "label": "CNN", "dropout": 0.1, "recipe": {"standard": {"epochs": 3}}}]},
            "all",
        ),
        ({"datasets": [{"digits": {"limit": 500, "label": "digits"}}]}, "all"),
        ({"attack_images": 41}, "attack"),
        ({"attacks": ["fgsm", {"name": "pgd", "steps": 4, "label": "pgd steps=3"}]}, "pgd"),
        ({"detectors": ["msp", {"knn": {"k": 6, "label": "knn k=5"}}]}, "knn"),
        (
            {
                "ood": {
                    "near": [{"glyphs": {"limit": 90, "label": "glyphs limit=100"}}],
                    "far": [{"uniform-noise": {"limit": 100}}],
                }
            },
            "glyphs",
        ),
        ({"fit_limit": 100}, "knn"),
    ],
)
def test_keys_change_where_a_number_could(tmp_path, change, moved):
    before, after = keys(plan_of(tmp_path)), keys(plan_of(tmp_path, **change))
    assert before.keys() == after.keys()
    changed = {identity for identity in before if before[identity] != after[identity]}
    expected = set(before) if moved == "all" else {identity for identity in before if moved in identity}
    assert changed == expected


def test_spelling_out_a_default_changes_no_key(tmp_path):
    spelt = [
        {"name": "cnn-small", "label": "CNN", "activation": "relu", "recipe": {"standard": {"epochs": 3, "lr": None}}}
    ]
    assert keys(plan_of(tmp_path, models=spelt)) == keys(plan_of(tmp_path))


def test_pairs_that_can_never_fit_are_left_out_with_their_reason(tmp_path):
    plan = plan_of(tmp_path, datasets=["digits", "svhn", "glyphs"])
    reasons = {item.what: item.reason for item in plan.left_out}
    assert reasons["CNN on svhn"] == "cnn-small takes 1x28x28 images, svhn has 3x32x32"
    assert reasons["CNN on glyphs"] == "glyphs has no training split"


def test_detectors_of_named_outputs_meet_only_models_that_declare_them(tmp_path):
    euinet = {"name": "euinet", "label": "EuiNet"}
    detectors = ["msp", "discriminator", "reconstruction"]
    models = [{"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 3}}}, euinet]
    plan = plan_of(tmp_path, models=models, detectors=detectors, evaluators=["ood"], attacks=None, epsilons=None)
    pairs = {(cell.identity.model, cell.identity.detector) for cell in plan.cells}
    assert pairs == {("CNN", "msp"), ("EuiNet", "msp"), ("EuiNet", "discriminator")}
    reasons = {item.what: item.reason for item in plan.left_out}
    assert reasons["discriminator of CNN on digits"] == "it needs h, and CNN yields logits"


def test_a_suite_in_which_nothing_fits_is_an_error_with_the_reasons(tmp_path):
    with pytest.raises(GauntletError, match=r"nothing in this suite fits together .*cnn-small takes 1x28x28 images"):
        plan_of(tmp_path, datasets=["svhn"])


def test_what_is_absent_is_planned_and_blocked_with_its_reason(tmp_path):
    plan = plan_of(tmp_path, datasets=["mnist"], ood=["notmnist", "uniform-noise"])
    assert plan.left_out == ()
    assert all("mnist" in job.row.obstacle and "--download" in job.row.obstacle for job in plan.jobs)
    plan = plan_of(tmp_path, ood=["notmnist", "uniform-noise"])
    (job,) = [job for job in plan.jobs if job.evaluator == "ood"]
    assert len(job.obstacles) == 2
    assert all("notMNIST" in reason for reason in job.obstacles.values())


def test_a_dataset_is_not_ood_for_itself_unless_its_classes_are_held_out(tmp_path):
    plan = plan_of(tmp_path, ood=["digits", "uniform-noise"])
    assert [item.reason for item in plan.left_out] == ["it is the in-distribution set itself"]
    held = plan_of(
        tmp_path,
        datasets=[{"digits": {"hold_out": [0], "label": "digits 1-9"}}],
        ood=[{"digits": {"only": [0], "label": "zeros"}}],
    )
    assert held.left_out == ()
    assert {cell.identity.ood_dataset for cell in held.cells} == {"", "zeros"}


def test_an_ensemble_trains_each_distinct_member_and_depends_on_all_of_them(tmp_path):
    def ensemble(width: float) -> list[Any]:
        members = [{"m3": {"width": width}}, {"m7": {"width": 0.1}}]
        return [{"name": "ensemble", "label": "CNN", "members": members, "recipe": "standard"}]

    one, two = keys(plan_of(tmp_path, models=ensemble(0.1))), keys(plan_of(tmp_path, models=ensemble(0.2)))
    assert not set(one.values()) & set(two.values())


def test_models_with_the_users_weights_are_keyed_by_the_weights(tmp_path):
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"{seed}.safetensors")
        save_file(MODELS.create("cnn-small").state_dict(), paths[-1])
    one, two = (
        keys(plan_of(tmp_path, models=[{"name": "cnn-small", "label": "CNN", "weights": str(path)}])) for path in paths
    )
    assert not set(one.values()) & set(two.values())


def test_an_absent_file_of_weights_names_the_nearest(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(GauntletError, match=r"no file of weights '[^']*min.safetensors'\.$"):
        plan_of(tmp_path, models=[{"name": "cnn-small", "weights": str(tmp_path / "min.safetensors")}])
    (tmp_path / "mine.safetensors").touch()
    with pytest.raises(GauntletError, match=r"no file of weights .*did you mean 'mine.safetensors'"):
        plan_of(tmp_path, models=[{"name": "cnn-small", "weights": str(tmp_path / "min.safetensors")}])


def test_everything_is_the_full_cross_product_of_the_registries(tmp_path):
    plan = make_plan(load_suite("everything"), DataSource(root=tmp_path / "none", cache=tmp_path))
    planned = {
        (cell.identity.model, cell.identity.attack) for cell in plan.cells if cell.identity.evaluator == "attack"
    }
    from gauntlet.registry import ATTACKS

    worst = {attack for _, attack in planned if attack.startswith("worst-case")}
    assert {attack for _, attack in planned} - worst == {entry.name for entry in ATTACKS}
    classifiers = {entry.name for entry in MODELS if "logits" in entry.meta.get("outputs", ("logits",))}
    assert {model for model, _ in planned} == classifiers
    assert plan.left_out
    assert all(item.reason for item in plan.left_out)


BUILT = """
from pathlib import Path
import torch
from gauntlet import model

@model("own", trained=True)
def own(classes: int = 10):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, classes))
    net.load_state_dict(torch.load(Path(__file__).with_name("own.pt"), weights_only=True))
    return net
"""


def test_a_model_that_loads_its_own_weights_is_keyed_by_them(tmp_path, write_plugin):
    from gauntlet.registry import REGISTRIES, load_plugin

    load_plugin(write_plugin(BUILT), REGISTRIES.values())
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        torch.save(net.state_dict(), tmp_path / "own.pt")
        found.append(keys(plan_of(tmp_path, models=["own"])))
    assert not set(found[0].values()) & set(found[1].values())


def test_untrained_models_of_two_seeds_are_two_models(tmp_path):
    plan = plan_of(tmp_path, models=[{"name": "cnn-small", "recipe": "none"}], seeds=[0, 1])
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)


def test_equal_members_of_an_ensemble_are_replicas(tmp_path):
    (spec,) = resolve_models(({"name": "ensemble", "members": ["m7", "m7", "m7"]},), "standard")
    assert [member.replica for member in spec.members] == [0, 1, 2]


def test_weights_of_an_ensemble_train_no_member_and_its_members_are_part_of_the_key(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    found = []
    for activation in ("relu", "gelu"):
        spec = {"name": "ensemble", "label": "E", "members": [{"m7": {"activation": activation}}], "weights": str(path)}
        plan = plan_of(tmp_path, models=[spec])
        assert not plan.jobs[0].row.model.trains
        assert plan.jobs[0].row.model.members[0].recipe is None
        found.append(keys(plan))
    assert not set(found[0].values()) & set(found[1].values())


def test_a_plugin_dataset_that_reads_its_own_file_is_keyed_by_its_images(tmp_path, write_plugin):
    from gauntlet.registry import REGISTRIES, load_plugin

    code = """
    from pathlib import Path
    import torch
    from gauntlet import dataset

    @dataset("mine", splits=("test",))
    def mine(split):
        return torch.load(Path(__file__).with_name("mine.pt"), weights_only=True), torch.zeros(4, dtype=torch.int64)
    """
    load_plugin(write_plugin(code), REGISTRIES.values())
    found = []
    for value in (0.0, 1.0):
        torch.save(torch.full((4, 1, 28, 28), value), tmp_path / "mine.pt")
        found.append(keys(plan_of(tmp_path, ood=["mine"])))
    assert {key for key in found[0] if found[0][key] != found[1][key]} == {key for key in found[0] if "mine" in key}


def test_what_needs_a_parameter_is_left_out_of_patterns_with_its_reason(tmp_path, write_plugin):
    plugin = write_plugin(
        '''
        from gauntlet import attack, detector, model

        @attack("needy", norm="linf", kind="fixed", access="none", cost="fast")
        def needy(*, force: float):
            """Needs a force."""

        @model("needy-net")
        def needy_net(depth: int, classes: int = 10):
            """Needs a depth."""
        '''
    )
    plan, problems = prepare(small_suite(attacks=["fgs*", "tag:single-step"], models=["[cn]*-[sn]*"]), plugins=[plugin])
    assert problems == []
    reasons = {item.what: item.reason for item in plan.left_out}
    assert "needs a value for its parameter 'force': write {needy: {force: ...}}." in reasons["needy"]
    assert "parameter 'depth'" in reasons["needy-net"]
    assert {job.row.model.label for job in plan.jobs} == {"cnn-small"}
