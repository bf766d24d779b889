"""Tables for people; a pipe gets whole lines."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

_WIDTH_OF_A_PIPE = 400


def print_table(table: Table) -> None:
    """Fit the terminal; without one, break no line."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_PIPE)
    console.print(table)
