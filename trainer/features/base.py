"""A frozen base at work: films in, features out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Films(Protocol):
    """uint8 [N, height, width, 3]: an array, a memory map, or some rows of one."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


BATCH: Final = 8
"""Films at once. The first block of VGG16 holds 25 MB of float32 per film, in and out."""


def compute(
    base: Any,
    tensors: Films,
    *,
    batch_size: int = BATCH,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """uint8 [N, height, width, 3] to the base's output float32 [N, ...]."""
    result = np.empty((len(tensors), *base.output_shape[1:]), dtype=np.float32)
    forward = forward_of(base, dtype)
    for rows, features in stream(forward, tensors, np.arange(len(tensors)), batch_size=batch_size):
        result[rows] = features
        if progress is not None:
            progress(int(rows[-1]) + 1, len(tensors))
    return result


def forward_of(base: Any, dtype: str) -> Forward:
    """uint8 films [N, height, width, 3] to float32 features, as one graph; N as first called."""
    import tensorflow as tf  # noqa: PLC0415

    computing = in_dtype(base, dtype)

    @tf.function
    def forward(batch: Any) -> Any:
        features = computing(tf.cast(batch, tf.float32) / 255.0, training=False)
        return tf.cast(features, tf.float32)

    def call(films: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(forward(tf.constant(films)).numpy())

    return call


def stream(
    forward: Forward, tensors: Films, films: NDArray[np.intp], *, batch_size: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """The features of `films` (rows of `tensors`), a batch at a time, with their rows.

    A short last batch is filled up, so that the graph is traced and planned once.
    """
    for start in range(0, len(films), batch_size):
        rows = films[start : start + batch_size]
        yield rows, forward(tensors[np.resize(rows, batch_size)])[: len(rows)]


def in_dtype(base: Any, dtype: str) -> Any:
    """`base` computing in `dtype`; its weights stay float32.

    bfloat16 keeps float32's range with 8 bits of mantissa; processors that have it (AMX,
    AVX512_BF16, Armv8.6) take about half the time. Others are slower with it than without.
    """
    if dtype == "float32":
        return base
    import keras  # noqa: PLC0415

    policy = f"mixed_{dtype}"

    def cast(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=cast)
        return layer.__class__.from_config({**layer.get_config(), "dtype": policy})

    copy = cast(base)
    copy.set_weights(base.get_weights())
    copy.trainable = False
    return copy
