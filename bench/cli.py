"""The `gauntlet` command. Heavy libraries load inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import errno
import io
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from ..registry import REGISTRIES, GauntletError, harmless, load_plugin
from .cli_options import DEFAULT_OUT, echo, out_option

if TYPE_CHECKING:
    from rich.console import Console

    from .runner import Outcome

F = TypeVar("F", bound=Callable[..., Any])

#: Exit status of an error that the user can put right. 1 and 2 belong to `check` (drift, missing cells).
ERROR_STATUS = 3


_GREETING = """\
Gauntlet measures how robust image classifiers are. Three things to begin with:

  gauntlet run quickstart    two small models on real digits: attacks, OOD detection, calibration (two minutes)
  gauntlet init mine         a commented suite and a detector of your own, to change and to run
  gauntlet list models       what there is: datasets, models, recipes, attacks, detectors, suites, ...

`gauntlet --help` names all commands, `gauntlet doctor` tells whether this machine has what they need."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, invoke_without_command=True
)
@click.version_option(package_name="gauntlet-bench", prog_name="gauntlet")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Run image classifiers through attacks, out-of-distribution data and calibration checks.

    Try it: `gauntlet run quickstart` trains two small models on real digits, attacks them, and prints the tables.
    """
    if context.invoked_subcommand is None:
        echo(_GREETING)


def suite_options(command: F) -> F:
    """The options of every command that reads a suite."""
    for option in (
        click.option("--profile", metavar="NAME", help="Use this profile of the suite."),
        click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load a plug-in; repeatable."),
        click.option("--download", is_flag=True, help="Let torchvision download data sets that are absent."),
        click.option(
            "--data", type=click.Path(path_type=Path), help="Data root [default: $GAUNTLET_DATA or the cache]."
        ),
    ):
        command = option(command)
    return command


def run_options(command: F) -> F:
    """The options of commands that compute."""
    for option in (
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]|mps"),
        click.option("--logger", metavar="tensorboard|wandb", help="Write training curves there too (offline)."),
        out_option,
    ):
        command = option(command)
    return suite_options(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@cli.command()
@click.argument("suites", metavar="SUITE...", nargs=-1, required=True)
@run_options
@click.option(
    "--force",
    is_flag=False,
    flag_value="*",
    default="",
    metavar="[PATTERN]",
    help="Compute again what is in the store: cells whose model, detector, attack or evaluator the pattern picks.",
)
@click.option("--workers", metavar="N|auto", help="Share the work between so many processes.")
@click.option("--isolate", is_flag=True, help="Compute in a process of its own: what ends it loses one cell.")
@click.option(
    "--limit-time", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End a job after so long."
)
@click.option(
    "--limit-memory", type=click.FloatRange(min=0, min_open=True), metavar="GIB", help="What a worker may take."
)
@click.option("--explain-cache", is_flag=True, help="Say of every model why its stored cells may be used.")
def run(suites: tuple[str, ...], out: Path, profile: str | None, explain_cache: bool, **options: Any) -> None:
    """Plan, train what is missing, evaluate, and write results.csv and the tables.

    SUITE is a YAML file, the name of a built-in suite, or a pattern of such names: 'r1-*' reruns report R1. The results
    of several suites go to a folder each, below the output folder. Ctrl-C is safe: finished cells are kept, and the
    same command goes on where it stopped. Exits with 1 if a cell is neither ok nor skipped.
    """
    from .console import ConsoleReporter
    from .runner import run_suite
    from .suite import load_suite, named_suites

    names = named_suites(suites)
    if len(names) > 1:  # a mistake is found before any of them runs
        given = [load_plugin(plugin, REGISTRIES.values()) for plugin in options["plugins"]]
        for name in names:
            load_suite(name, profile=profile, plugins=given)
    folders = [out / Path(name).stem for name in names]
    complete = True
    for name, folder in zip(names, folders if len(names) > 1 else [out], strict=True):
        outcome = run_suite(name, out=folder, profile=profile, reporter=ConsoleReporter(_console()), **options)
        _print_tables(outcome)
        _summarise(outcome)
        for row, reason in outcome.reused.items() if explain_cache else ():
            echo(f"Stored cells of {row}: {reason}.", err=True)
        if outcome.interrupted:
            sys.exit(130)
        complete = complete and outcome.complete
    sys.exit(0 if complete else 1)


@cli.command()
@click.argument("suite")
@run_options
def train(suite: str, out: Path, **options: Any) -> None:
    """Train the models of a suite, and evaluate nothing."""
    from .console import ConsoleReporter
    from .runner import run_suite

    outcome = run_suite(suite, out=out, reporter=ConsoleReporter(_console()), evaluate=False, **options)
    _summarise(outcome, unit="models")
    sys.exit(130 if outcome.interrupted else 0 if outcome.complete else 1)


@cli.command()
@click.argument("suite")
@suite_options
@out_option
@json_option
def plan(suite: str, out: Path, as_json: bool, **options: Any) -> None:
    """Show what would run, what is in the store already, and what is left out and why."""
    from .plan_view import describe_plan, plan_as_json
    from .runner import prepare

    made, problems = prepare(suite, **options)
    echo(plan_as_json(made, out) if as_json else describe_plan(made, out))
    _report_problems(problems)


@cli.command(name="list")
@click.argument("kinds", nargs=-1)
@click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load a plug-in; repeatable.")
@click.option("--unavailable", is_flag=True, help="Only what cannot run here, with the reason.")
@json_option
def list_(kinds: tuple[str, ...], plugins: tuple[str, ...], unavailable: bool, as_json: bool) -> None:
    """Show the registries: datasets, models, recipes, attacks, detectors, ..., and the built-in suites.

    KINDS are some of them, such as `models recipes`; without any, all are shown.
    """
    from .listing import listing

    text, problems = listing(kinds, plugins, as_json=as_json, unavailable=unavailable)
    echo(text)
    _report_problems(problems)


@cli.command()
@click.argument("kind")
@click.argument("name")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load a plug-in; repeatable.")
@json_option
def show(kind: str, name: str, plugins: tuple[str, ...], as_json: bool) -> None:
    """Tell all of one entry: what it does, its parameters, its paper, how it is written in a suite.

    Examples: gauntlet show detector knn; gauntlet show suite quickstart
    """
    from .listing import showing

    text, problems = showing(kind, name, plugins, as_json=as_json)
    echo(text)
    _report_problems(problems)


@cli.command()
@click.argument("what", type=click.Choice(["suite"]))
def schema(what: str) -> None:
    """Print the JSON schema by which editors complete and check suites.

    Example: gauntlet schema suite > suite.schema.json, and at the top of a suite the line
    `# yaml-language-server: $schema=suite.schema.json`
    """
    import json

    from .suite_schema import suite_schema

    click.echo(json.dumps(suite_schema(), indent=1))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what completes commands in a shell.

    Example: gauntlet completion bash >> ~/.bashrc
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    echo(made(cli, {}, "gauntlet", "_GAUNTLET_COMPLETE").source())


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _print_tables(outcome: Outcome) -> None:
    from ..results.frame import load_results
    from ..results.tables import PRESETS, render

    frame = load_results(outcome.out, run=outcome.run_id)
    for make in PRESETS.values():
        for table in make(frame):
            echo(f"\n{render(table, 'plain')}")


def _summarise(outcome: Outcome, unit: str = "cells") -> None:
    counts = ", ".join(f"{number} {status}" for status, number in outcome.counts.items()) or "nothing to do"
    echo(f"\n{unit}: {counts}. Results are in {outcome.out}{'/results.csv' if unit == 'cells' else ''}", err=True)
    if outcome.interrupted:
        echo("Interrupted: finished cells are kept; the same command goes on from here.", err=True)
    elif unit == "cells" and outcome.counts:
        where = "" if outcome.out == Path(DEFAULT_OUT) else f" --out {shlex.quote(str(outcome.out))}"
        echo(
            f"Next: `gauntlet report{where}` makes a page of them; `gauntlet table`, `gauntlet plot` show more.",
            err=True,
        )
    _report_problems(outcome.problems)


def _report_problems(problems: Any) -> None:
    for problem in problems:
        echo(f"Warning: {problem}", err=True)


def _add_commands() -> None:
    """Those that read a finished store or verify a component, each in a module of its own."""
    from . import cli_verify, cli_workers
    from .cli_check import baseline, check
    from .cli_data import data
    from .cli_doctor import doctor
    from .cli_init import init
    from .cli_plot import plot
    from .cli_report import report
    from .cli_share import export, import_, log, merge
    from .cli_table import table

    for command in (table, plot, report, baseline, check, merge, export, import_, log, init, doctor, data):
        cli.add_command(command)
    cli_verify.register(cli)
    cli.add_command(cli_workers.worker)
    cli.add_command(cli_workers.collect)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point: errors are one sentence on stderr; a traceback only with ``--debug``."""
    _add_commands()
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    plain = warnings.formatwarning
    warnings.formatwarning = lambda *parts, **more: harmless(plain(*parts, **more))
    try:
        cli.main([argument for argument in given if argument != "--debug"], prog_name="gauntlet", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show(shown := io.StringIO())
        echo(shown.getvalue().rstrip("\n"), err=True)
        sys.exit(ERROR_STATUS)
    except (KeyboardInterrupt, click.Abort):
        echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `gauntlet list | head`
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _say_full(error)
        echo(f"Error: {_sentence(error)}", err=True)
        sys.exit(ERROR_STATUS if isinstance(error, GauntletError) else 70)
    finally:
        warnings.formatwarning = plain
    sys.exit(0)


def _say_full(error: OSError) -> NoReturn:
    """There is no room for a file, or behind stdout; what still waits there would fail again when the process ends."""
    if error.filename is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    what = "The output" if error.filename is None else error.filename
    echo(f"Error: {what} cannot be written: {error.strerror}.", err=True)
    sys.exit(ERROR_STATUS)


def _sentence(error: Exception) -> str:
    if isinstance(error, GauntletError):
        return str(error)
    if "torchvision::nms" in str(error):
        return (
            "torch and torchvision do not fit together (a CPU build of one with a CUDA build of the other?); install "
            "both in one go: pip install --force-reinstall torch torchvision"
        )
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{what} (a defect of Gauntlet or of a plug-in; run again with --debug for the traceback)"
