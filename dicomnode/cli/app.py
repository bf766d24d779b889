"""The table of contents of the command line, and its exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dicomnode import __version__
from dicomnode.cli import (
    backup,
    bench,
    demo,
    doctor,
    infer,
    jobs,
    labels,
    modelserver,
    network,
    serve,
    studies,
)
from dicomnode.cli.exits import DONE, FAILED, USAGE, exits
from dicomnode.errors import ConfigError, DicomnodeError

app = typer.Typer(
    name="dicomnode",
    help="A DICOM inference node. Investigational, not for diagnostic use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dicomnode {__version__}")
        raise typer.Exit(DONE)


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""
    del debug, version


app.command("demo")(exits(demo.demo))
app.command("serve")(exits(serve.serve))
app.command("check-config")(serve.check_config)
app.command("echo")(network.echo)
app.command("send")(exits(network.send))
app.command("infer")(exits(infer.infer))
app.command("report")(studies.report)
app.command("bench")(exits(bench.bench))
app.command("doctor")(exits(doctor.doctor))
app.command("backup")(exits(backup.backup))
app.command("restore")(exits(backup.restore))
app.add_typer(studies.app, name="studies")
app.add_typer(jobs.app, name="queue")
app.add_typer(labels.app, name="labels")
app.command(
    "model-server",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)(exits(modelserver.model_server))


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    raise SystemExit(_run(arguments))


def _run(arguments: list[str]) -> int:
    try:
        # typer prints usage errors itself and exits: their classes are private to it
        app(args=arguments, prog_name="dicomnode")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(f"config      {problem}", err=True)
        return USAGE
    except DicomnodeError as error:
        if "--debug" in arguments:
            raise
        typer.echo(f"{error.code}: {error}", err=True)
        return FAILED
    return DONE
