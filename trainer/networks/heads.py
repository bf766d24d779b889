"""The heads: from a feature map to probabilities.

`thesis`  AveragePooling 4 x 4, Flatten, Dense 64 relu, Dropout 0.5, Dense C. The pooling has
          no padding: of a 7 x 7 map it reads the upper left four rows and columns only. It is
          kept so, because the thesis's published tables stand on it.
`pooled`  GlobalAveragePooling, LayerNormalization without weights, Dropout 0.5, Dense 64
          relu, Dropout 0.5, Dense C. It reads the whole map; the normalisation takes the
          exposure of a film out of its features, and the two dropouts let some hundred films
          train it. How it was chosen: docs/experiments.md.
`small`   GlobalAveragePooling, Dropout 0.2, Dense C: for a backbone that is trained with it.

Every weight is drawn from the seed and its own number, so it does not matter what was drawn
before or how many workers build the head.
"""

from __future__ import annotations

from typing import Any, Final

from trainer.dropout import SharedDropout
from trainer.errors import UsageError

HEADS: Final = ("thesis", "pooled", "small")


def build_head(kind: str, shape: tuple[int, int, int], classes: int, *, seed: int) -> Any:
    """A keras model from float32 [N, *shape] to probabilities float32 [N, classes].

    Raises `UsageError` for an unknown kind.
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
        x = layers.GlobalAveragePooling2D()(features)
        x = layers.LayerNormalization(center=False, scale=False)(x)
        x = dense(1, 64, activation="relu")(SharedDropout(0.5)(x))
        x = SharedDropout(0.5)(x)
    elif kind == "small":
        x = SharedDropout(0.2)(layers.GlobalAveragePooling2D()(features))
    else:
        raise UsageError(f"--head must be one of {', '.join(HEADS)}, got {kind!r}")
    logits = dense(2, classes, name="logits")(x)
    return keras.Model(features, layers.Softmax()(logits), name="head")
