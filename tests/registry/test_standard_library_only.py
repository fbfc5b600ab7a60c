"""The registry is light: the decorators can be imported anywhere at once."""

from __future__ import annotations

import json
import subprocess
import sys


def modules_after(code: str) -> set[str]:
    """Names of all modules that are loaded after ``code`` ran in a fresh interpreter."""
    report = "import sys, json; print(json.dumps(list(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(json.loads(answer.stdout.splitlines()[-1]))


def test_it_imports_the_standard_library_and_itself_only():
    loaded = modules_after("import gauntlet.registry") - modules_after("")
    foreign = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"gauntlet"}
    assert not {name for name in foreign if not name.startswith("__editable__")}
    assert {name for name in loaded if name.startswith("gauntlet.")} == {
        name for name in loaded if name.startswith("gauntlet.registry")
    }


def test_a_users_clash_with_a_builtin_is_the_users_also_if_nobody_looked_before():
    code = (
        "from gauntlet import GauntletError, detector\n"
        "try:\n    detector('msp')(lambda logits: logits)\n"
        "except GauntletError as error:\n    print(error)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "detector 'msp' is registered twice: in msp.py:" in answer.stdout
