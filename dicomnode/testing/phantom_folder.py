"""Phantoms as a training folder: one folder per class and a manifest."""

from __future__ import annotations

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from dicomnode.testing.phantom_dicom import part10_bytes, phantom_dataset
from dicomnode.testing.phantom_film import chest_phantom

MANIFEST_COLUMNS: Final = (
    "filename", "label", "finding", "view", "patient_id", "sex", "age", "dataset",
    "source_repo", "source_commit", "source_path", "source_blob", "licence",
    "orig_w", "orig_h", "note",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Plate:
    path: Path
    seed: int
    positive: bool
    size: int


def write_training_folder(
    out: Path,
    count_per_class: int = 120,
    seed: int = 1,
    size: int = 384,
    *,
    format: Literal["png", "dicom"] = "png",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `out`/positive, `out`/negative and `out`/manifest.csv; returns the manifest.

    Every image is another patient, so `seed` stands for a block of seeds and folders of
    different `seed` share nobody. `size` is rows and columns. `progress` is called with
    the number of images done and due, from the calling thread.
    """
    suffix = {"png": "png", "dicom": "dcm"}[format]
    plates = [
        _Plate(
            path=out / label / f"phantom_{number:05d}.{suffix}",
            seed=seed * 1_000_000 + 2 * number + positive,
            positive=positive,
            size=size,
        )
        for label, positive in (("positive", True), ("negative", False))
        for number in range(count_per_class)
    ]
    for label in ("positive", "negative"):
        (out / label).mkdir(parents=True, exist_ok=True)
    # numpy and Pillow let go of the interpreter lock while they compute
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="phantom") as pool:
        for done, _ in enumerate(pool.map(_write_plate, plates), start=1):
            if progress is not None:
                progress(done, len(plates))
    manifest = out / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, MANIFEST_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(_row(plate) for plate in plates)
    return manifest


def _write_plate(plate: _Plate) -> None:
    if plate.path.suffix == ".dcm":
        ds = phantom_dataset(plate.seed, plate.positive, rows=plate.size, columns=plate.size)
        plate.path.write_bytes(part10_bytes(ds))
        return
    film = chest_phantom(plate.seed, plate.positive, plate.size, plate.size)
    grey = np.round(film * 255).astype(np.uint8)
    Image.fromarray(grey).save(plate.path, format="PNG", compress_level=1)


def _row(plate: _Plate) -> dict[str, str]:
    return {
        "filename": f"{plate.path.parent.name}/{plate.path.name}",
        "label": plate.path.parent.name,
        "finding": "Simulated opacities" if plate.positive else "No finding",
        "view": "PA",
        "patient_id": f"PHANTOM-{plate.seed:06d}",
        "dataset": "phantoms",
        "licence": "Apache-2.0",
        "orig_w": str(plate.size),
        "orig_h": str(plate.size),
        "note": "computer-generated phantom",
    }
