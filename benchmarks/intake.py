"""C-STORE intake: images and bytes per second, acknowledged only when durable.

    python -m benchmarks.intake

Sends generated uncompressed CR images with DCMTK's dcmsend over 1 and 4 associations to
this node, to Orthanc and to pynetdicom's own storescp, one after the other on the same
machine, each with an empty store per run; the runs are interleaved. `ratio` is the median of
what each round's images/s are relative to Orthanc's in the same round, the rest are medians;
`ms` is the server's processor time per image.

Before it acknowledges, this node has synced the file, its folder and the index; Orthanc, with
SyncStorageArea, the file, but neither its folder nor the index (SQLite in WAL mode,
synchronous=NORMAL); storescp nothing, and it has no index: it is here for the cost of the
network side only. All three may receive PDUs of 128 KiB. TCP_NODELAY=1 is set for DCMTK's
code, the sender's and Orthanc's: without it Nagle's algorithm and delayed acknowledgements
cost Orthanc 40 ms per image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.films import generate


class Row(NamedTuple):
    size: str
    side: int
    associations: int
    images: int
    """Per association; the first one warms the server up."""


class Server(NamedTuple):
    port: int
    pid: int


Starts = Callable[[Path], AbstractContextManager[Server]]
"""Starts a server with an empty store under a folder."""


class Measured(NamedTuple):
    rate: float
    processor_ms: float


ROWS = {
    "0.5x1": Row("0.5 MB", 512, 1, 201),
    "0.5x4": Row("0.5 MB", 512, 4, 151),
    "8x1": Row("8 MB", 2048, 1, 25),
    "8x4": Row("8 MB", 2048, 4, 11),
}
REPEATS = 3
MAXIMUM_PDU = 131072
NO_DELAY = os.environ | {"TCP_NODELAY": "1"}
START_SECONDS = 20.0
RUN_SECONDS = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description="C-STORE intake, side by side")
    parser.add_argument("--serve", metavar="ROOT", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--only", nargs="*", choices=list(SERVERS), default=None)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        return serve(arguments.serve)
    names = [
        name
        for name in arguments.only or SERVERS
        if name != "Orthanc" or shutil.which("Orthanc", path="/usr/sbin:/usr/bin")
    ]
    print(f"{os.cpu_count()} cores, {arguments.repeats} repeats, medians; sender: DCMTK dcmsend")
    head = f"{'image':8}{'assoc.':>7}"
    print(head + "".join(f" | {name:>10} img/s  MB/s    ms ratio" for name in names))
    with tempfile.TemporaryDirectory(prefix="intake-") as folder:
        for row in arguments.rows:
            print(_measure(ROWS[row], names, arguments.repeats, Path(folder)), flush=True)
    print("ratio: images/s relative to Orthanc's; ms: processor time of the server per image")
    return 0


def _measure(row: Row, names: list[str], repeats: int, folder: Path) -> str:
    batches = [
        generate(folder / f"{row.side}-{row.associations}-{number}", row.images, row.side)
        for number in range(row.associations)
    ]
    megabytes = batches[0][0].stat().st_size / 1e6
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            found[name].append(_run(SERVERS[name], batches, folder))
    _empty(folder)
    line = f"{row.size:8}{row.associations:>7}"
    for name in names:
        rate = statistics.median(one.rate for one in found[name])
        processor_ms = statistics.median(one.processor_ms for one in found[name])
        line += f" | {rate:>16.1f} {rate * megabytes:>5.0f} {processor_ms:>5.2f}"
        line += f" {_ratio(found[name], found.get('Orthanc', [])):>5.2f}"
    return line


def _ratio(ours: list[Measured], reference: list[Measured]) -> float:
    """Round by round: whatever else the machine does slows both of a round down."""
    ratios = [one.rate / other.rate for one, other in zip(ours, reference, strict=False)]
    return statistics.median(ratios) if ratios else float("nan")


def _run(server: Starts, batches: list[list[Path]], folder: Path) -> Measured:
    root = Path(tempfile.mkdtemp(dir=folder))
    with server(root) as running:
        _send([batch[:1] for batch in batches], running.port)  # a running server, not a new one
        os.sync()  # one server's dirty pages are not the next one's burden
        before = _processor_seconds(running.pid)
        started = time.perf_counter()
        _send([batch[1:] for batch in batches], running.port)
        seconds = time.perf_counter() - started
        processor_seconds = _processor_seconds(running.pid) - before
    _empty(root)
    count = sum(len(batch) - 1 for batch in batches)
    return Measured(rate=count / seconds, processor_ms=processor_seconds / count * 1000)


def _empty(folder: Path) -> None:
    """Free the space, but leave the names until the end: ext4 passes over the inodes that were
    freed in the last minutes, one by one, and the next server's files would pay for that."""
    for parent, _, names in os.walk(folder):
        for name in names:
            os.truncate(Path(parent, name), 0)


