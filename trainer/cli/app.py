"""The `trainer` command: parses, calls, prints, and maps errors to exit codes.

0 done, 1 failed, 2 wrong usage, 3 nothing to do. Progress goes to standard output, for
people or as one JSON object a line; errors are one line on standard error, a traceback
only with `--debug`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Annotated

import typer

from dicomnode.errors import DicomnodeError
from trainer.cli import audit, evaluate, fit, models, retrain, submit

DONE, FAILED = 0, 1

app = typer.Typer(
    name="trainer",
    help="Train and publish models for a dicomnode. Investigational, not for diagnostic use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    """Options of every command."""
    del debug


app.command("audit")(audit.audit)
app.command("fit")(fit.fit)
app.command("evaluate")(evaluate.evaluate)
app.command("retrain")(retrain.retrain)
app.command("submit")(submit.submit)
app.add_typer(models.app, name="models")


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    raise SystemExit(_run(arguments))


def _run(arguments: list[str]) -> int:
    # pydicom quotes values of data elements, a patient's among them, in warnings and log lines
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        # standalone mode prints usage errors itself: their classes are private to typer
        app(args=arguments, prog_name="trainer")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED
    except DicomnodeError as error:
        if "--debug" in arguments:
            raise
        typer.echo(f"{error.code}: {error}", err=True)
        return getattr(error, "exit_code", FAILED)
    except OSError as error:
        # a disk that is full or read-only can meet any command anywhere
        if "--debug" in arguments:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        typer.echo(f"system: {where}{error.strerror or error} (--debug shows where)", err=True)
        return FAILED
    return DONE
