"""Where a backbone can be cut in two, and the two parts.

A cut needs one tensor that carries everything: within a residual or a dense block a second
one goes around it. In a graph whose layers all lie on a way from input to output, a tensor is
on every way exactly when, in any topological order of the layers, it is the only one that is
still needed once its layer has run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A backbone in two parts that share its layers; `base` is None when all are in `tail`."""

    base: Any | None
    tail: Any
    layers: int
    """In the tail."""
    layer: str
    """Whose output is the tensor at the cut; empty when there is no base."""


def cut_off(model: Any, wanted: int, *, name: str) -> Cut:
    """Cut the last `wanted` layers off a functional keras model, or as few more as it takes.

    Raises `UsageError` when the model has fewer layers or those have nothing to train.
    """
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    operations = model.operations
    total = len(operations) - 1  # the first one is the input
    if wanted > total:
        raise UsageError(
            f"--fine-tune {wanted}: {name} has {total} layers; --fine-tune {total} trains all"
        )
    place = max(place for place in cuts(operations) if total - place >= wanted)
    if not any(_trains(operation) for operation in operations[place + 1 :]):
        least = next(n for n, op in enumerate(reversed(operations), start=1) if _trains(op))
        raise UsageError(
            f"--fine-tune {wanted}: the last {total - place} layers of {name} have no weights "
            f"that fine-tuning changes; the smallest number that does is {least}"
        )
    if place == 0:
        return Cut(base=None, tail=model, layers=total, layer="")
    tensor = operations[place].output
    return Cut(
        base=keras.Model(model.input, tensor, name="base"),
        tail=keras.Model(tensor, model.output, name="tail"),
        layers=total - place,
        layer=operations[place].name,
    )


def cuts(operations: list[Any]) -> list[int]:
    """The places in a topological order of operations after which one tensor carries all."""
    last_use = {
        id(tensor): place
        for place, operation in enumerate(operations)
        for tensor in _inputs(operation)
    }
    places: list[int] = []
    alive: set[int] = set()
    for place, operation in enumerate(operations):
        alive.add(id(operation.output))
        alive = {tensor for tensor in alive if last_use.get(tensor, len(operations)) > place}
        if alive == {id(operation.output)}:
            places.append(place)
    return places


def freeze_statistics(model: Any) -> None:
    """Batch normalisation to inference mode: a few films have no statistics of their own."""
    for layer in model.layers:
        if _is_statistics(layer):
            layer.trainable = False


def _inputs(operation: Any) -> list[Any]:
    given = operation.input
    if operation.output is given:  # the input layer
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _trains(operation: Any) -> bool:
    return bool(getattr(operation, "trainable_weights", ())) and not _is_statistics(operation)


def _is_statistics(layer: Any) -> bool:
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    return isinstance(layer, keras.layers.BatchNormalization)
