"""Exit codes, one place for each number."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer

DONE, FAILED, USAGE, NOTHING_TO_DO = 0, 1, 2, 3


def exits(command: Callable[..., int]) -> Callable[..., None]:
    """A command that ends the process with the code that `command` returns."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        raise typer.Exit(command(*arguments, **options))

    return run
