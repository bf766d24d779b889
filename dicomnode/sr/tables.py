"""highdicom's tables of the standard: 60 MB once the first report is built.

A node on a small board that has nothing to do should not hold them.
"""

from __future__ import annotations

from highdicom import _standard_utils


def release_tables() -> None:
    """Forget highdicom's table of module attributes; the next report reads it again
    (about 0.25 s)."""
    _standard_utils.get_module_attribute_map.cache_clear()
