"""The commands `gauntlet baseline` and `gauntlet check`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..registry import GauntletError
from .cli_options import columns, echo, narrowed, out_option, results, suite_option, where_option

if TYPE_CHECKING:
    import pandas as pd

    from ..results.drift import Report
    from ..results.tolerance import Rule

_SLOWER = 0.25  # share by which a benchmark may be slower

_benchmarks = click.option(
    "--benchmarks",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Times of `pytest --benchmark-json FILE` instead of the store.",
)


@click.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--metrics", metavar="NAME,...", help="Which metrics to keep [default: the headline ones].")
@click.option("--samples", is_flag=True, help="Keep per-sample values beside it, for a paired and far sharper check.")
@_benchmarks
@where_option
@suite_option
@out_option
def baseline(
    path: Path,
    metrics: str | None,
    samples: bool,
    benchmarks: Path | None,
    wanted: tuple[str, ...],
    suite: str | None,
    out: Path,
) -> None:
    """Freeze the current results as a small CSV to commit."""
    from ..results.drift import make_baseline, write_baseline
    from ..results.paired_tests import samples_path, write_samples
    from ..results.store import Store

    frame = _current(out, suite, wanted, benchmarks)
    made = make_baseline(frame, columns(metrics) or (["seconds"] if benchmarks else None))
    write_baseline(made, path)
    if samples and not benchmarks:
        with Store.open(out, create=False) as store:
            write_samples(store, frame, samples_path(path))
    echo(f"{len(made)} values are in {path}.", err=True)


@click.command()
@click.argument("path", metavar="BASELINE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tolerance", type=float, help="Difference that is never a drift [default: 0.03; of times 0.25].")
@click.option(
    "--method",
    type=click.Choice(["statistical", "absolute", "relative"]),
    help="statistical also allows what may be chance [default; of times: relative].",
)
@click.option("--direction", type=click.Choice(["any", "worse"]), help="Which changes count [default: any].")
@click.option("--all", "show_all", is_flag=True, help="Show values that hold, too.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as Markdown.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as JUnit XML.")
@click.option("--json", "json_", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as JSON.")
@_benchmarks
@where_option
@suite_option
@out_option
def check(
    path: Path,
    tolerance: float | None,
    method: str | None,
    direction: str | None,
    show_all: bool,
    markdown: Path | None,
    junit: Path | None,
    json_: Path | None,
    benchmarks: Path | None,
    wanted: tuple[str, ...],
    suite: str | None,
    out: Path,
) -> None:
    """Compare the current results with a baseline; exit with 1 on drift, 2 on missing or failed cells.

    A value drifts when it differs by more than the larger of the tolerance and what may be chance: half of both
    intervals, or half the interval of the paired difference where the baseline was made with --samples. It is the same
    when two one-sided tests show it to be within the tolerance; with too few images for either, the verdict is "cannot
    tell", which does not change the exit status. A suite can
    set other tolerances under `drift:`, such as {metric: ece, relative: 0.2, direction: worse}. On GitHub the report
    is added to the job's summary.
    """
    from ..results.drift import read_baseline
    from ..results.drift_formats import as_json, as_junit, as_markdown
    from ..results.formats import render
    from ..results.frame import write_text
    from ..results.tolerance import Rule

    usual = Rule({}, "relative", _SLOWER, "worse") if benchmarks else Rule()
    first = Rule(
        {},
        method or usual.method,
        usual.tolerance if tolerance is None else tolerance,
        direction or usual.direction,
    )
    if not path.is_file():
        raise GauntletError(f"There is no baseline {path}; `gauntlet baseline {path}` writes one.")
    before = read_baseline(path) if path.suffix.lower() != ".json" else _frozen_benchmarks(path)
    frame = _current(out, suite, wanted, benchmarks, list(before["metric"].unique()))
    report = compare_with(path, before, frame, None if benchmarks else out, suite, first)
    for target, text in ((markdown, as_markdown), (junit, as_junit), (json_, as_json)):
        if target is not None:
            write_text(text(report), target)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(as_markdown(report) + "\n")
    shown = show_all or report.exit_status
    echo(render(report.table(only_bad=not show_all), "plain") if shown else report.summary)
    sys.exit(report.exit_status)


def compare_with(
    path: Path, before: pd.DataFrame, frame: pd.DataFrame, out: Path | None, suite: str | None, first: Rule
) -> Report:
    """The report of a frame against the baseline of a file; ``out`` is its store, for suite rules and paired samples.

    ``first`` holds for every measurement that no rule of the suite is about.
    """
    from ..results.drift import compare
    from ..results.paired_tests import noise_of, samples_path
    from ..results.store import Store

    if out is None:
        return compare(before, frame, rules=[first])
    with Store.open(out, create=False) as store:
        samples = samples_path(path)
        noise = noise_of(samples, store, frame) if samples.is_file() else None
        return compare(before, frame, rules=[first, *_suite_rules(store, suite)], noise=noise)


def _suite_rules(store: object, suite: str | None) -> list[Rule]:
    """The `drift:` rules of the newest run (of that suite), as its recorded text has them."""
    import yaml

    from ..results.tolerance import parse_rules

    runs = [run for run in store.runs() if run.cells and suite in (None, run.suite)]  # type: ignore[attr-defined]
    content = yaml.safe_load(runs[-1].suite_text) if runs else {}
    return (
        parse_rules((content or {}).get("drift") or [], f"suite {runs[-1].suite}") if isinstance(content, dict) else []
    )


def _current(
    out: Path, suite: str | None, wanted: tuple[str, ...], benchmarks: Path | None, metrics: Sequence[str] = ()
) -> pd.DataFrame:
    from ..results.benchmarks import read_benchmarks

    return narrowed(results(out, suite, metrics), wanted) if benchmarks is None else read_benchmarks(benchmarks)


def _frozen_benchmarks(path: Path) -> pd.DataFrame:
    from ..results.benchmarks import read_benchmarks
    from ..results.drift import make_baseline

    return make_baseline(read_benchmarks(path), ["seconds"])
