"""What a newcomer types first."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from gauntlet.bench.cli import ERROR_STATUS
from gauntlet.bench.suite import KEYS
from gauntlet.bench.suite_schema import key_descriptions
from gauntlet.registry import DETECTORS, REGISTRIES


def test_the_bare_command_names_three_things_to_do(call):
    status, out, _ = call()
    assert status == 0
    assert all(f"gauntlet {verb}" in out for verb in ("run quickstart", "init mine", "list models", "doctor"))


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("kind", [*REGISTRIES, "suite"])
def test_a_list_fits_the_terminal(call, kind, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = call("list", f"{kind}s")
    longest = max(
        (line for line in out.splitlines() if "`gauntlet show" not in line and not line.startswith("Also")), key=len
    )
    assert len(longest) <= columns, longest


@pytest.mark.parametrize("kind", [kind for kind, registry in REGISTRIES.items() if len(list(registry))])
def test_show_tells_all_of_an_entry(call, kind):
    for entry in REGISTRIES[kind]:
        status, out, _ = call("show", kind, entry.name)
        assert status == 0
        assert entry.name in out
        assert all(parameter.name in out for parameter in entry.parameters)
        assert not entry.reference or entry.reference.split()[0] in out


def test_show_answers_in_json_and_knows_suites_and_plural_kinds(call):
    facts = json.loads(call("show", "detector", "knn", "--json")[1])
    assert facts["parameters"]["k"] == {"type": "int", "default": DETECTORS.get("knn").defaults()["k"]}
    assert "datasets: [digits]" in call("show", "suites", "quickstart")[1]


@pytest.mark.parametrize(
    ("words", "hint"),
    [(("detector", "kn"), "'knn'"), (("suite", "quickstrat"), "'quickstart'"), (("detektor", "knn"), "'detectors'")],
)
def test_show_names_the_nearest(call, words, hint):
    status, _, err = call("show", *words)
    assert status == ERROR_STATUS
    assert hint in err


def test_what_init_writes_runs_as_it_is(call, tmp_path: Path):
    folder = tmp_path / "mine"
    assert call("init", folder)[0] == 0
    files = ("run", folder / "suite.yaml", "--plugin", folder / "plugin.py", "--out", tmp_path / "out")
    status, out, _ = call(*files)
    assert status == 0
    assert "margin" in out
    status, _, err = call("init", folder)
    assert status == ERROR_STATUS
    assert "is there already" in err


def test_doctor_finds_what_is_wrong_and_says_what_helps(call, tmp_path: Path):
    status, out, _ = call("doctor", "--out", tmp_path, "--data", tmp_path / "absent")
    assert status == 0
    assert "does not exist (set GAUNTLET_DATA or --data)" in out
    assert "digits" in out
    (tmp_path / "store.sqlite").write_bytes(b"SQLite format 3\0" + b"nonsense" * 512)
    status, out, _ = call("doctor", "--out", tmp_path)
    assert status == 1
    assert "bad" in out
    assert "is damaged" in out


def test_doctor_reads_a_store(call, tmp_path: Path):
    with sqlite3.connect(tmp_path / "store.sqlite") as store:
        store.execute("CREATE TABLE cells (key TEXT)")
        store.execute("INSERT INTO cells VALUES ('a')")
    assert "1 cells, check: ok" in call("doctor", "--out", tmp_path)[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(call, shell, tmp_path: Path):
    status, out, _ = call("completion", shell)
    assert status == 0
    assert "_GAUNTLET_COMPLETE" in out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=out, text=True, check=False).returncode == 0


def test_the_schema_describes_every_key_of_a_suite(call):
    schema = json.loads(call("schema", "suite")[1])
    assert list(schema["properties"]) == KEYS
    assert all(len(one["description"]) > 10 for one in schema["properties"].values())
    assert set(key_descriptions()) >= set(KEYS)
