"""Suites: what a YAML file may say, and where a mistake is reported."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from gauntlet.bench.plan import make_plan
from gauntlet.bench.suite import builtin_suites, load_suite, parse_epsilons, parse_suite
from gauntlet.datasets import DataSource
from gauntlet.registry import GauntletError

GOOD = """\
datasets: [digits]
models:
  - cnn-small
attacks:
  - fgsm
  - {name: pgd, steps: 5, label: PGD-5}
epsilons: [0.1, 8/255]
detectors: msp
ood:
  near: [glyphs]
"""


def error_of(text: str) -> str:
    with pytest.raises(GauntletError) as caught:
        parse_suite(text, where="my.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_good_suite_is_read_with_epsilons_as_fractions_and_groups_of_ood_sets():
    suite = parse_suite(GOOD, where="my.yaml")
    assert suite.epsilons == (0.1, 8 / 255)
    assert [attack.label for attack in suite.attacks] == ["fgsm", "PGD-5"]
    assert suite.ood == (("near", "glyphs"),)
    assert suite.evaluators == ("accuracy", "calibration", "ood", "attack", "checks")


def test_evaluators_follow_from_the_axes_that_are_there():
    assert parse_suite("datasets: digits\nmodels: cnn-small", where="x").evaluators == ("accuracy", "calibration")


def test_every_built_in_suite_is_valid():
    assert {"quickstart", "mnist-quick", "everything"} <= set(builtin_suites())
    for name in builtin_suites():
        assert load_suite(name).summary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- digits", "my.yaml: a suite is a mapping of keys (datasets, models, ...), got a list."),
        ("", "my.yaml: a suite is a mapping of keys (datasets, models, ...), got nothing."),
        ("just words", "my.yaml: a suite is a mapping of keys (datasets, models, ...), got text."),
        (GOOD.replace("attacks:", "atacks:"), "my.yaml:4:1: unknown key 'atacks'; did you mean 'attacks'?"),
        ("models: [cnn-small]", "my.yaml: the key 'datasets' is missing."),
        (GOOD.replace("[digits]", "[]"), "my.yaml:1:1: 'datasets' is empty; name at least one, or leave the key out."),
        (GOOD.replace("- fgsm", "- fgms"), "my.yaml:5:5: Unknown attack 'fgms'; did you mean 'fgsm'?"),
        (GOOD.replace("[0.1, 8/255]", "[-0.1]"), "my.yaml:7:12: epsilon must be a finite number >= 0, got -0.1."),
        (GOOD.replace("[0.1, 8/255]", "[.nan]"), "my.yaml:7:12: epsilon must be a finite number >= 0, got nan."),
        (GOOD.replace("[0.1, 8/255]", "[.inf]"), "my.yaml:7:12: epsilon must be a finite number >= 0, got inf."),
        (
            GOOD.replace("8/255", "8/0"),
            "my.yaml:7:17: epsilon '8/0' is not a number, a fraction such as 8/255, or minimal.",
        ),
        (GOOD + "seeds: [a]\n", "my.yaml:11:9: 'seeds': input should be a valid integer"),
        (GOOD + "seeds: [0, -1]\n", "11:12: 'seeds': input should be greater than or equal to 0, got -1."),
        (GOOD.replace("steps: 5", "steps: -5"), "my.yaml:6:5: pgd needs steps >= 1 and restarts >= 1, got -5 and 1."),
        (GOOD.replace("name: pgd, steps: 5", "name: autoattack, steps: 0"), "needs steps, tar"),
        (GOOD.replace("msp", "[{knn: {k: 0}}]"), "my.yaml:8:13: Detector 'knn' needs k of at least 1, got 0."),
        (GOOD.replace("msp", "[{odin: {temperature: -1}}]"), "needs a finite temperature above 0, got -1."),
        (GOOD + "evaluators: [acuracy]\n", "my.yaml:11:14: unknown evaluator 'acuracy'; did you mean 'accuracy'?"),
        (GOOD + "checks: some\n", "my.yaml:11:1: 'checks': input should be 'none', 'standard' or 'full', got 'some'."),
        (GOOD + "attack_images: {quick: 3}\n", "my.yaml:11:17: 'attack_images' has no key 'quick'; known: fast, "),
        (GOOD.replace("[0.1, 8/255]", "{linff: [1]}"), "7:12: 'epsilons' has no key 'linff'; did you mean 'linf'?"),
        (GOOD.replace("[0.1, 8/255]", "{linf: 1}"), "7:12: 'epsilons': 'linf' must be a list, such as [1]."),
        (GOOD.replace("[0.1, 8/255]", "{linf: [1, -3]}"), "7:22: epsilon must be a finite number >= 0, got -3."),
        (GOOD + "  x: glyphs\n", "my.yaml:11:3: 'ood': 'x' must be a list, such as [glyphs]."),
        (GOOD.replace("ood:\n  near: [glyphs]\n", ""), "detectors need OOD sets: name some under `ood:`."),
        (GOOD.replace("detectors: msp\n", ""), "OOD sets need detectors: name some under `detectors:`."),
        ("a: [1,\nb: }", "my.yaml:2:4: not valid YAML"),
        (GOOD.replace("steps: 5", "steps: five"), "parameter 'steps' must be a whole number, got 'five'"),
        (GOOD.replace("steps: 5", "stepps: 5"), "has no parameter 'stepps'; did you mean 'steps'?"),
        (GOOD.replace("steps: 5", "norm: l7"), "parameter 'norm' must be one of linf, l2, l1, got 'l7'"),
        (GOOD.replace("label: PGD-5", "label: fgsm"), "my.yaml:6:5: Two attacks have the label 'fgsm'"),
        (GOOD.replace("detectors: msp", "detectors: 'tag:nothing'"), "No detector matches 'tag:nothing'"),
    ],
)
def test_mistakes_are_one_sentence_with_their_place(text, message):
    assert message in error_of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("- cnn-small", "- cnn-small\n  - cnn-smal"), "my.yaml:4:5: Unknown model 'cnn-smal'"),
        (GOOD.replace("- cnn-small", "- cnn-small\n  - cnn-small"), "my.yaml:4:5: Two models have the label"),
        (GOOD.replace("[digits]", "[digits, digts]"), "my.yaml:1:20: Unknown dataset 'digts'"),
        (GOOD.replace("[digits]", "[digits, digits]"), "my.yaml:1:20: Two datasets have the label"),
        (GOOD.replace("[digits]", "[digits, 'nothing*']"), "my.yaml:1:20: No dataset matches"),
        (GOOD.replace("[glyphs]", "[glyphs, glyfs]"), "my.yaml:10:18: Unknown dataset 'glyfs'"),
        (GOOD.replace("[glyphs]", "[glyphs]\n  far: [glyphs]"), "my.yaml:11:9: Two OOD sets have the label"),
        (GOOD + "recipe: standrad\n", "my.yaml:11:1: Unknown recipe"),
    ],
)
def test_mistakes_that_show_while_planning_have_the_place_of_their_item(tmp_path, text, message):
    with pytest.raises(GauntletError) as caught:
        make_plan(parse_suite(text, where="my.yaml"), DataSource(root=tmp_path, cache=tmp_path))
    assert str(caught.value).startswith(message)


def test_python_tags_in_yaml_are_not_executed(tmp_path):
    target = tmp_path / "made"
    assert "not valid YAML" in error_of(f"datasets: !!python/object/apply:pathlib.Path.touch [{target}]")
    assert not target.exists()


def test_an_unknown_suite_names_the_nearest_and_an_absent_file_is_said_to_be_absent(tmp_path):
    with pytest.raises(GauntletError, match="Unknown suite 'quickstrat'; did you mean 'quickstart'"):
        load_suite("quickstrat")
    with pytest.raises(GauntletError, match="There is no suite file"):
        load_suite(tmp_path / "absent.yaml")


def test_profiles_override_keys():
    text = GOOD + "attack_images: 100\nprofiles:\n  full: {attack_images: 1000}\n"
    assert parse_suite(text, where="x").attack_images == 100
    assert parse_suite(text, where="x", profile="full").attack_images == 1000
    with pytest.raises(GauntletError, match="has no profile 'ful'; did you mean 'full'"):
        parse_suite(text, where="x", profile="ful")


def test_epsilons_keep_their_order_and_drop_repeats():
    assert parse_epsilons([0.3, "1/10", 0.3, 0], "x") == (0.3, 0.1, 0.0)


def test_epsilons_by_norm_and_without_any_the_defaults_of_the_norm():
    suite = parse_suite(GOOD.replace("[0.1, 8/255]", "{linf: [8/255, minimal], l2: [1]}"), where="my.yaml")
    assert suite.budgets("linf") == (8 / 255, None)
    assert suite.budgets("l2") == (1.0,)
    assert suite.budgets("l0") == (4.0, 12.0, 30.0)
    bare = parse_suite(GOOD.replace("epsilons: [0.1, 8/255]\n", ""), where="my.yaml")
    assert bare.budgets("linf") == (0.03, 0.1, 0.3)
    assert all(value == int(value) for value in bare.budgets("l0"))


def test_images_by_cost_class():
    suite = parse_suite(GOOD + "attack_images: {fast: 360, full: 8}\n", where="my.yaml")
    assert [suite.images_for(cost) for cost in ("fast", "standard", "full")] == [360, 8, 8]
    assert parse_suite(GOOD + "attack_images: 5\n", where="my.yaml").images_for("full") == 5


def test_checks_run_where_something_is_attacked_unless_they_are_declined():
    assert parse_suite(GOOD, where="my.yaml").evaluators[-1] == "checks"
    assert "checks" not in parse_suite(GOOD + "checks: none\n", where="my.yaml").evaluators


@pytest.mark.parametrize("name", ["foolbox-linf", "foolbox-l2", "foolbox-l1", "foolbox-l0", "attacks-full"])
def test_our_own_suites_raise_the_steps_that_are_too_short_in_foolbox(name):
    from gauntlet.bench.suite import load_suite

    suite = load_suite(name)
    short = [attack for attack in suite.attacks if "0.025 epsilons" in str(attack.entry.meta.get("fault"))]
    assert all(attack.parameters["rel_stepsize"] == 0.1 for attack in short)
    assert len(suite.attacks) >= 3
    if name == "attacks-full":
        from gauntlet.registry import ATTACKS

        assert {attack.entry.name for attack in suite.attacks} == {entry.name for entry in ATTACKS}


def test_a_key_that_stands_twice_is_not_read_silently():
    assert "my.yaml:2:1: the key 'datasets' stands here twice" in error_of("datasets: [digits]\n" + GOOD)


def test_a_suite_in_python_may_hold_paths_tuples_and_numpys_numbers(tmp_path):
    import numpy as np

    suite = load_suite(
        {"datasets": ("digits",), "models": ["cnn-small"], "attacks": ["fgsm"], "epsilons": np.linspace(0, 0.1, 3)}
    )
    assert suite.where == "suite"
    assert suite.datasets == ("digits",)
    with pytest.raises(GauntletError, match="A suite holds text, numbers, lists and mappings"):
        load_suite({"datasets": [object()], "models": ["cnn-small"]})


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    text = """\
datasets: [digts]
models: [cnn-smal, {name: cnn-small, widht: 2}]
recipe: standrad
attacks: [fgms, {pgd: {steps: x}}, {pgd: {target: 3}}]
epsilons: [0.1, -1]
eps: 3
detectors: [mps]
ood: {near: [glyfs]}
seeds: [-1]
limit: 1000
evaluators: [acuracy]
"""
    with pytest.raises(GauntletError) as caught:
        parse_suite(text, where="my.yaml")
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == [
        "1",
        "2",
        "2",
        "3",
        "4",
        "4",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "11",
    ]
    assert lines[0] == "my.yaml:1:12: Unknown dataset 'digts'; did you mean 'digits'?"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (GOOD + "limit: 1000\n", "it is an option of a dataset: write {NAME: {limit: ...}} under `datasets:`."),
        (GOOD + "eps: [0.1]\n", "did you mean 'epsilons'?"),
        (GOOD.replace("steps: 5", "eps: 0.1"), "did you mean 'epsilons'?"),
        (GOOD.replace("steps: 5", "target: 3"), "attacks are untargeted: any wrong class counts."),
        (GOOD.replace("steps: 5", "targeted: true"), "attacks are untargeted: any wrong class counts."),
        (GOOD + "where: here\n", "unknown key 'where'"),
        (GOOD + "tune: {oracel: true}\n", "'tune' has no key 'oracel'"),
    ],
)
def test_hints_name_what_would_be_right(text, hint):
    assert hint in error_of(text)


def test_what_may_not_be_meant_so_is_noted_by_the_plan(tmp_path):
    def notes(text):
        return make_plan(parse_suite(text, where="my.yaml"), DataSource(root=tmp_path, cache=tmp_path)).notes

    assert notes(GOOD) == ()
    assert notes(GOOD + "seeds: 3\n") == ("my.yaml:11:1: `seeds: 3` is one seed, the number 3; 3 are [0, 1, 2].",)
    assert notes(GOOD + "seeds: [3]\n") == ()
    assert notes(GOOD.replace("[0.1, 8/255]", "[2, 8]")) == tuple(
        f"my.yaml:7:1: the Linf epsilon {value} spans all images: pixels lie in [0, 1]; did you mean {value}/255?"
        for value in (2, 8)
    )
    l2 = GOOD.replace("[0.1, 8/255]", "[2]").replace("- fgsm", "- fgm-l2").replace("name: pgd", "name: pgd, norm: l2")
    assert notes(l2) == ()


PLUGIN = """
from gauntlet import attack, detector, model

