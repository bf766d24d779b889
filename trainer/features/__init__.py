"""Features of a frozen base: a constant function, so computed once per film and kept.

`compute` gives them in memory; `cached` streams them film by film into files that later runs
and other workers find again by content (`cache`). Nothing here trains.
"""

from __future__ import annotations

from trainer.features.base import compute, in_dtype
from trainer.features.cache import Rows, Space
from trainer.features.head import applied, parted
from trainer.features.run import Share, cached

__all__ = ["Rows", "Share", "Space", "applied", "cached", "compute", "in_dtype", "parted"]
