"""Suites that somebody broke, by chance or on purpose: a sentence that says what is wrong, never a raw error or a hang.

`pytest tests/bench/test_hostile_suites.py --fuzz 100000` tries more of them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gauntlet.bench.plan import make_plan
from gauntlet.bench.suite import builtin_suites, parse_suite
from gauntlet.datasets import DataSource
from gauntlet.registry import GauntletError

#: Values that do not belong where they are put.
VALUES: list[Any] = [
    None, True, -1, 0, 1.5, float("nan"), float("inf"), 10**18, 1e308, "", " ", "x", "*", "[", "tag:", "norm:linf",
    "a:b", ":", "os:system", "../../etc/passwd", "x" * 3000, "9" * 400 + "/1", "1/0", "1/" + "9" * 5000, "8/255",
    "minimal",
    "nan", "-inf", [], [[]], [[], {}], {}, {"name": []}, {"name": "pgd"}, {"name": {"name": "pgd"}},
    {"x": {"y": {"z": []}}},
    {"pgd": {"steps": []}}, {"pgd": {"steps": -1}}, {"label": "x"}, {"digits": {"limit": -1}},
    {"digits": {"leave_out": {}}},
    {"": ""}, {1: 2}, {None: None}, {"<<": "x"}, {"linf": []}, {"linf": ["x"]}, {"l7": [1]}, ["msp", "msp"], "digits",
    "all",
]  # fmt: skip
#: Text that is put somewhere into a suite.
SNIPPETS = [
    "2026-13-45", "1" * 5000, "0x" + "f" * 5000, "1:59" * 900, '"\\ud800"', '"\\0"', "&a [*a]", "&b {x: *b}",
    "*nothing",
    "[" * 600, "{a: " * 600, "!!python/object/apply:os.system [ls]", "? [a, b]\n: c", "? {a: b}\n: c", "!!int ''",
    "!!float x", "!!timestamp x", "!!binary x", "!!set {a, [b]}", "!!omap [a]", "!!bool x", "!!null x", "<<: 5",
    "<<: [*a]", "%YAML 9.9", "--- a\n--- b", "\t", "\ufeff", "\u2028", "- ", ": ", "\n", "'", '"', "|", ">", "#", "@",
    "`",
    "&x", "{", "}", "]", ",", "null: null", "~", "=", "1e999", ".nan", "-.inf", "0b1", "0o9", "1_000_000", "12:30:45",
]  # fmt: skip
BASE = {
    "name": "fuzzed",
    "summary": "Every key.",
    "datasets": ["digits", {"digits": {"limit": 100, "label": "few"}}],
    "models": [
        {"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 1}}},
        "linear-probe",
    ],
    "recipe": "standard",
    "seeds": [0, 1],
    "evaluators": ["accuracy", "attack", "ood", "calibration", "corruption"],
    "attacks": ["fgsm", {"name": "pgd", "steps": 3, "epsilons": [0.1]}, "foolbox/l2/*"],
    "epsilons": {"linf": [0, "8/255"], "l2": [0.5]},
    "attack_images": {"fast": 10, "standard": 5},
    "worst_case": {"linf": ["fgsm"]},
    "checks": "none",
    "detectors": ["msp", {"knn": {"k": 5}}, {"name": "odin", "label": "tuned"}],
    "ood": {"near": ["glyphs"], "far": [{"uniform-noise": {"count": 20}}]},
    "shifted": [],
    "corruptions": ["brightness"],
    "severities": [1, 5],
    "false_alarm_rates": [0.05],
    "tune": {"outliers": "validation-outliers", "oracle": False},
    "feature_dim": 64,
    "fit_limit": 10,
    "batch_size": 8,
    "timeout": 3.5,
    "examples": 1,
    "drift": [{"metric": "accuracy", "absolute": 0.1}],
    "profiles": {"quick": {"seeds": [0]}},
}


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a tree, without the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


PLACES = list(places(BASE))


@st.composite
def trees(draw: Any) -> str:
    """A suite in which up to three things are replaced, or put in beside others."""
    tree = copy.deepcopy(BASE)
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        part: Any = tree
        for key in path[:-1]:
            part = part[key] if isinstance(part, (dict, list)) and key in list(_keys(part)) else {}
        if isinstance(part, dict) and draw(st.integers(0, 4)) == 0:
            part[draw(st.sampled_from(["x", "label", "name", 1, None]))] = draw(st.sampled_from(VALUES))
        elif isinstance(part, dict) or (isinstance(part, list) and path[-1] in _keys(part)):
            part[path[-1]] = draw(st.sampled_from(VALUES))
    return yaml.safe_dump(tree, sort_keys=False)


def _keys(part: Any) -> Any:
    return part if isinstance(part, dict) else range(len(part))


@st.composite
def texts(draw: Any) -> str:
    """The text of a suite, cut somewhere and with something put in."""
    text = draw(st.sampled_from([yaml.safe_dump(BASE), builtin_suites()["quickstart"]]))
    for _ in range(draw(st.integers(1, 3))):
        place, cut = draw(st.integers(0, len(text))), draw(st.sampled_from([0, 0, 1, 20]))
        text = text[:place] + draw(st.sampled_from([*SNIPPETS, ""])) + text[place + cut :]
    return text


def read(text: str, folder: Path) -> str:
    """What is said about a suite; any error but a sentence for people is raised, and more than five seconds too."""
    started = time.process_time()
    try:
        suite = parse_suite(text, where="suite.yaml")
        make_plan(suite, DataSource(root=folder, cache=folder))
        found = "nothing wrong"
    except GauntletError as error:
        found = str(error)
        found.encode()  # can be printed
    assert time.process_time() - started < 5
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty data root, once what planning imports is there."""
    made = tmp_path_factory.mktemp("data")
    make_plan(parse_suite(yaml.safe_dump(BASE), where="suite.yaml"), DataSource(root=made, cache=made))
    return made


