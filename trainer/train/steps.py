"""The step of gradient descent, over all workers, many steps in one call.

Keras's `fit` does not work under MultiWorkerMirroredStrategy, so the step is our own: each
replica computes the gradient of its rows, one collective sums loss and gradients (flattened
into one vector: a collective costs a round trip, whatever its size), and every worker applies
the same sum. The loop over steps runs inside the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.cluster import Cluster
from trainer.dropout import Draw, drawing

Decay = Literal["thesis", "cosine"]


def unit(tf: Any, inputs: Any) -> Any:
    """Films to 0..1; features as they are."""
    return tf.cast(inputs, tf.float32) / 255.0 if inputs.dtype == tf.uint8 else inputs


class Steps:
    """Makes steps on the trainable variables of `model`, with an optimizer of its own."""

    def __init__(
        self,
        model: Any,
        cluster: Cluster,
        *,
        sample: tuple[tuple[int, ...], Any],
        before: Any | None,
        slow: Sequence[Any],
        slow_rate: float,
        learning_rate: float,
        decay: Decay,
        epochs: int,
        steps: int,
        batch_size: int,
        seed: int,
    ) -> None:
        """`sample`: shape and dtype of one input. `before`: a constant function that the
        inputs go through first. `slow`: variables that move at `slow_rate` times the rate.
        `steps`: of the whole run."""
        import keras  # noqa: PLC0415
        import tensorflow as tf  # noqa: PLC0415

        slow_ids = {id(variable) for variable in slow}
        self._variables = list(model.trainable_variables)
        self._factors = [slow_rate if id(v) in slow_ids else 1.0 for v in self._variables]
        schedules = keras.optimizers.schedules
        with cluster.scope():
            self.optimizer = keras.optimizers.Adam(
                schedules.CosineDecay(learning_rate, steps)
                if decay == "cosine"
                else schedules.InverseTimeDecay(learning_rate, 1, learning_rate / epochs)
            )
            self.optimizer.build(self._variables)
        self._cluster = cluster
        self._before, self._batch_size, self._seed = before, batch_size, seed
        self._model = model
        shape, dtype = sample
        self._call = tf.function(
            self._many,
            input_signature=[
                tf.TensorSpec([None, None, *shape], tf.as_dtype(dtype)),
                tf.TensorSpec([None, None], tf.int64),
                tf.TensorSpec([None, None], tf.float32),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.float32),
            ],
        )

    def run(
        self,
        inputs: NDArray[Any],
        labels: NDArray[np.int64],
        weights: NDArray[np.float32],
        *,
        first_row: int,
        rows: int,
    ) -> float:
        """Some steps: inputs [steps, own rows, ...], labels and weights [steps, own rows];
        `rows` is that of each global batch. The summed loss of all rows of all steps."""
        import tensorflow as tf  # noqa: PLC0415

        with self._cluster.exchange("a step"):
            total = self._call(
                tf.constant(inputs),
                tf.constant(labels),
                tf.constant(weights),
                tf.constant(first_row, tf.int32),
                tf.constant(rows, tf.float32),
            )
            return float(total.numpy())

    def state(self) -> list[NDArray[Any]]:
        """Of the optimizer: the number of steps, and what Adam remembers."""
        return [np.asarray(variable.numpy()) for variable in self.optimizer.variables]

    def restore(self, state: Sequence[NDArray[Any]]) -> None:
        for variable, value in zip(self.optimizer.variables, state, strict=True):
            variable.assign(value)

    # ---------------------------------------------------------------------- in the graph

    def _many(self, inputs: Any, labels: Any, weights: Any, first_row: Any, rows: Any) -> Any:
        import tensorflow as tf  # noqa: PLC0415

        strategy, optimizer = self._cluster.strategy, self.optimizer
        sizes = [int(np.prod(variable.shape)) for variable in self._variables]

        def gradient(*arguments: Any) -> Any:
            return self._gradient(*arguments)

        def update(variable: Any, change: Any, rate: Any) -> None:
            optimizer.update_step(change, variable, rate)

        total = tf.constant(0.0)
        for step in tf.range(tf.shape(inputs)[0]):
            arguments = (inputs[step], labels[step], weights[step], first_row, rows)
            own = strategy.run(gradient, args=arguments)
            whole = strategy.reduce(tf.distribute.ReduceOp.SUM, own, axis=None)
            *changes, loss = tf.split(whole, [*sizes, 1])
            rate = optimizer.learning_rate
            for variable, change, factor in zip(
                self._variables, changes, self._factors, strict=True
            ):
                strategy.extended.update(
                    variable.value,
                    update,
                    args=(tf.reshape(change, variable.shape), rate * factor),
                    group=False,
                )
            optimizer.iterations.assign_add(1)
            total += loss[0] * rows
        return total

    def _gradient(self, inputs: Any, labels: Any, weights: Any, first_row: Any, rows: Any) -> Any:
        """Gradients and loss of one replica's rows, as one flat vector."""
        import keras  # noqa: PLC0415
        import tensorflow as tf  # noqa: PLC0415

        images = unit(tf, inputs)
        given = images if self._before is None else self._before(images, training=False)
        draw = Draw(
            seed=self._seed,
            step=self.optimizer.iterations.value,
            first_row=first_row,
            global_batch=self._batch_size,
        )
        with tf.GradientTape() as tape, drawing(draw):
            probabilities = self._model(given, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
            loss = tf.reduce_sum(losses * weights) / rows
        gradients = tape.gradient(loss, [variable.value for variable in self._variables])
        return tf.concat([tf.reshape(part, [-1]) for part in (*gradients, loss)], axis=0)
