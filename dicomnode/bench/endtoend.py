"""Studies through a whole node: `dicomnode serve` as a process, a PACS in this one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom.dataset import Dataset

from dicomnode.bench.measured import Measured
from dicomnode.dimse import echo, send_files
from dicomnode.errors import DestinationUnavailable, DicomnodeError
from dicomnode.modelcard import CARD_PATH
from dicomnode.testing.pacs import ReceivingPacs
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from dicomnode.testing.saved_models import tiny_card

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_REPORT_SECONDS = 600.0
_SIDE = 512
_MOST_ANALYSERS = 64

_SETTINGS = """
[dimse]
port = {dimse_port}
maximum_associations = 200
accept_unknown_peers = true
[storage]
minimum_free_bytes = 0
[study]
idle_seconds = 0.0
[serving]
engine = "external"
targets = {targets}
model_base_path = "models"
[web]
port = {web_port}
[worker]
analysers = {analysers}
[log]
level = "ERROR"
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
"""


class TimedPacs(ReceivingPacs):
    """Remembers when the first report of each study came in."""

    def __init__(self) -> None:
        super().__init__(answer=self._note)
        self.reported: dict[str, float] = {}

    def _note(self, dataset: Dataset) -> int:
        if dataset.Modality == "SR":
            self.reported.setdefault(str(dataset.StudyInstanceUID), time.perf_counter())
        return 0x0000


def measure_node(targets: Sequence[str], *, studies: int, concurrency: int) -> Measured:
    """`studies` of one image each, pushed by `concurrency` senders; a latency is the time from
    the C-STORE request to the report in the PACS. Raises `DicomnodeError`."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as name:
        folder = Path(name)
        files = _phantoms(folder, studies + 1)
        pacs = TimedPacs()
        pacs.start()
        try:
            with _node(folder, targets, pacs.port, min(concurrency, _MOST_ANALYSERS)) as port:
                _push(port, files[-1][1])  # codecs, tables of the standard and channels
                _await(pacs, 1)
                sent, started = _pushed(port, files[:-1], concurrency)
                _await(pacs, studies + 1)
        finally:
            pacs.stop()
    ended = max(pacs.reported[uid] for uid in sent)
    return Measured(
        backends=len(targets),
        studies=studies,
        seconds=ended - started,
        latencies=tuple(sorted(pacs.reported[uid] - sent[uid] for uid in sent)),
    )


def _pushed(
    port: int, files: list[tuple[str, Path]], concurrency: int
) -> tuple[dict[str, float], float]:
    """When each study was sent, and when the first was."""
    sent: dict[str, float] = {}
    lock = threading.Lock()

    def send(study: tuple[str, Path]) -> None:
        with lock:
            sent[study[0]] = time.perf_counter()
        _push(port, study[1])

    with ThreadPoolExecutor(concurrency, thread_name_prefix="modality") as modalities:
        started = time.perf_counter()
        list(modalities.map(send, files))
    return sent, started


def _push(port: int, path: Path) -> None:
    (result,) = send_files("127.0.0.1", port, [path], called_ae_title="DICOMNODE")
    if not result.stored:
        raise DicomnodeError(f"the node did not take a phantom: {result.message}")


def _await(pacs: TimedPacs, count: int) -> None:
    if not pacs.wait_for(lambda _: len(pacs.reported) >= count, _REPORT_SECONDS):
        raise DicomnodeError(
            f"{len(pacs.reported)} of {count} reports within {_REPORT_SECONDS:g} s; "
            "try fewer --studies"
        )


def _phantoms(folder: Path, count: int) -> list[tuple[str, Path]]:
    """One film under as many names: making films is not what is measured."""
    dataset = phantom_dataset(20, True, rows=_SIDE, columns=_SIDE)
    files = []
    for number in range(count):
        dataset.PatientID = f"PHANTOM-{number}"
        dataset.StudyInstanceUID = f"2.25.{71_000_000 + number}"
        dataset.SeriesInstanceUID = f"2.25.{72_000_000 + number}"
        dataset.SOPInstanceUID = f"2.25.{73_000_000 + number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{number}.dcm"
        path.write_bytes(part10_bytes(dataset))
        files.append((str(dataset.StudyInstanceUID), path))
    return files


@contextlib.contextmanager
def _node(folder: Path, targets: Sequence[str], pacs_port: int, analysers: int) -> Iterator[int]:
    """The DICOM port of a node that is ready."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "ab"]
        dimse_port, web_port = (listener.getsockname()[1] for listener in listeners)
    card = folder / "models" / "1" / CARD_PATH
    card.parent.mkdir(parents=True)
    card.write_text(tiny_card("covid19", 1).to_json())
    config = folder / "node.toml"
    config.write_text(
        _SETTINGS.format(
            dimse_port=dimse_port,
            web_port=web_port,
            pacs_port=pacs_port,
            targets=json.dumps(list(targets)),
            analysers=analysers,
        )
    )
    # settings of the node that runs here must not reach the one that is measured
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DICOMNODE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "dicomnode", "serve", "--config", str(config)], env=clean
    )
    try:
        _await_port(process, dimse_port)
        yield dimse_port
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(DestinationUnavailable):
            if echo("127.0.0.1", port, called_ae_title="DICOMNODE") == 0:
                return
        time.sleep(0.05)
    raise DicomnodeError("the node did not start; its error is above")
