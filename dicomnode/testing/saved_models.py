"""Tiny SavedModels for tests and demonstrations: needs the `model` extra.

A version has the three signatures of a real one (`serving_default`, `uint8`, `explain`),
answers in a fraction of a millisecond, and its answers can be computed by hand:
p(positive) = sigmoid(`slope` * (mean of the image in 0..1 - 0.5)).
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicomnode.modelcard import CARD_PATH, Code, ModelCard, Threshold

CAM_SIZE = 7
EMBEDDING_SIZE = 3


def write_tiny_version(
    base_path: Path, version: int, *, slope: float = 4.0, ballast_bytes: int = 0
) -> Path:
    """Publish a version below `base_path` as the trainer does, and return its folder.

    `ballast_bytes` adds a weight of that size, for tests that watch memory.
    """
    staging = base_path / f".staging-{version}"
    _export(staging, slope=slope, ballast_bytes=ballast_bytes)
    card = tiny_card(base_path.name, version)
    path = staging / CARD_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(card.to_json(), encoding="utf-8")
    target = base_path / str(version)
    staging.rename(target)
    return target


def tiny_card(model_name: str, version: int) -> ModelCard:
    """The card of such a version."""
    return ModelCard(
        model_name=model_name,
        model_version=version,
        network="mean brightness",
        classes=("negative", "positive"),
        positive_class="positive",
        finding=Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
        preprocess_profile="unit-rgb-224/1",
        threshold=Threshold(value=0.5),
        created_at=datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
    )


def _export(path: Path, *, slope: float, ballast_bytes: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf  # noqa: PLC0415 - seconds and hundreds of MB, only where a model is made

    module = tf.Module()
    module.slope = tf.Variable(slope, dtype=tf.float32)
    module.ballast = tf.Variable(tf.random.uniform([max(1, ballast_bytes // 4)]))

    def answers(image: Any) -> dict[str, Any]:
        mean = tf.reduce_mean(image, axis=[1, 2, 3])
        positive = tf.sigmoid(module.slope * (mean - 0.5) + 0.0 * module.ballast[0])
        cam = tf.image.resize(image, [CAM_SIZE, CAM_SIZE], method="area")
        low = tf.reduce_min(image, axis=[1, 2, 3])
        high = tf.reduce_max(image, axis=[1, 2, 3])
        return {
            "probabilities": tf.stack([1.0 - positive, positive], axis=1),
            "cam": tf.reduce_mean(cam, axis=-1),
            "embedding": tf.stack([mean, low, high], axis=1),
        }

    def from_unit(image: Any) -> dict[str, Any]:
        return {"probabilities": answers(image)["probabilities"]}

    def from_bytes(image: Any) -> dict[str, Any]:
        return {"probabilities": answers(tf.cast(image, tf.float32) / 255.0)["probabilities"]}

    def explained(image: Any) -> dict[str, Any]:
        return answers(tf.cast(image, tf.float32) / 255.0)

    def traced(function: Any, dtype: Any) -> Any:
        spec = tf.TensorSpec([None, 224, 224, 3], dtype, name="image")
        return tf.function(function, input_signature=[spec])

    signatures = {
        "serving_default": traced(from_unit, tf.float32),
        "uint8": traced(from_bytes, tf.uint8),
        "explain": traced(explained, tf.uint8),
    }
    module.functions = list(signatures.values())
    tf.saved_model.save(module, str(path), signatures=signatures)
