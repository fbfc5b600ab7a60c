"""The commands that read a finished store, each in a module of its own."""

from __future__ import annotations

import click


def register(group: click.Group) -> None:
    """Add the commands to ``group``."""
    from .cli_check import baseline, check
    from .cli_log import log
    from .cli_plot import plot
    from .cli_report import report
    from .cli_share import export, import_, merge
    from .cli_table import table

    for command in (table, plot, report, baseline, check, merge, export, import_, log):
        group.add_command(command)
