"""A network in its three parts, and the models that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Network:
    """Three keras models in a row: head(tail(base(images)))."""

    name: str
    base: Any | None
    """float32 [N, h, w, 3] in 0..1 to the float32 tensor at the cut: a constant function, its
    batch normalisation in inference mode. None when everything is trained."""
    tail: Any | None
    """The cut to the feature map; trained at `tail_rate` times the rate of the head. None when
    nothing of the backbone is trained."""
    head: Any
    """The feature map to probabilities; its layer `logits` gives what the softmax takes."""
    tail_rate: float
    profile: str
    """The preprocess profile whose tensors it takes."""
    weights_sha256: str
    """Of what the base computes: its layers, scaling and weights. Empty without a base."""
    tail_layers: int = 0
    """How many layers of the backbone the tail holds, at least as many as were asked for."""

    @cached_property
    def backbone(self) -> Any:
        """Base and tail as one keras model: images to the feature map."""
        return _joined([part for part in (self.base, self.tail) if part is not None], "backbone")

    @cached_property
    def trainable(self) -> Any:
        """Tail and head as one keras model: the tensor at the cut to probabilities."""
        return _joined([part for part in (self.tail, self.head) if part is not None], "trainable")

    @property
    def frozen(self) -> bool:
        """Nothing of the backbone is trained: only the head."""
        return self.tail is None


def _joined(parts: list[Any], name: str) -> Any:
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    if len(parts) == 1:
        return parts[0]
    first = parts[0].input
    start = keras.Input(first.shape[1:], name="input")
    tensor = start
    for part in parts:
        tensor = part(tensor)
    return keras.Model(start, tensor, name=name)
