"""From nothing to a published model, and what it is worth on phantoms it has not seen.

Generates a training folder, runs `trainer fit --network tiny` as its own process, loads the
version with tensorflow and asks it about fresh 1024 x 1024 DICOM phantoms, MONOCHROME1 and
MONOCHROME2, through the node's imaging. Run::

    python -m benchmarks.trainer [--films 120] [--fresh 100]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dicomnode.imaging import preprocess, reading
from dicomnode.testing.phantoms import (
    chest_phantom,
    draw_phantom,
    part10_bytes,
    phantom_dataset,
    write_training_folder,
)
from trainer import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=120, help="per class")
    parser.add_argument("--fresh", type=int, default=100)
    parser.add_argument("--size", type=int, default=384)
    options = parser.parse_args()
    for size in (512, 1024):
        started = time.perf_counter()
        for seed in range(10):
            chest_phantom(seed, True, size, size)
        milliseconds = (time.perf_counter() - started) * 100
        print(f"phantom {size} x {size}: {milliseconds:.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        base = _published(Path(folder), options.films, options.size)
        _judge(base, options.fresh)


def _published(folder: Path, films: int, size: int) -> Path:
    started = time.perf_counter()
    write_training_folder(folder / "data", films, 20, size)
    generated = time.perf_counter()
    base = folder / "covid19"
    command = [sys.executable, "-m", "trainer", "fit", "--progress", "json"]
    command += ["--data", str(folder / "data"), "--out", str(base), "--network", "tiny"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    ended = time.perf_counter()
    told = [json.loads(line) for line in done.stdout.splitlines()]
    figures = next(event for event in told if event["event"] == "evaluated")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"generation of 2 x {films} films of {size} px: {generated - started:.1f} s")
    print(f"trainer fit, tensorflow's import included: {ended - generated:.1f} s, {peak:.0f} MB")
    print(f"together: {ended - started:.1f} s")
    print("held-out patients:", {k: v for k, v in figures.items() if k != "event"})
    return base


def _judge(base: Path, count: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    card = registry.read_card(base, 1)
    explain = tf.saved_model.load(str(base / "1")).signatures["explain"]
    profile = preprocess.profile_named(card.preprocess_profile)
    right, gains, dark = 0, [], []
    for number in range(count):
        positive, photometric = number % 2 == 0, f"MONOCHROME{1 + number // 2 % 2}"
        ds = phantom_dataset(9000 + number, positive, photometric_interpretation=photometric)
        ds = reading.read_instance(io.BytesIO(part10_bytes(ds)))
        film = preprocess.prepare(ds, profile, maximum_pixels=10**7)
        answer = explain(images=tf.constant(film.tensor[np.newaxis]))
        probability = float(answer["probabilities"].numpy()[0, card.positive_index])
        cam = answer["cam"].numpy()[0]
        right += (probability >= card.threshold.value) == positive
        if positive:
            truth = Image.fromarray(draw_phantom(9000 + number, True, 512, 512).opacities)
            inside = np.array(truth.resize(cam.shape[::-1], Image.Resampling.BOX)) > 0.15
            gains.append(cam[inside].mean() / cam.mean())
        else:
            dark.append(cam.max())
    print(f"fresh DICOM phantoms of 1024 px through the node's imaging: {right} of {count} right")
    print(f"map inside the opacities over its mean on the film: {np.mean(gains):.1f} times")
    print(f"brightest point of the map on negative films, mean: {np.mean(dark):.3f}")


if __name__ == "__main__":
    main()
