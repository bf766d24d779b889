"""`tiny`: five convolutions that learn from scratch in seconds; for phantoms and demos."""

from __future__ import annotations

from typing import Any, Final

PROFILE: Final = "unit-rgb-224/1"
HEAD: Final = "small"


def backbone() -> Any:
    """A keras model from float32 [N, 224, 224, 3] to a feature map float32 [N, 14, 14, 64]."""
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    layers, ops = keras.layers, keras.ops
    images = keras.Input((224, 224, 3), name="images")
    grey = layers.AveragePooling2D(2)(ops.mean(images, axis=-1, keepdims=True))
    # each film by its own mean and spread: the exposure says nothing about the finding
    mean = ops.mean(grey, axis=(1, 2, 3), keepdims=True)
    spread = ops.std(grey, axis=(1, 2, 3), keepdims=True)
    x = (grey - mean) / (spread + 0.02)
    for filters, strides in ((16, 2), (32, 2), (48, 2), (64, 1)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    return keras.Model(images, x, name="tiny")
