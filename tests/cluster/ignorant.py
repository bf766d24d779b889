"""`python -m tests.cluster.ignorant BASE` publishes a first version that knows nothing.

It has the trainer's signatures and answers 0.5 to everything, so every candidate is at least as
good. A process of its own, because tensorflow would stay in that of the tests.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dicomnode.testing.saved_models import tiny_card
from trainer import networks, registry
from trainer.export import export


def publish(base: Path) -> None:
    network = networks.build("mobilenet", weights="random", classes=2, seed=1)
    logits = network.head.get_layer("logits")
    logits.set_weights([np.zeros_like(each) for each in logits.get_weights()])
    with registry.staging(base) as folder:
        export(network, folder, tiny_card("covid19", 1), np.zeros((1, 224, 224, 3), np.uint8))
        registry.publish(folder, base)


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
