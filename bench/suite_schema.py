"""The JSON schema of a suite, by which editors complete and check YAML files."""

from __future__ import annotations

import inspect
import re
from typing import Any

from .suite import KEYS
from .suite_model import Suite


def suite_schema() -> dict[str, Any]:
    """A JSON schema (draft 2020-12) of suite files, every key described.

    Example:
        >>> sorted(suite_schema()["required"])
        ['datasets', 'models']
    """
    whole, told = Suite.model_json_schema(), key_descriptions()
    properties = {key: {**whole["properties"][key], "description": told[key]} for key in KEYS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A suite of Gauntlet",
        "type": "object",
        "properties": properties,
        "required": [key for key in whole["required"] if key in ("datasets", "models")],
        "additionalProperties": False,
        "$defs": whole.get("$defs", {}),
    }


def key_descriptions() -> dict[str, str]:
    """What each key of a suite says, from the docstring of :class:`Suite`."""
    text = (inspect.getdoc(Suite) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()).replace("``", "`") for name, words in found}
