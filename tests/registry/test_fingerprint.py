"""The source fingerprint: what a component computes decides it, how that is written does not."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gauntlet.registry import DETECTORS, REGISTRIES, Entry, digest, load_plugin, source_fingerprint

PLUGIN = '''
"""Doc of the module."""
from math import sqrt as root
from math import floor
import near
from gauntlet import detector

SCALE = 2.0
TABLE = {"a": 1}
TABLE["b"] = 2
TABLE.update(c=3)
if SCALE > 1:
    LIMIT = 5
UNRELATED = [helper for helper in range(3)]

def helper(x):
    """Doc of the helper."""
    return x * SCALE + TABLE["a"] + LIMIT

class Base:
    """Doc of the class."""
    power = 1

class Derived(Base):
    def __call__(self, x):
        return x ** self.power

def unrelated(x):
    return x

@detector("mine")
def mine(logits, *, k: int = 3):
    """Doc of the function."""
    # a comment
    return helper(root(logits)) + near.shift(k) + Derived()(k)
'''
NEAR = "import far\n\ndef shift(x):\n    return far.AMOUNT + x\n"
Files = Callable[..., str]


@pytest.fixture
def fingerprint(tmp_path: Path) -> Files:
    """Write the plug-in and its modules, some text replaced, and return the fingerprint of its detector."""

    def of(old: str = "", new: str = "", **modules: str) -> str:
        assert old in PLUGIN
        files = {"plugin": PLUGIN.replace(old, new) if old else PLUGIN, "near": NEAR, "far": "AMOUNT = 1\n", **modules}
        for name, content in files.items():
            (tmp_path / f"{name}.py").write_text(content)
        identity = load_plugin(str(tmp_path / "plugin.py"), REGISTRIES.values())
        result = source_fingerprint(DETECTORS.get("mine"))
        assert DETECTORS.get("mine").plugin == identity
        return result

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    # a comment\n", ""),
        ("# a comment", "# another"),
        ("Doc of the function.", "Documented."),
        ('    """Doc of the helper."""\n', ""),
        ('"""Doc of the module."""', ""),
        ("\n\n", "\n\n\n\n"),
        ("helper(root(logits))", "helper( root(\n  logits) )"),
        ("def unrelated(x):\n    return x", "def unrelated(x):\n    return x + 1"),
        ("range(3)", "range(4)"),
        ("from math import floor", "from math import ceil"),
        ("from math import sqrt as root\nfrom math import floor", "from math import floor, sqrt as root"),
    ],
)
def test_layout_documentation_and_unrelated_code_do_not_count(fingerprint: Files, old: str, new: str):
    assert fingerprint() == fingerprint(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("near.shift(k)", "near.shift(k + 1)"),
        ("k: int = 3", "k: int = 4"),
        ('@detector("mine")', '@detector("mine", tags=("x",))'),
        ("x * SCALE", "x / SCALE"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ('{"a": 1}', '{"a": 2}'),
        ('TABLE["b"] = 2', 'TABLE["b"] = 3'),
        ("TABLE.update(c=3)", "TABLE.update(c=4)"),
        ("LIMIT = 5", "LIMIT = 6"),
        ("power = 1", "power = 2"),
        ("self.power", "-self.power"),
        ("sqrt as root", "cbrt as root"),
    ],
)
def test_code_that_it_uses_counts(fingerprint: Files, old: str, new: str):
    assert fingerprint() != fingerprint(old, new)


def test_modules_beside_it_count_with_those_that_they_import(fingerprint: Files):
    assert fingerprint() != fingerprint(near=NEAR.replace("+ x", "- x"))
    assert fingerprint() != fingerprint(far="AMOUNT = 2\n")
    assert fingerprint() == fingerprint(far='"""Doc."""\nAMOUNT = 1  # one\n', near=NEAR.replace("\n\n", "\n\n\n\n"))


def test_modules_beside_it_that_it_does_not_import_do_not_count(fingerprint: Files):
    assert fingerprint() == fingerprint(other="AMOUNT = 2\n")


def test_a_module_beside_it_with_a_name_of_the_standard_library_is_not_what_it_imports(fingerprint: Files):
    assert fingerprint() == fingerprint(math="AMOUNT = 2\n")


def test_two_writes_in_the_same_moment_are_told_apart(fingerprint: Files):
    assert len({fingerprint(far=f"AMOUNT = {amount}\n") for amount in range(20)}) == 20


def entry(factory, **facts) -> Entry:
    return Entry("detector", "mine", factory, **facts)


def test_the_table_row_counts():
    assert source_fingerprint(entry(digest, row="a")) != source_fingerprint(entry(digest, row="b"))


def test_the_version_of_a_wrapped_library_counts(monkeypatch: pytest.MonkeyPatch):
    wrapping = entry(digest, meta={"versions": "foolbox"})
    before = source_fingerprint(wrapping)
    assert before != source_fingerprint(entry(digest))
    assert before == source_fingerprint(entry(digest, meta={"versions": ("foolbox",)}))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99")
    assert before != source_fingerprint(wrapping)


def test_a_wrapped_library_may_be_absent():
    assert source_fingerprint(entry(digest, meta={"versions": "no-such-library"}))


def test_what_is_made_by_a_function_counts_with_the_values_it_was_made_with():
    def make(power: int):
        return lambda logits: logits**power

    assert source_fingerprint(entry(make(2))) == source_fingerprint(entry(make(2)))
    assert source_fingerprint(entry(make(2))) != source_fingerprint(entry(make(3)))


def test_partials_count_with_their_arguments():
    def of(base: int) -> str:
        return source_fingerprint(entry(functools.partial(make_number, base=base)))

    assert of(2) == of(2)
    assert of(2) != of(3)


def make_number(text: str, base: int) -> int:
    return int(text, base)


def test_a_decorated_function_is_the_function_that_was_decorated():
    @functools.wraps(make_number)
    def wrapper(*arguments):
        return make_number(*arguments)

    assert source_fingerprint(entry(wrapper)) == source_fingerprint(entry(make_number))


def test_code_without_a_file_counts_too():
    def typed(body: str, start: str = "def f(x): return ") -> str:
        scope: dict = {"__name__": "typed"}
        exec(f"{start}{body}", scope)
        return source_fingerprint(entry(scope["f"]))

    assert typed("x + 1") == typed("x + 1")
    assert len({typed(body) for body in ("x + 1", "x - 1", "x + 2", "(lambda: x)()", "(lambda: -x)()")}) == 5
    in_class = "class f:\n def score(self, x): return "
    assert typed("x", in_class) == typed("x", in_class) != typed("-x", in_class)
    assert source_fingerprint(entry(len)) != source_fingerprint(entry(sum))


def test_it_is_the_same_in_another_process():
    code = (
        "from gauntlet.registry import REGISTRIES, source_fingerprint\n"
        "print(*[source_fingerprint(entry) for registry in REGISTRIES.values() for entry in registry])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert other == [source_fingerprint(entry) for registry in REGISTRIES.values() for entry in registry]


def test_builtins_that_compute_different_things_have_different_fingerprints():
    for kind in ("model", "recipe", "attack", "detector"):
        prints = [source_fingerprint(entry) for entry in REGISTRIES[kind]]
        assert len(set(prints)) == len(prints), kind


def test_a_digest_does_not_depend_on_the_order_of_a_mapping_but_on_everything_else():
    assert digest({"a": 1, "b": (2,)}) == digest({"b": [2], "a": 1})
    assert len({digest(), digest(1), digest("1"), digest([1]), digest(1, 2), digest([1, 2]), digest(None)}) == 7
    assert len(digest("x")) == 32


# -- whatever a plug-in is made of ------------------------------------------------------------------------------

LAB = {
    "lab/__init__.py": "",
    "lab/layers/__init__.py": "",
    "lab/layers/act.py": "from . import constants\n\ndef act(x):\n    return constants.SCALE * x\n",
    "lab/layers/constants.py": "SCALE = 2\n",
    "lab/models/__init__.py": "",
    "lab/models/late.py": "LATE = 1\n",
    "elsewhere/tools.py": "OFFSET = 1\n",
    "lab/models/config.json": "{}",
    "lab/models/weights.txt": "1",
    "lab/models/parts/0.cfg": "0",
    "lab/models/declared.bin": "0",
    "lab/models/net.py": """
