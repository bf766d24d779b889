"""Says which NVIDIA GPU this container gets.

Asks the driver's own library, libcuda, so neither tensorflow nor CUDA is needed; it works on a
PC, on a Jetson Nano (JetPack 4) and on an Orin (JetPack 6) alike.

    python device_query.py [--json]

Exit codes: 0 at least one GPU, 1 there is a driver but it does not answer, 2 wrong usage, 3 no
GPU here.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOUND, FAILED, NONE_HERE = 0, 1, 3

LIBRARIES = (
    "libcuda.so.1",
    # where JetPack keeps it; the loader of a Debian image does not look there
    "/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1",
)
BOARD = Path("/proc/device-tree/model")
TEGRA_RELEASE = Path("/etc/nv_tegra_release")

# enum CUdevice_attribute and CUresult of cuda.h
_MULTIPROCESSORS = 16
_INTEGRATED = 18
_MAJOR = 75
_MINOR = 76
_NO_DEVICE = 100


class DriverError(Exception):
    """The driver answered with an error."""


@dataclass(frozen=True)
class Device:
    """What the driver says of one GPU."""

    name: str
    compute_capability: str
    multiprocessors: int
    memory_bytes: int
    integrated: bool


@dataclass(frozen=True)
class Report:
    """What was found."""

    board: str
    release: str
    cuda: str
    devices: tuple[Device, ...]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Which NVIDIA GPU does this container get?")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    told = parser.parse_args(arguments)
    driver = load()
    board, release = _text(BOARD), _text(TEGRA_RELEASE)
    if driver is None:
        report = Report(board=board, release=release, cuda="", devices=())
    else:
        try:
            cuda, devices = query(driver)
        except DriverError as error:
            sys.stderr.write(f"the NVIDIA driver is here but {error}\n")
            return FAILED
        report = Report(board=board, release=release, cuda=cuda, devices=devices)
    sys.stdout.write(json.dumps(asdict(report)) + "\n" if told.json else _lines(report))
    if report.devices:
        return FOUND
    sys.stderr.write(_why_none(has_driver=driver is not None))
    return NONE_HERE


def load(open_library: Callable[[str], Any] = ctypes.CDLL) -> Any | None:
    """The driver's library, None where there is none."""
    for name in LIBRARIES:
        try:
            return open_library(name)
        except OSError:
            continue
    return None


def query(driver: Any) -> tuple[str, tuple[Device, ...]]:
    """The CUDA version that the driver speaks, and its devices; raises `DriverError`."""
    version = ctypes.c_int()
    _check("cuDriverGetVersion", driver.cuDriverGetVersion(ctypes.byref(version)))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    started = driver.cuInit(0)
    if started == _NO_DEVICE:
        return cuda, ()
    _check("cuInit", started)
    count = ctypes.c_int()
    _check("cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
    return cuda, tuple(_device(driver, number) for number in range(count.value))


def _device(driver: Any, number: int) -> Device:
    handle, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _check("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(handle), number))
    _check("cuDeviceGetName", driver.cuDeviceGetName(name, len(name), handle))
    _check("cuDeviceTotalMem", driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle))

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        answer = driver.cuDeviceGetAttribute(ctypes.byref(value), which, handle)
        _check("cuDeviceGetAttribute", answer)
        return value.value

    return Device(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        multiprocessors=attribute(_MULTIPROCESSORS),
        memory_bytes=memory.value,
        integrated=attribute(_INTEGRATED) == 1,
    )


def _check(call: str, result: int) -> None:
    if result != 0:
        raise DriverError(
            f"{call} answered {result}, expected 0; does the driver fit the machine's kernel?"
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n").partition("\n")[0]
    except OSError:
        return ""  # only Jetsons have these files


def _lines(report: Report) -> str:
    facts = [("board", report.board), ("release", report.release), ("CUDA driver", report.cuda)]
    lines = [f"{what}: {fact}" for what, fact in facts if fact]
    lines += [
        f"GPU {number}: {each.name}, compute capability {each.compute_capability}, "
        f"{each.multiprocessors} multiprocessors, {each.memory_bytes / 2**30:.1f} GiB"
        f"{' shared with the processor' if each.integrated else ''}"
        for number, each in enumerate(report.devices)
    ]
    return "".join(f"{line}\n" for line in lines)


def _why_none(*, has_driver: bool) -> str:
    if has_driver:
        return "no GPU: the driver is here and sees none; was this container given one?\n"
    return (
        "no GPU: there is no libcuda.so.1 in this container. On a machine with an NVIDIA GPU run "
        "it with the NVIDIA runtime (docker --runtime nvidia, runtimeClassName: nvidia)\n"
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
