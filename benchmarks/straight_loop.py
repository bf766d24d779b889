"""The thesis's recipe: every film through VGG16 in every epoch, against features once.

Measures, in one run and on the same films, one epoch of the straight loop (Keras's `fit` on the
whole network, frozen backbone, the thesis's batch), which 25 epochs need 25 times, and what the
trainer does instead: features once, then 25 epochs of the head. The straight loop is measured
before and after it, each in a process of its own, and the mean counts. Then `trainer fit --recipe
thesis` as its own process, for its peak memory on these films and on many generated ones::

    python -m benchmarks.straight_loop [--data DIR] [--batch-size 2] [--many 2000] [--no-peak]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.testing.phantoms import write_training_folder
from trainer import data, features, networks, train

EPOCHS = 25
Seconds = tuple[float, float]
"""On the wall, and of processor time."""
SHARED = Path(os.environ.get("DICOMNODE_TEST_DATA", "../shared/data")) / "cxr"


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="[default: the shared films, else phantoms]")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--many", type=int, default=2000, help="generated films; 0 leaves them out")
    parser.add_argument("--no-peak", action="store_true", help="leave the memory out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        films = options.data or (SHARED if SHARED.is_dir() else _phantoms(folder / "few", 368))
        _compare(films, folder, options.batch_size)
        if options.no_peak:
            return
        _peak(films, folder / "a", options.batch_size)
        if options.many:
            many = _phantoms(folder / "many", options.many)
            _peak(many, folder / "b", options.batch_size)


def _compare(location: Path, folder: Path, batch_size: int) -> None:
    before = _alone(_straight, location, folder, batch_size)
    once, epochs = _alone(_ours, location, folder, batch_size)
    after = _alone(_straight, location, folder, batch_size)
    print(f"batch {batch_size}, {len(os.sched_getaffinity(0))} cores")
    for number, kind in enumerate(("on the wall", "of processor time")):
        epoch = (before[number] + after[number]) / 2
        print(
            f"{kind}: straight loop {epoch:.1f} s an epoch, {epoch * EPOCHS:.0f} s for {EPOCHS}; "
            f"features once {once[number]:.1f} s, {EPOCHS} epochs {epochs[number]:.1f} s: "
            f"{epoch * EPOCHS / (once[number] + epochs[number]):.1f} times less",
            flush=True,
        )


def _alone(leg: Callable[..., Any], *arguments: Any) -> Any:
    """In a process of its own: what Keras's `fit` leaves behind slows what comes after it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(leg, *arguments).result()


def _prepared(
    location: Path, folder: Path
) -> tuple[Any, NDArray[np.int64], data.Split, networks.Network]:
    cases = data.read_cases(location)
    parts = data.split(cases, test_fraction=0.2, validation_fraction=0.0, seed=42, by="image")
    films = data.load(cases, networks.profile_of("vgg16"), scratch=folder)
    labels = np.array([case.label == "positive" for case in films.cases], dtype=np.int64)
    network = networks.build("vgg16", weights="random", classes=2, seed=42, head="thesis")
    return films, labels, parts, network


def _ours(location: Path, folder: Path, batch_size: int) -> tuple[Seconds, Seconds]:
    """Of the features, and of all epochs."""
    films, labels, parts, network = _prepared(location, folder)
    started = Moment()
    rows = features.cached(
        network.base,
        films.tensors,
        films.digests,
        folder=folder / "features",
        space=features.Space(
            network="vgg16",
            weights_sha256=network.weights_sha256,
            profile=network.profile,
            dtype="float32",
            shape=network.base.output_shape[1:],
        ),
    )
    constant, head = features.parted(network.head)
    pooled = features.applied(constant, rows)
    computed = Moment()

    def part(indices: Any) -> train.Part:
        return train.Part(inputs=train.Selected(pooled, indices), labels=labels[indices])

    train.train(
        head,
        part(parts.training),
        part(parts.test),
        epochs=EPOCHS,
        batch_size=batch_size,
        learning_rate=1e-3,
        seed=42,
        decay="thesis",
        keep="last",
    )
    return computed - started, Moment() - computed


def _straight(location: Path, folder: Path, batch_size: int) -> Seconds:
    """Of one epoch with validation, tracing left out."""
    import keras
    import tensorflow as tf

    films, labels, parts, network = _prepared(location, folder)

    def batches(indices: Any) -> Any:
        def pairs() -> Any:
            for index in indices:
                yield films.tensors[index].astype(np.float32) / np.float32(255), labels[index]

        shape = tf.TensorSpec((224, 224, 3), tf.float32), tf.TensorSpec((), tf.int64)
        return tf.data.Dataset.from_generator(pairs, output_signature=shape).batch(batch_size)

    model = keras.Sequential([network.base, network.head])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(batches(parts.training[:4]), validation_data=batches(parts.test[:4]), verbose=0)
    started = Moment()
    model.fit(batches(parts.training), validation_data=batches(parts.test), verbose=0)
    return Moment() - started


class Moment:
    """On the wall and on the processor; on a machine that others use the second tells more."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def __sub__(self, earlier: Moment) -> Seconds:
        return self.wall - earlier.wall, self.processor - earlier.processor


def _peak(films: Path, folder: Path, batch_size: int) -> None:
    command = [sys.executable, "-m", "trainer", "fit", "--recipe", "thesis", "--weights", "random"]
    command += ["--data", str(films), "--out", str(folder / "m"), "--progress", "json"]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--batch-size", str(batch_size)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"trainer fit ended with {process.returncode}")
    counted = next(event for event in events if event["event"] == "films")
    seconds = time.perf_counter() - started
    print(
        f"trainer fit --recipe thesis on {counted['training'] + counted['test']} films: "
        f"{seconds:.0f} s, peak {usage.ru_maxrss / 1e6:.2f} GB",
        flush=True,
    )


def _phantoms(folder: Path, count: int) -> Path:
    write_training_folder(folder, count // 2, 5, 256)
    return folder


if __name__ == "__main__":
    main()