import importlib
from pathlib import Path
from gauntlet import detector
from lab.layers.act import act
import tools

HERE = Path(__file__).parent
CONFIG = HERE.joinpath("config" + ".json").read_text()
PARTS = [path.read_text() for path in sorted(HERE.glob("parts/*"))]

@detector("of-the-lab", files=("declared.bin",))
def of_the_lab(logits):
    late = importlib.import_module("lab.models.late")
    weights = (HERE / "weights.txt").read_text()
    return act(logits) + tools.OFFSET + late.LATE
""",
}
EDITS = {
    name: text + ("\nMORE = 1\n" if "layers" in name else "1")
    for name, text in LAB.items()
    if text and "net.py" not in name
}
HARMLESS = {"lab/layers/constants.py": "# a comment\nSCALE = 2\n", "lab/models/unread.json": "1"}
ASK = """
import json, os, sys
from pathlib import Path
from gauntlet.registry import DETECTORS, REGISTRIES, load_plugin, source_fingerprint

def seen_by_a_new_process():
    if not os.fork():
        load_plugin("lab.models.net", REGISTRIES.values())
        print(source_fingerprint(DETECTORS.get("of-the-lab")), flush=True)
        os._exit(0)
    os.wait()

DETECTORS.discover()
seen_by_a_new_process()
for name, text in json.loads(sys.argv[1]):
    before = Path(name).read_text() if Path(name).exists() else None
    Path(name).write_text(text)
    seen_by_a_new_process()
    Path(name).unlink() if before is None else Path(name).write_text(before)
"""


def test_whatever_a_plugin_is_made_of_is_part_of_its_fingerprint(tmp_path: Path) -> None:
    """Packages beside its own, modules on the path, files read at import or by name, and those it declares."""
    for name, content in LAB.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    path = os.pathsep.join([str(tmp_path), str(tmp_path / "elsewhere"), *sys.path])
    edits = json.dumps([*EDITS.items(), *HARMLESS.items()])
    command = [sys.executable, "-B", "-c", ASK, edits]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    unedited, *edited = done.stdout.split()
    differing = [name for name, seen in zip([*EDITS, *HARMLESS], edited, strict=True) if seen != unedited]
    assert differing == list(EDITS)
