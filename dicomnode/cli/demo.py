"""`dicomnode demo`: the whole loop on this machine, on generated phantoms.

Train a small network, publish it, start a PACS and a node with its model server, push
studies, and show the reports that came back to the PACS.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dicomnode.cli.exits import DONE, FAILED
from dicomnode.errors import DicomnodeError

if TYPE_CHECKING:
    from dicomnode.testing.pacs import ReceivingPacs

MODEL_NAME = "covid19"
_SEED = 20
_TRAINING_PHANTOMS_PER_CLASS = 120
_START_SECONDS = 120.0
_REPORT_SECONDS = 120.0
_AGREEMENTS_NEEDED = 5

SETTINGS = """\
# Written by `dicomnode demo`. Start this node again with: dicomnode serve --config node.toml

[dimse]
ae_title = "DICOMNODE"
port = {dimse_port}

[[dimse.peers]]
name = "xray1"
ae_title = "XRAY1"
host = "127.0.0.1"

[storage]
root = "var"
minimum_free_bytes = 100_000_000

[study]
idle_seconds = 1.0

[serving]
engine = "embedded"
targets = ["127.0.0.1:{model_port}"]
model_name = "{model_name}"
model_base_path = "models/{model_name}"

[[destinations]]
name = "pacs"
kind = "dimse"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}