def _processor_seconds(pid: int) -> float:
    """User and system time of all threads of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _send(batches: list[list[Path]], port: int) -> None:
    """One association per batch, all at the same time."""
    command = ["/usr/bin/dcmsend", "-q", "-aec", "DICOMNODE", "127.0.0.1", str(port)]
    senders = [
        subprocess.Popen(command + [str(path) for path in batch], env=NO_DELAY) for batch in batches
    ]
    codes = [sender.wait(RUN_SECONDS) for sender in senders]
    if any(codes):
        raise SystemExit(f"dcmsend ended with {codes}, expected zeros")


# ---------------------------------------------------------------- the servers


@contextmanager
def dicomnode(root: Path) -> Iterator[Server]:
    """This node's SCP, store and index; no worker looks at what arrives."""
    command = [sys.executable, "-m", "benchmarks.intake", "--serve", str(root)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Server(int(process.stdout.readline()), process.pid)
        finally:
            process.stdin.close()
            process.wait(START_SECONDS)


@contextmanager
def orthanc(root: Path) -> Iterator[Server]:
    port = free_port()
    settings = root / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "StorageDirectory": str(root / "store"),
                "IndexDirectory": str(root / "store"),
                "DicomPort": port,
                "DicomAet": "DICOMNODE",
                "HttpServerEnabled": False,
                "DicomAlwaysAllowStore": True,
                "SyncStorageArea": True,
                "MaximumPduLength": MAXIMUM_PDU,
                "Plugins": [],
            }
        )
    )
    with _child(["/usr/sbin/Orthanc", str(settings)], port, root) as pid:
        yield Server(port, pid)


@contextmanager
def storescp(root: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-q"]
    command += ["-pdu", str(MAXIMUM_PDU), "-od", str(root), "-ba", "127.0.0.1"]
    with _child(command, port, root) as pid:
        yield Server(port, pid)


SERVERS: dict[str, Starts] = {
    "dicomnode": dicomnode,
    "Orthanc": orthanc,
    "pynetdicom": storescp,
}


@contextmanager
def _child(command: list[str], port: int, root: Path) -> Iterator[int]:
    with (
        (root / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=NO_DELAY) as process,
    ):
        try:
            _await_listener(port, process)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _await_listener(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen on {port}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def serve(root: Path) -> int:
    """Receive under `root` until standard input closes; prints the port."""
    from datetime import UTC, datetime

    from pydantic import SecretStr

    from dicomnode.config import DimseSettings, StorageSettings
    from dicomnode.dimse import StorageScp
    from dicomnode.intake import Intake
    from dicomnode.logs import configure
    from dicomnode.metrics import Metrics
    from dicomnode.storage import open_storage

    configure(level="INFO", json=True)
    settings = DimseSettings(accept_unknown_peers=True).model_copy(update={"port": 0})
    storage = open_storage(
        StorageSettings(root=root, database_url=SecretStr(""), minimum_free_bytes=0)
    )
    metrics = Metrics()
    intake = Intake(
        files=storage.files,
        index=storage.index,
        clock=lambda: datetime.now(UTC),
        metrics=metrics,
        idle_seconds=5.0,
    )
    scp = StorageScp(settings, storage.files.incoming, intake.accept, metrics)
    scp.start()
    print(scp.port, flush=True)
    sys.stdin.read()
    scp.stop()
    storage.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
