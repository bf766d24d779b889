"""The heads: from a feature map to probabilities.

`thesis`  AveragePooling 4 x 4, Flatten, Dense 64 relu, Dropout 0.5, Dense C. The pooling has
          no padding: of a 7 x 7 map it reads the upper left four rows and columns only. It is
          kept so, because the thesis's published tables stand on it.
`pooled`  GlobalAveragePooling, Dropout, Dense C: reads the whole map, and has so few weights
          that some hundred films train it.

Every weight is drawn from the seed and its own number, so it does not matter what was drawn
before or how many workers build the head.
"""

from __future__ import annotations

from typing import Any

from trainer.dropout import SharedDropout
from trainer.errors import UsageError


def build_head(
    kind: str, shape: tuple[int, int, int], classes: int, *, seed: int, dropout: float
) -> Any:
    """A keras model from float32 [N, *shape] to probabilities float32 [N, classes].

    `dropout` is that of `pooled`. Raises `UsageError` for an unknown kind.
    """
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    layers = keras.layers
    features = keras.Input(shape, name="features")

    def dense(number: int, units: int, **options: Any) -> Any:
        initial = keras.initializers.GlorotUniform(seed=seed * 31 + number)
        return layers.Dense(units, kernel_initializer=initial, **options)

    if kind == "thesis":
        x = layers.Flatten()(layers.AveragePooling2D(4)(features))
        x = SharedDropout(0.5)(dense(1, 64, activation="relu")(x))
    elif kind == "pooled":
        x = SharedDropout(dropout)(layers.GlobalAveragePooling2D()(features))
    else:
        raise UsageError(f"--head must be thesis or pooled, got {kind!r}")
    logits = dense(2, classes, name="logits")(x)
    return keras.Model(features, layers.Softmax()(logits), name="head")
