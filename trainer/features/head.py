"""The part of a head that nothing trains: pooling and flattening are constant functions too."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

_BATCH: Final = 32


class Maps(Protocol):
    """float32 [N, ...]: an array, or rows on disk."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


def parted(head: Any) -> tuple[Any | None, Any]:
    """`head` in two keras models: what comes before its first layer with weights or dropout,
    None when nothing does, and the rest, which shares its layers with `head`."""
    import keras  # noqa: PLC0415

    layers = head.layers[1:]  # the first one is the input
    constant = 0
    for layer, following in pairwise(layers):
        varies = layer.weights or isinstance(layer, keras.layers.Dropout)
        if varies or following.input is not layer.output:
            break
        constant += 1
    if not constant:
        return None, head
    tensor = layers[constant - 1].output
    return keras.Model(head.input, tensor), keras.Model(tensor, head.output)


def applied(constant: Any, maps: Maps) -> NDArray[np.float32]:
    """`constant` of all maps, in memory: pooled, a film is some kilobytes."""
    import tensorflow as tf  # noqa: PLC0415

    result = np.empty((len(maps), *constant.output_shape[1:]), dtype=np.float32)
    for start in range(0, len(maps), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(maps)))
        result[rows] = constant(tf.constant(maps[rows]), training=False).numpy()
    return result
