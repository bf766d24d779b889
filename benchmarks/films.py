"""CR images to send: valid, uncompressed, full of noise, each with its own UIDs."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import numpy as np

COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


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
