"""The command `gauntlet verify`: an attack on models of which the right answer is known."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..registry import GauntletError
from .cli_options import echo


def register(group: click.Group) -> None:
    """Add the command to ``group``."""
    group.add_command(verify)


@click.command()
@click.argument("kind", type=click.Choice(["attack"]))
@click.argument("name")
@click.option("--full", is_flag=True, help="At the attack's own settings, which may take minutes, not with few steps.")
@click.option("--set", "settings", multiple=True, metavar="PARAMETER=VALUE", help="Set a parameter; repeatable.")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load a plug-in; repeatable.")
def verify(kind: str, name: str, full: bool, settings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Run an attack on models of which the right answer is known, and say what it did.

    A linear model (distances in closed form), a constant one (nothing may succeed), one with masked gradients (must be
    flagged), a randomised and a small trained one. Exits with 1 if the attack does what no attack may.

    \b
    gauntlet verify attack pgd
    gauntlet verify attack my-attack --plugin my_attack.py --set steps=5
    """
    from ..attacks.conformance import verify as verify_attack
    from ..registry import REGISTRIES, load_entry_points, load_plugins

    for problem in [*load_entry_points(REGISTRIES.values()), *load_plugins(plugins, REGISTRIES.values())]:
        echo(f"Warning: {problem}", err=True)
    findings = verify_attack(name, full=full, **_parameters(settings))
    width = max(len(finding.model) for finding in findings)
    for finding in findings:
        echo(f"{'ok  ' if finding.passed else 'FAIL'}  {finding.model:<{width}}  {finding.text}")
    passed = all(finding.passed for finding in findings)
    echo(f"{kind} {name} {'conforms' if passed else 'does not conform'}.")
    sys.exit(0 if passed else 1)


def _parameters(settings: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    found = {}
    for text in settings:
        name, sign, value = text.partition("=")
        if not sign:
            raise GauntletError(f"--set {text!r}: write PARAMETER=VALUE, such as --set steps=5.")
        found[name] = yaml.safe_load(value)
    return found
