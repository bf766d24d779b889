"""C-STORE intake: images and bytes per second, acknowledged only when durable.

    python -m benchmarks.intake

Sends generated uncompressed CR images with DCMTK's dcmsend over 1 and 4 associations to
this node, to Orthanc and to pynetdicom's own storescp, one after the other on the same
machine, each with an empty store per run; the runs are interleaved and the medians
printed. Before it acknowledges, this node has synced the file, its folder and the index;
Orthanc the file, not the index (SQLite in WAL mode, synchronous=NORMAL); storescp nothing,
and it has no index: it is here for the cost of the network side only. All three may
receive PDUs of 128 KiB. TCP_NODELAY=1 is set for DCMTK's code, the sender's and Orthanc's:
without it Nagle's algorithm and delayed acknowledgements cost Orthanc 40 ms per image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROWS = (
    # name, rows = columns of the image, associations, images per association
    ("0.5 MB", 512, 1, 201),
    ("0.5 MB", 512, 4, 151),
    ("8 MB", 2048, 1, 25),
    ("8 MB", 2048, 4, 11),
)
REPEATS = 3
MAXIMUM_PDU = 131072
NO_DELAY = os.environ | {"TCP_NODELAY": "1"}
START_SECONDS = 20.0
RUN_SECONDS = 120.0
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def main() -> int:
    parser = argparse.ArgumentParser(description="C-STORE intake, side by side")
    parser.add_argument("--serve", metavar="ROOT", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
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
    print(head + "".join(f" | {name:>10} img/s   MB/s  ratio" for name in names))
    with tempfile.TemporaryDirectory(prefix="intake-") as folder:
        for row in ROWS:
            print(_measure(row, names, arguments.repeats, Path(folder)), flush=True)
    print("ratio: images/s relative to Orthanc's")
    return 0


def _measure(row: tuple[str, int, int, int], names: list[str], repeats: int, folder: Path) -> str:
    label, side, associations, images = row
    batches = [
        generate(folder / f"{side}-{associations}-{number}", images, side)
        for number in range(associations)
    ]
    size = batches[0][0].stat().st_size
    count = associations * (images - 1)  # the first one of each warms the server up
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            rates[name].append(count / _seconds(SERVERS[name], batches, folder))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for batch in batches:
        shutil.rmtree(batch[0].parent)
    line = f"{label:8}{associations:>7}"
    for name in names:
        ratio = medians[name] / medians["Orthanc"] if "Orthanc" in medians else float("nan")
        line += f" | {medians[name]:>16.1f} {medians[name] * size / 1e6:>6.0f} {ratio:>6.2f}"
    return line


def _seconds(server: Callable[[Path], object], batches: list[list[Path]], folder: Path) -> float:
    root = Path(tempfile.mkdtemp(dir=folder))
    with server(root) as port:  # type: ignore[attr-defined]
        _send([batch[:1] for batch in batches], port)  # a running server, not a starting one
        os.sync()  # one server's dirty pages are not the next one's burden
        started = time.perf_counter()
        _send([batch[1:] for batch in batches], port)
        seconds = time.perf_counter() - started
    shutil.rmtree(root)
    return seconds


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
def dicomnode(root: Path) -> Iterator[int]:
    """This node's SCP, store and index; no worker looks at what arrives."""
    command = [sys.executable, "-m", "benchmarks.intake", "--serve", str(root)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(START_SECONDS)


@contextmanager
def orthanc(root: Path) -> Iterator[int]:
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
    with _child(["/usr/sbin/Orthanc", str(settings)], port, root):
        yield port


@contextmanager
def storescp(root: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-q"]
    command += ["-pdu", str(MAXIMUM_PDU), "-od", str(root), "-ba", "127.0.0.1"]
    with _child(command, port, root):
        yield port


SERVERS: dict[str, Callable[[Path], object]] = {
    "dicomnode": dicomnode,
    "Orthanc": orthanc,
    "pynetdicom": storescp,
}


@contextmanager
def _child(command: list[str], port: int, root: Path) -> Iterator[None]:
    with (
        (root / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=NO_DELAY) as process,
    ):
        try:
            _await_listener(port, process)
            yield
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


# ---------------------------------------------------------------- the images


def generate(folder: Path, images: int, side: int) -> list[Path]:
    """CR images of `side` x `side` pixels, 12 of 16 bits, noise, each with its own UIDs."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(side)
    study, series = new_uid(), new_uid()
    paths = []
    for number in range(images):
        pixels = noise.integers(0, 4096, (side, side), dtype="<u2").tobytes()
        paths.append(folder / f"{number:04d}.dcm")
        paths[-1].write_bytes(part_ten(study, series, new_uid(), side, pixels))
    return paths


def part_ten(study: str, series: str, instance: str, side: int, pixels: bytes) -> bytes:
    meta = b"".join(
        [
            element(0x0002, 0x0002, "UI", COMPUTED_RADIOGRAPHY),
            element(0x0002, 0x0003, "UI", instance),
            element(0x0002, 0x0010, "UI", EXPLICIT_VR_LITTLE_ENDIAN),
            element(0x0002, 0x0012, "UI", "1.2.3"),
        ]
    )
    data_set = [
        element(0x0008, 0x0016, "UI", COMPUTED_RADIOGRAPHY),
        element(0x0008, 0x0018, "UI", instance),
        element(0x0008, 0x0060, "CS", "CR"),
        element(0x0010, 0x0020, "LO", "BENCHMARK"),
        element(0x0020, 0x000D, "UI", study),
        element(0x0020, 0x000E, "UI", series),
        element(0x0028, 0x0002, "US", 1),
        element(0x0028, 0x0004, "CS", "MONOCHROME2"),
        element(0x0028, 0x0010, "US", side),
        element(0x0028, 0x0011, "US", side),
        element(0x0028, 0x0100, "US", 16),
        element(0x0028, 0x0101, "US", 12),
        element(0x0028, 0x0102, "US", 11),
        element(0x0028, 0x0103, "US", 0),
        struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", len(pixels)) + pixels,
    ]
    length = struct.pack("<HH2sHI", 0x0002, 0, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + length + meta + b"".join(data_set)


def element(group: int, number: int, vr: str, value: str | int) -> bytes:
    encoded = struct.pack("<H", value) if isinstance(value, int) else value.encode()
    encoded += (b"\0" if vr == "UI" else b" ") * (len(encoded) % 2)
    return struct.pack("<HH2sH", group, number, vr.encode(), len(encoded)) + encoded


def new_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


if __name__ == "__main__":
    raise SystemExit(main())