@detector("joins-a")
def first(logits):
    "One."
    return -logits.amax(1)

@detector("joins-b")
def second(logits):
    "Another."
    return logits.amax(1)

@attack("joins-c")
def third(images, epsilon):
    "Nothing."
    return images

@model("joins-d", trained=True)
def fourth(classes: int = 10):
    "A model."
"""


@pytest.fixture
def plugin(tmp_path):
    from gauntlet.registry import REGISTRIES, load_plugin

    path = tmp_path / "joining.py"
    path.write_text(PLUGIN)
    yield load_plugin(str(path), REGISTRIES.values())
    for registry in REGISTRIES.values():
        registry.remove_plugin(str(path))


def labels(suite) -> list[str]:
    return [chosen.label for chosen in (*suite.attacks, *suite.detectors, *suite.model_specs)]


def test_a_plugin_joins_a_suite_that_names_none_of_its_entries_but_never_with_its_models(plugin):
    own = ["fgsm", "PGD-5", "joins-c", "msp", "joins-a", "joins-b", "cnn-small"]
    assert labels(parse_suite(GOOD, where="x", plugins=[plugin])) == own


@pytest.mark.parametrize("named", ["msp, joins-a", "msp, {name: joins-a, label: A}"])
def test_of_a_plugin_of_which_a_suite_names_something_only_that_is_taken(plugin, named):
    suite = parse_suite(GOOD.replace("detectors: msp", f"detectors: [{named}]"), where="x", plugins=[plugin])
    assert [chosen.entry.name for chosen in suite.detectors] == ["msp", "joins-a"]
    assert labels(suite)[:2] == ["fgsm", "PGD-5"]
    by_model = parse_suite(GOOD.replace("- cnn-small", "- joins-d"), where="x", plugins=[plugin])
    assert labels(by_model) == ["fgsm", "PGD-5", "msp", "joins-d"]


def test_what_installed_packages_register_joins_only_where_it_is_named_or_all_are_wanted(plugin):
    assert "joins-a" not in labels(parse_suite(GOOD, where="x"))
    everything = parse_suite(GOOD.replace("detectors: msp", "detectors: all"), where="x")
    assert {"joins-a", "joins-b"} <= set(labels(everything))


def test_what_lies_beside_the_suite_can_be_imported(tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_the_suite").mkdir()
    (tmp_path / "beside_the_suite" / "nets.py").write_text("def small(classes=10):\n    'Small.'\n")
    (tmp_path / "suite.yaml").write_text("datasets: [digits]\nmodels: ['beside_the_suite.nets:small']\n")
    assert labels(load_suite(tmp_path / "suite.yaml")) == ["beside_the_suite.nets:small"]


@pytest.mark.parametrize("key", ["attacks", "epsilons", "detectors", "ood", "corruptions", "severities", "evaluators"])
def test_a_key_without_value_is_as_if_it_were_not_there(key):
    bare = "datasets: [digits]\nmodels: [cnn-small]\n"
    suite, without = parse_suite(f"{bare}{key}:\n", where="x"), parse_suite(bare, where="x")
    assert getattr(suite, key) == getattr(without, key)
    with pytest.raises(GauntletError, match=rf"x:3:1: '{key}' is empty") if key != "ood" else nullcontext():
        parse_suite(f"{bare}{key}: []\n", where="x")


def test_what_built_in_suites_say_is_meant():
    assert {name: load_suite(name).notes for name in builtin_suites()} == dict.fromkeys(builtin_suites(), ())
    assert len(load_suite("quickstart").model_specs) == 2  # nothing else is lost
