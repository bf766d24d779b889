"""Epochs of steps, with validation and a checkpoint after each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.cluster import Cluster, ClusterSpec
from trainer.errors import TrainerError, UsageError
from trainer.train import order
from trainer.train.checkpoint import Checkpoint, Epoch, State
from trainer.train.steps import Decay, Steps, unit

Labels = NDArray[np.int64]

_BYTES_PER_CALL: Final = 32_000_000
"""Of inputs given to one call of the graph: bounds the memory, whatever the set's size."""


class Inputs(Protocol):
    """[N, ...] uint8 films or float32 features: an array, a memory map, or rows on disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Selected:
    """Some rows of inputs, read when they are indexed."""

    inputs: Inputs
    rows: NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.inputs.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.inputs.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Any:
        return self.inputs[self.rows[rows]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Inputs [N, ...] and class indices int64 [N]."""

    inputs: Inputs
    labels: Labels


def train(
    model: Any,
    training: Part,
    validation: Part,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    decay: Decay,
    augment: bool = False,
    before: Any | None = None,
    slow: Sequence[Any] = (),
    slow_rate: float = 1.0,
    keep: Literal["best", "last"] = "best",
    cluster: Cluster | None = None,
    checkpoint: Checkpoint | None = None,
    on_resume: Callable[[int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train the trainable variables of `model`; it ends with those of the best epoch.

    The best epoch has the lowest loss on the validation part; with `keep` "last" the last one
    counts. `before` is a constant keras model through which training inputs go first (the
    validation inputs are what comes out of it). `batch_size` is that of all workers together.
    With a `checkpoint`, the run continues from it, and writes it after each epoch (the chief
    does). Raises `PeerLost`, `TrainerError` when the loss is not a number any more or the
    workers disagree, and OSError when a checkpoint cannot be written.
    """
    cluster = cluster or _alone()
    _require_fixed_statistics(model, cluster)
    steps = Steps(
        model,
        cluster,
        sample=(training.inputs.shape[1:], training.inputs.dtype),
        before=before,
        slow=slow,
        slow_rate=slow_rate,
        learning_rate=learning_rate,
        decay=decay,
        epochs=epochs,
        steps=epochs * math.ceil(len(training.labels) / batch_size),
        batch_size=batch_size,
        seed=seed,
    )
    history: list[Epoch] = []
    best = model.get_weights()
    resumed = None if checkpoint is None else checkpoint.load()
    if resumed is not None:
        history, best = list(resumed.history), list(resumed.best)
        model.set_weights(resumed.weights)
        steps.restore(resumed.optimizer)
    cluster.same(_digest(model, len(history)), "weights at the start")
    if resumed is not None and on_resume is not None:
        on_resume(len(history))

    for number in range(len(history) + 1, epochs + 1):
        loss = _epoch(steps, training, cluster, number, batch_size, seed, augment=augment)
        if not math.isfinite(loss):
            raise TrainerError(
                f"the loss is {loss} in epoch {number}; "
                f"try a --learning-rate below {learning_rate:g}"
            )
        probabilities = predict(model, validation.inputs, cluster=cluster)
        epoch = _judged(number, loss, probabilities, validation.labels)
        cluster.same(_digest(model, number), f"weights after epoch {number}")
        if keep == "last" or all(
            epoch.validation_loss < earlier.validation_loss for earlier in history
        ):
            best = model.get_weights()
        history.append(epoch)
        if checkpoint is not None and cluster.is_chief:
            checkpoint.save(
                State(
                    weights=model.get_weights(),
                    best=best,
                    optimizer=steps.state(),
                    history=tuple(history),
                )
            )
        if on_epoch is not None:
            on_epoch(epoch)
    model.set_weights(best)
    return history


def predict(
    model: Any, inputs: Inputs, *, cluster: Cluster | None = None, batch_size: int = 32
) -> NDArray[np.float64]:
    """Probabilities float64 [N, classes]; each worker asks about its share, all get all."""
    import tensorflow as tf  # noqa: PLC0415

    cluster = cluster or _alone()
    start, stop = (len(inputs) * n // cluster.workers for n in (cluster.index, cluster.index + 1))
    own = np.zeros((stop - start, model.output_shape[-1]), dtype=np.float64)
    for first in range(start, stop, batch_size):
        rows = np.arange(first, min(first + batch_size, stop))
        batch = tf.constant(inputs[rows])
        own[rows - start] = model(unit(tf, batch), training=False).numpy()
    return cluster.gather(own, start, len(inputs))


def _epoch(
    steps: Steps,
    training: Part,
    cluster: Cluster,
    number: int,
    batch_size: int,
    seed: int,
    *,
    augment: bool,
) -> float:
    """One pass over the training part; the mean loss of its films."""
    films = len(training.labels)
    variation = order.Variation.drawn(seed, number, films) if augment else None
    sample = int(np.prod(training.inputs.shape[1:])) * training.inputs.dtype.itemsize
    total = 0.0
    for share in order.shares(
        order.epoch_order(seed, number, films),
        batch_size=batch_size,
        workers=cluster.workers,
        index=cluster.index,
        steps_per_call=max(1, _BYTES_PER_CALL // (sample * batch_size)),
    ):
        chosen = share.films.ravel()
        inputs = training.inputs[chosen]
        if variation is not None:
            inputs = variation.apply(inputs, chosen)
        total += steps.run(
            inputs.reshape(*share.films.shape, *inputs.shape[1:]),
            training.labels[share.films],
            share.weights,
            first_row=share.first_row,
            rows=share.rows,
        )
    return total / films


def _judged(number: int, loss: float, probabilities: NDArray[np.float64], labels: Labels) -> Epoch:
    chosen = probabilities[np.arange(len(labels)), labels]
    return Epoch(
        number=number,
        loss=loss,
        validation_loss=float(-np.log(np.maximum(chosen, 1e-7)).mean()),
        validation_accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
    )


def _digest(model: Any, epoch: int) -> bytes:
    digest = hashlib.sha256(str(epoch).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.digest()


def _alone() -> Cluster:
    import tensorflow as tf  # noqa: PLC0415

    return Cluster(spec=ClusterSpec(), strategy=tf.distribute.get_strategy(), patience=0.0)


def _require_fixed_statistics(model: Any, cluster: Cluster) -> None:
    """Batch statistics of a worker's rows are not those of the batch: the workers would come
    to other networks than one does."""
    import keras  # noqa: PLC0415

    learning = [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if learning and cluster.workers > 1:
        raise UsageError(
            f"{learning[0]} learns batch statistics, which several workers would not share; "
            "train this network on one worker"
        )
