"""Who this implementation says it is (PS3.7 D.3.3.2, PS3.10 7.1)."""

from __future__ import annotations

from dicomnode import __version__

IMPLEMENTATION_CLASS_UID = "2.25.154627408927512384926730518642970157313"
"""UUID-derived (PS3.5 B.2); the same for every version."""

IMPLEMENTATION_VERSION_NAME = f"DICOMNODE_{__version__}"[:16]

MANUFACTURER = "dicomnode"
"""(0008,0070) Manufacturer of everything that this node makes."""
