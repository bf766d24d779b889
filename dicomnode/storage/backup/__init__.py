"""Backups of a store, taken while the node runs, and the way back.

::

    TARGET/20260304T051500.123Z/manifest.json          written last: without it, no backup
                                SHA256SUMS             every file; `sha256sum -c` reads it
                                dicomnode.sqlite3      the database, whichever kind it is of
                                store/instances/... conflicts/... documents/... display/...
                                models/1/... withdrawn/1/...
                                node.toml

The database is copied first, in one consistent view, and then the files that this copy
names. Files never change once a row names them, so the copy of the database never names a
file that the backup lacks; a file without a row would be harmless, and is left out.

Whatever the node's database is, the backup holds a SQLite file: no other program is needed
to take it or to read it, and a store can move from one kind to the other.

=============  ==========================================================
`snapshot`     the database's copy, and what it names
`manifest`     what a backup says of itself; the list of digests
`copying`      a file copied, hashed and synced
`taking`       `take_backup`
`restoring`    `restore_backup`, `verify_backup`
`models`       versions of the model, there and back
`tables`       rows from one database into another
`guards`       what is looked at before anything is changed
=============  ==========================================================
"""

from __future__ import annotations

from dicomnode.storage.backup.manifest import BackupDamaged, BackupRefused, Manifest, find_backup
from dicomnode.storage.backup.restoring import restore_backup, verify_backup
from dicomnode.storage.backup.taking import Taken, take_backup

__all__ = [
    "BackupDamaged",
    "BackupRefused",
    "Manifest",
    "Taken",
    "find_backup",
    "restore_backup",
    "take_backup",
    "verify_backup",
]