[web]
port = {web_port}
"""


@dataclass(frozen=True)
class Study:
    """A phantom study and the truth about it."""

    seed: int
    positive: bool
    photometric_interpretation: Literal["MONOCHROME1", "MONOCHROME2"]
    transfer_syntax_uid: str
    sop_class: Literal["CR", "DX"]

    @property
    def described(self) -> str:
        truth = "positive" if self.positive else "negative"
        return f"{truth} phantom, {self.sop_class}, {self.photometric_interpretation}"


EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
JPEG_2000, RLE, JPEG_LS = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
)

STUDIES = (
    Study(9000, True, "MONOCHROME2", EXPLICIT, "DX"),
    Study(9001, False, "MONOCHROME1", EXPLICIT, "CR"),
    Study(9002, True, "MONOCHROME1", JPEG_2000, "DX"),
    Study(9003, False, "MONOCHROME2", RLE, "CR"),
    Study(9004, True, "MONOCHROME2", IMPLICIT, "CR"),
    Study(9005, False, "MONOCHROME2", JPEG_LS, "DX"),
)


def demo(
    out: Annotated[Path, typer.Option(help="Where everything is left.")] = Path("dicomnode-demo"),
) -> int:
    """Run the whole loop on generated phantoms: train, serve, push, report."""
    console = Console()
    console.print("[bold]dicomnode demo[/] - computer-generated phantoms, no patients.")
    console.print("Investigational, not for diagnostic use.\n")
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with _progress(console) as progress:
        _ensure_model(out, progress, console)
    return _show_loop(out, console)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
    )


# ------------------------------------------------------------------------------ training


def _ensure_model(out: Path, progress: Progress, console: Console) -> None:
    base = out / "models" / MODEL_NAME
    if (base / "1" / "saved_model.pb").is_file():
        progress.add_task(f"network is trained already ({base / '1'})", total=1, completed=1)
        return
    started = time.monotonic()
    data = out / "phantoms"
    _write_phantoms(data, progress)
    _train(data, base, progress, out / "training.log")
    shutil.rmtree(data)
    console.print(f"trained and published in {time.monotonic() - started:.0f} s: {base / '1'}")


def _write_phantoms(data: Path, progress: Progress) -> None:
    from dicomnode.testing.phantoms import write_training_folder

    total = 2 * _TRAINING_PHANTOMS_PER_CLASS
    task = progress.add_task(f"generating {total} phantoms to learn from", total=total)
    write_training_folder(
        data,
        count_per_class=_TRAINING_PHANTOMS_PER_CLASS,
        seed=_SEED,
        progress=lambda done, _: progress.update(task, completed=done),
    )


def _train(data: Path, base: Path, progress: Progress, log_path: Path) -> None:
    task = progress.add_task("training a small network", total=None)
    command = [
        *(sys.executable, "-m", "trainer", "fit"),
        *(f"--data={data}", f"--out={base}"),
        *("--network=tiny", "--weights=random", f"--seed={_SEED}"),
        *("--positive-class=positive", "--finding=covid19", "--progress=json"),
    ]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    with (
        log_path.open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment) as process,
    ):
        for line in process.stdout or ():
            progress.update(task, description=_described(line))
    if process.returncode != 0:
        raise DicomnodeError(f"training ended with exit code {process.returncode}; see {log_path}")
    progress.update(task, total=1, completed=1, description="trained a small network")


def _described(line: bytes) -> str:
    try:
        event = json.loads(line)
    except ValueError:
        return "training a small network"
    facts = ", ".join(f"{key} {value}" for key, value in event.items() if key != "event")
    return f"training a small network: {event.get('event', '')} {facts}"[:100]


# ------------------------------------------------------------------------------ the loop


def _show_loop(out: Path, console: Console) -> int:
    from dicomnode.testing.pacs import receiving_pacs

    ports = _free_ports(3)
    with receiving_pacs() as pacs:
        config = out / "node.toml"
        config.write_text(
            SETTINGS.format(
                dimse_port=ports[0],
                model_port=ports[1],
                web_port=ports[2],
                pacs_port=pacs.port,
                model_name=MODEL_NAME,
            ),
            encoding="utf-8",
        )
        with _running_node(config, out / "node.log") as process:
            with _progress(console) as progress:
                _await_ready(ports[2], process, progress, out / "node.log")
                uids = _push(ports[0], out, progress)
                task = progress.add_task("waiting for reports at the PACS", total=len(uids))
                arrived = pacs.wait_for(
                    lambda p: _complete(p, uids, progress, task), _REPORT_SECONDS
                )
            agreements = _print_reports(pacs, uids, ports[2], out, console)
    if not arrived:
        console.print(f"[red]not every report arrived; see {out / 'node.log'}[/]")
        return FAILED
    console.print(
        f"{agreements} of {len(uids)} reports agree with the phantom's truth. "
        f"Reports, heatmaps, settings: {out}"
    )
    return DONE if agreements >= _AGREEMENTS_NEEDED else FAILED


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


@contextmanager
def _running_node(config: Path, log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dicomnode", "serve", f"--config={config}"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(
    port: int, process: subprocess.Popen[bytes], progress: Progress, log_path: Path
) -> None:
    task = progress.add_task("starting the model server and the node", total=None)
    until = time.monotonic() + _START_SECONDS
    while not _ready(port):
        if process.poll() is not None:
            raise DicomnodeError(f"the node ended with {process.returncode}; see {log_path}")
        if time.monotonic() > until:
            raise DicomnodeError(f"not ready after {_START_SECONDS:.0f} s; see {log_path}")
        time.sleep(0.2)
    progress.update(task, total=1, completed=1, description="model server and node are ready")


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _push(port: int, out: Path, progress: Progress) -> dict[str, Study]:
    """Send each study as the X-ray machine would; returns the studies by UID."""
    from dicomnode.daemon import new_uid
    from dicomnode.dimse import send_files
    from dicomnode.testing.phantoms import part10_bytes, phantom_dataset

    task = progress.add_task(f"XRAY1 pushes {len(STUDIES)} studies", total=len(STUDIES))
    folder = out / "studies"
    folder.mkdir(exist_ok=True)
    uids = {}
    for number, study in enumerate(STUDIES, start=1):
        dataset = phantom_dataset(
            study.seed,
            study.positive,
            study_instance_uid=new_uid(),
            sop_instance_uid=new_uid(),
            photometric_interpretation=study.photometric_interpretation,
            transfer_syntax=study.transfer_syntax_uid,
            sop_class=study.sop_class,
        )
        path = folder / f"{number}.dcm"
        path.write_bytes(part10_bytes(dataset))
        (result,) = send_files(
            "127.0.0.1", port, [path], called_ae_title="DICOMNODE", calling_ae_title="XRAY1"
        )
        if not result.stored:
            raise DicomnodeError(f"study {number} was not stored: {result.message}")
        uids[str(dataset.StudyInstanceUID)] = study
        progress.advance(task)
    return uids


def _complete(pacs: ReceivingPacs, uids: dict[str, Study], progress: Progress, task: Any) -> bool:
    reported = {ds.StudyInstanceUID for ds in pacs.reports} & uids.keys()
    mapped = {ds.StudyInstanceUID for ds in pacs.heatmaps} & uids.keys()
    progress.update(task, completed=len(reported & mapped))
    return len(reported) == len(mapped) == len(uids)


# ------------------------------------------------------------------------------ results


def _print_reports(
    pacs: ReceivingPacs, uids: dict[str, Study], web_port: int, out: Path, console: Console
) -> int:
    """Write what the PACS received and print it; returns how many reports are right."""
    from dicomnode import sr

    reports, heatmaps = _folder(out / "reports"), _folder(out / "heatmaps")
    _write_heatmaps(pacs, uids, heatmaps)
    agreements = 0
    for number, (uid, study) in enumerate(uids.items(), start=1):
        document = next((ds for ds in pacs.reports if ds.StudyInstanceUID == uid), None)
        console.rule(f"study {number}: {study.described}")
        if document is None:
            console.print("[red]no report[/]")
            continue
        document.save_as(reports / f"study-{number}.dcm", enforce_file_format=True)
        agrees = _says_present(document) is study.positive
        agreements += agrees
        console.print(sr.report_text(_report(web_port, uid)), markup=False, highlight=False)
        console.print("[green]agrees with the truth[/]" if agrees else "[red]disagrees[/]")
    return agreements


def _folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def _write_heatmaps(pacs: ReceivingPacs, uids: dict[str, Study], folder: Path) -> None:
    from PIL import Image

    for number, uid in enumerate(uids, start=1):
        for dataset in pacs.heatmaps:
            if uid == dataset.StudyInstanceUID:
                Image.fromarray(dataset.pixel_array).save(folder / f"study-{number}.png")


def _says_present(document: Any) -> bool | None:
    """What the report itself says: the code 52101004 (Present) or 272519000 (Absent)."""
    codes = {
        element.value
        for element in document.iterall()
        if element.keyword == "CodeValue" and element.value in ("52101004", "272519000")
    }
    return None if len(codes) != 1 else "52101004" in codes


def _report(port: int, study_instance_uid: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/api/studies/{study_instance_uid}/report"
    with urllib.request.urlopen(url, timeout=10) as answer:
        content: dict[str, Any] = json.load(answer)
    return content
