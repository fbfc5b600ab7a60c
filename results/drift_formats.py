"""The drift report for machines and pull requests: Markdown, JUnit XML and JSON."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd

from .drift import Report, identity_of, sentence
from .formats import render

_SKIPPED = ("new", "cannot tell")


def as_markdown(report: Report) -> str:
    """A heading that says how it went, and a table of what drifted or is missing."""
    heads = {0: "✅ No drift", 1: "❌ Drift", 2: "⚠️ Missing cells"}
    head = f"### {heads[report.exit_status]}: {report.summary}"
    return f"{head}\n" if report.exit_status == 0 else f"{head}\n\n{render(report.table(), 'github')}\n"


def as_json(report: Report) -> str:
    """Counts, exit status and every row; what is not finite or empty is null."""
    rows = [{name: _plain(value) for name, value in row.items()} for row in report.rows.to_dict("records")]
    counts = {str(name): int(count) for name, count in report.rows["verdict"].value_counts().items()}
    return json.dumps({"exit_status": report.exit_status, "counts": counts, "rows": rows}, indent=1, allow_nan=False)


def as_junit(report: Report) -> str:
    """One test suite, one test case a measurement: drift is a failure, a missing cell an error, the rest skipped."""
    verdicts = report.rows["verdict"]
    totals = {"failures": verdicts.eq("drifted"), "errors": verdicts.eq("missing"), "skipped": verdicts.isin(_SKIPPED)}
    counts: dict[str, Any] = {name: str(int(mask.sum())) for name, mask in totals.items()}
    suite = ET.Element("testsuite", name="gauntlet", tests=str(len(verdicts)), **counts)
    for _, row in report.rows.iterrows():
        where = identity_of(row)
        case = ET.SubElement(suite, "testcase", classname=_clean(where), name=_clean(str(row["metric"])))
        kind = {"drifted": "failure", "missing": "error", **dict.fromkeys(_SKIPPED, "skipped")}.get(row["verdict"])
        if kind:
            ET.SubElement(case, kind, message=_clean(sentence(row)))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def _clean(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
