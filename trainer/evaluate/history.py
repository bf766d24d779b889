"""The epochs of a training, whichever record they come in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


def epochs_of(history: Sequence[Any]) -> list[dict[str, float]]:
    """Dataclasses (`train.Epoch`) or mappings to one mapping of numbers per epoch.

    What is no number is left out.
    """
    told = []
    for epoch in history:
        facts = epoch if isinstance(epoch, Mapping) else dataclasses.asdict(epoch)
        told.append(
            {
                str(name): float(value)
                for name, value in facts.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
        )
    return told
