"""Features of a frozen backbone: a constant function, so computed once per film."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def compute(
    backbone: Any,
    tensors: NDArray[np.uint8],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """uint8 [N, 224, 224, 3] to the feature map float32 [N, h, w, d]."""
    import tensorflow as tf  # noqa: PLC0415

    @tf.function(reduce_retracing=True)
    def forward(batch: Any) -> Any:
        return backbone(tf.cast(batch, tf.float32) / 255.0, training=False)

    result = np.empty((len(tensors), *backbone.output_shape[1:]), dtype=np.float32)
    for start in range(0, len(tensors), batch_size):
        stop = min(start + batch_size, len(tensors))
        result[start:stop] = forward(tf.constant(tensors[start:stop])).numpy()
        if progress is not None:
            progress(stop, len(tensors))
    return result
