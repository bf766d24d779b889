"""Dropout whose mask does not depend on how many workers train.

An ordinary dropout layer draws a mask per replica, so two workers train another network than
one does. `SharedDropout` draws the mask of the whole global batch from the seed and the step
(a stateless generator: Salmon et al. 2011, Philox), and each replica takes the rows that it
was given. The same seed then gives the same training on any number of workers, which is what
makes a run on two workers comparable with one on one, and a resumed run equal to an
undisturbed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Which rows of which global batch a replica is looking at, while a step is traced."""

    seed: int
    step: Any
    """int32 scalar tensor: the number of the optimizer step."""
    first_row: Any
    """int32 scalar tensor: where this replica's rows begin in the global batch."""
    global_batch: int
    layer: Iterator[int] = field(default_factory=count)
    """Numbers the dropout layers of a network in the order in which they are called."""


_DRAW: ContextVar[Draw | None] = ContextVar("draw", default=None)


@contextmanager
def drawing(draw: Draw) -> Iterator[None]:
    """Within it every `SharedDropout` that is called in training takes its mask from `draw`."""
    token = _DRAW.set(draw)
    try:
        yield
    finally:
        _DRAW.reset(token)


def SharedDropout(rate: float, **options: Any) -> Any:  # noqa: N802 - reads as the layer it makes
    """A keras layer: as `keras.layers.Dropout`, with the mask of the whole global batch.

    Outside `drawing` (a model called by hand with training=True) it is an ordinary dropout.
    """
    return layer_class()(rate, **options)


@cache
def layer_class() -> Any:
    """The class of `SharedDropout`; made here because keras takes seconds to import."""
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    @keras.saving.register_keras_serializable(package="dicomnode", name="SharedDropout")
    class SharedDropout(keras.layers.Dropout):
        """See the function of this name."""

        def call(self, inputs: Any, training: bool = False) -> Any:
            draw = _DRAW.get()
            if draw is None or not training or not self.rate:
                return super().call(inputs, training=training)
            rows = tf.shape(inputs)[0]
            shape = tf.concat(([draw.global_batch], tf.shape(inputs)[1:]), axis=0)
            salt = (draw.seed * 1009 + next(draw.layer)) % 2**31
            seed = tf.stack((tf.cast(draw.step, tf.int32), tf.constant(salt, tf.int32)))
            kept = tf.random.stateless_uniform(shape, seed) >= self.rate
            # rows behind the end of the batch are padding of weight 0: any mask will do
            padded = tf.pad(
                kept[draw.first_row :], [(0, rows), *[(0, 0)] * (len(inputs.shape) - 1)]
            )
            mask = tf.ensure_shape(padded[:rows], inputs.shape)
            return tf.where(mask, inputs / (1.0 - self.rate), 0.0)

    return SharedDropout