def test_the_suite_that_is_broken_here_is_right(folder):
    assert read(yaml.safe_dump(BASE), folder) == "nothing wrong"


def test_values_that_do_not_belong_where_they_stand(folder, fuzz):
    @settings(
        max_examples=fuzz or 40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(trees())
    def check(text: str) -> None:
        read(text, folder)

    check()


def test_text_that_is_no_yaml(folder, fuzz):
    @settings(
        max_examples=fuzz or 40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(texts())
    def check(text: str) -> None:
        read(text, folder)

    check()


def bomb(levels: int) -> str:
    """Nine aliases on every level: nine to the power of the levels."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (bomb(9), "more than 20000 parts once its aliases are written out"),
        ("datasets: &a [*a]", "suite.yaml:1:11: not valid YAML: an alias refers to what it stands in"),
        ("datasets: " + "[" * 600, "nested deeper than 30 levels"),
        ("name: 2026-13-45", "suite.yaml:1:7: not valid YAML: '2026-13-45' cannot be read as timestamp"),
        ("seeds: [" + "1" * 5000 + "]", "suite.yaml:1:9: not valid YAML: '11111"),
        ("seeds: [99999999999999999999]", "suite.yaml:1:9: not valid YAML: a number is too large"),
        ('name: "\\ud800"', "suite.yaml:1:7: not valid YAML: text holds the character '\\ud800'"),
        ("name: " + "x" * 300_000, "at most 200000 characters"),
        ("epsilons: ['" + "9" * 400 + "/1']", "suite.yaml:1:12: epsilon"),
    ],
)
def test_what_is_too_much_is_refused_with_its_place(text, sentence, folder):
    assert sentence in read(text, folder)


def test_a_mapping_inside_itself_is_refused():
    from gauntlet.bench.suite import load_suite

    suite: dict[str, Any] = {"datasets": ["digits"]}
    suite["profiles"] = {"x": suite}
    with pytest.raises(GauntletError, match="inside itself"):
        load_suite(suite)


def test_anchors_are_still_good_for_what_suites_use_them_for(folder):
    suite = """
    datasets: [digits]
    models: [{name: cnn-small, recipe: &brief {standard: {epochs: 1}}}, {name: m7, recipe: *brief}]
    """
    assert read(suite, folder) == "nothing wrong"
