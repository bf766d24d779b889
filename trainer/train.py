"""The training loop: epochs of gradient steps, the best epoch kept.

Adam and cross-entropy (on two softmax outputs its binary and its categorical form have the
same gradient). The learning rate falls as 1/(1 + step x rate/epochs), as the thesis had it,
or along a cosine to 0 ("cosine"), which lets batch statistics settle in a network that
learns from scratch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Arrays = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Inputs [N, ...] (uint8 films or float32 features) and class indices int64 [N]."""

    inputs: Arrays
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to."""

    number: int
    loss: float
    validation_loss: float
    validation_accuracy: float


def train(
    model: Any,
    training: Part,
    validation: Part,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    decay: Literal["thesis", "cosine"],
    augment: bool,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train the trainable variables of `model`; it ends with those of the best epoch.

    The best epoch has the lowest loss on the validation part.
    """
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    steps = epochs * math.ceil(len(training.labels) / batch_size)
    schedules = keras.optimizers.schedules
    optimizer = keras.optimizers.Adam(
        schedules.CosineDecay(learning_rate, steps)
        if decay == "cosine"
        else schedules.InverseTimeDecay(learning_rate, 1, learning_rate / epochs)
    )
    cross_entropy = keras.losses.SparseCategoricalCrossentropy()

    @tf.function(reduce_retracing=True)
    def step(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, model(_unit(tf, inputs), training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        return loss

    rng = np.random.default_rng(seed)
    history: list[Epoch] = []
    best = model.get_weights()
    for number in range(1, epochs + 1):
        losses = [
            float(step(tf.constant(inputs), tf.constant(labels)))
            for inputs, labels in _batches(training, batch_size, rng, augment=augment)
        ]
        probabilities = predict(model, validation.inputs)
        chosen = probabilities[np.arange(len(validation.labels)), validation.labels]
        epoch = Epoch(
            number=number,
            loss=float(np.mean(losses)),
            validation_loss=float(-np.log(np.maximum(chosen, 1e-7)).mean()),
            validation_accuracy=float((probabilities.argmax(axis=1) == validation.labels).mean()),
        )
        if all(epoch.validation_loss < earlier.validation_loss for earlier in history):
            best = model.get_weights()
        history.append(epoch)
        if on_epoch is not None:
            on_epoch(epoch)
    model.set_weights(best)
    return history


def predict(model: Any, inputs: Arrays, *, batch_size: int = 32) -> NDArray[np.float64]:
    """Probabilities float64 [N, classes]."""
    import tensorflow as tf  # noqa: PLC0415

    parts = [
        model(_unit(tf, tf.constant(inputs[start : start + batch_size])), training=False).numpy()
        for start in range(0, len(inputs), batch_size)
    ]
    return np.concatenate(parts).astype(np.float64)


def _unit(tf: Any, inputs: Any) -> Any:
    """Films to 0..1; features as they are."""
    return tf.cast(inputs, tf.float32) / 255.0 if inputs.dtype == tf.uint8 else inputs


def _batches(
    part: Part, batch_size: int, rng: np.random.Generator, *, augment: bool
) -> Iterator[tuple[Arrays, Labels]]:
    order = rng.permutation(len(part.labels))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs = part.inputs[chosen]
        yield (_varied(inputs, rng) if augment else inputs), part.labels[chosen]


def _varied(films: Arrays, rng: np.random.Generator) -> Arrays:
    """Each film perhaps mirrored, and moved by up to a twentieth of its size."""
    varied = np.empty_like(films)
    reach = films.shape[1] // 20
    for index, film in enumerate(films):
        down, right = rng.integers(-reach, reach + 1, 2)
        padded = np.pad(film, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        moved = padded[
            reach + down : reach + down + film.shape[0],
            reach + right : reach + right + film.shape[1],
        ]
        varied[index] = moved[:, ::-1] if rng.random() < 0.5 else moved
    return varied
