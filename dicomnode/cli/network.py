"""`dicomnode echo` and `dicomnode send`: a modality's two verbs, for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.exits import DONE, FAILED, NOTHING_TO_DO
from dicomnode.errors import ConfigError, DicomnodeError

PeerArgument = Annotated[str, typer.Argument(metavar="HOST:PORT", help="The peer.")]
CalledOption = Annotated[str, typer.Option(help="Called AE title.")]
CallingOption = Annotated[str, typer.Option(help="Calling AE title.")]


def echo(
    peer: PeerArgument, called: CalledOption = "ANY-SCP", calling: CallingOption = "DICOMNODE"
) -> None:
    """Ask a peer whether it answers (C-ECHO)."""
    from dicomnode.dimse import echo as c_echo

    host, port = _address(peer)
    status = c_echo(host, port, called_ae_title=called, calling_ae_title=calling)
    if status != 0:
        raise DicomnodeError(f"{peer} answered C-ECHO with 0x{status:04X}, expected 0x0000")
    typer.echo(f"{peer} answered C-ECHO with 0x0000")


def send(
    peer: PeerArgument,
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders.", exists=True)],
    called: CalledOption = "DICOMNODE",
    calling: CallingOption = "DICOMNODE",
) -> int:
    """Send files as they are (C-STORE)."""
    from rich.progress import track

    from dicomnode.dimse import send_files

    host, port = _address(peer)
    files = _files(paths)
    if not files:
        typer.echo("no files there")
        return NOTHING_TO_DO
    failures = []
    results = send_files(host, port, files, called_ae_title=called, calling_ae_title=calling)
    for result in track(results, total=len(files), description=f"to {peer}", transient=True):
        if not result.stored:
            failures.append(result)
            typer.echo(f"{result.path}: {result.message}", err=True)
    typer.echo(f"{len(files) - len(failures)} of {len(files)} stored at {peer}")
    return FAILED if failures else DONE


def _address(peer: str) -> tuple[str, int]:
    host, _, port = peer.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ConfigError([f"the peer must be HOST:PORT, got {peer!r}"])
    return host, int(port)


def _files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found
