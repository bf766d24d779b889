"""Keeps instances, findings, documents and jobs so that they survive a power cut.

Part 10 files under one root (`files`), and one database beside them, SQLite or
PostgreSQL (`index`, `queue`). The only home of SQLAlchemy and of the file layout. Decides
nothing about images or retries: it records what it is told, each call one durable
transaction. `open_storage` is the way in.
"""

from __future__ import annotations

from dicomnode.storage.header import read_header
from dicomnode.storage.owner import open_single_owner
from dicomnode.storage.store import Storage, open_storage

__all__ = ["Storage", "open_single_owner", "open_storage", "read_header"]
