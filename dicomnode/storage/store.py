"""The store as a whole: files, index and queue that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from dicomnode.config import StorageSettings
from dicomnode.logs import get_logger
from dicomnode.ports import Clock
from dicomnode.storage import owner
from dicomnode.storage.database import Database, open_database
from dicomnode.storage.files import PartTenFiles
from dicomnode.storage.index import SqlIndex
from dicomnode.storage.labels import SqlLabels
from dicomnode.storage.queue import SqlQueue
from dicomnode.storage.sweep import SHARED_GRACE_SECONDS, sweep
from dicomnode.storage.upgrade import is_current, upgrade

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """An open store. `close` it."""

    files: PartTenFiles
    index: SqlIndex
    queue: SqlQueue
    labels: SqlLabels
    database: Database
    lock: owner.OwnerLock | None
    start: owner.Start | None
    """None for a guest: a command or the trainer, beside the node that owns the store."""

    def recover(self, *, now: datetime) -> dict[str, int]:
        """Undo what a crash left, before the node receives anything.

        Removes files that were never acknowledged (`storage.sweep`) and, when this process
        is the only node on the database (SQLite), returns the jobs that a dead one held;
        on PostgreSQL their leases run out. Counts by what was done.
        """
        if self.start is None:
            raise RuntimeError("only a node recovers its store: open_storage(single_owner=True)")
        shared = self.lock is None
        before = self.start.identity
        if self.start.database_is_older:
            log.error("store.database_restored", next_step="orphans are kept; see the manual")
        swept = sweep(
            self.files.root,
            self.index.named_paths,
            since=before.swept_at,
            look_for_orphans=not self.start.database_is_older and (shared or not before.clean),
            grace_seconds=SHARED_GRACE_SECONDS if shared else 0.0,
        )
        if not self.start.database_is_older:
            owner.mark(self.files.root, swept_at=swept.swept_at)
        return {
            "incoming_removed": swept.incoming,
            "orphans_removed": swept.orphans,
            "folders_swept": swept.folders,
            "leases_released": 0 if shared else self.queue.release_leases(now=now),
        }

    def close(self) -> None:
        """Close the database; a node also notes that it stopped in an orderly way."""
        try:
            if self.start is not None and not self.start.database_is_older:
                owner.mark(self.files.root, clean=True)
        finally:
            self.database.close()
            if self.lock is not None:
                self.lock.release()


def open_storage(
    settings: StorageSettings,
    *,
    single_owner: bool = False,
    clock: Clock = lambda: datetime.now(UTC),
) -> Storage:
    """Open the store that the settings name, its schema brought up to date.

    `single_owner` is for the node: on SQLite it takes `node.lock`, so a second node on the
    same root fails here; then it calls `recover`. Without it (commands, the trainer) the
    store is shared with a running node and only an outdated schema asks for the lock.
    Raises `ConfigError`, `StorageUnavailable`, `StorageFull`.
    """
    files = PartTenFiles(settings.root, settings.minimum_free_bytes)
    url = settings.database_url.get_secret_value()
    lock = owner.open_single_owner(files.root) if single_owner and not url else None
    database = None
    try:
        database = open_database(files.root, url)
        _bring_up_to_date(files, database, alone=lock is not None or bool(url))
        if single_owner:
            start = owner.begin(files.root, database)
        else:
            owner.check_identity(files.root, database)
            start = None
        return Storage(
            files=files,
            index=SqlIndex(database, clock=clock),
            queue=SqlQueue(database),
            labels=SqlLabels(database, clock=clock),
            database=database,
            lock=lock,
            start=start,
        )
    except BaseException:
        if database is not None:
            database.close()
        if lock is not None:
            lock.release()
        raise


def _bring_up_to_date(files: PartTenFiles, database: Database, *, alone: bool) -> None:
    if is_current(database):
        return
    lock = None if alone else owner.open_single_owner(files.root)
    try:
        upgrade(database)
    finally:
        if lock is not None:
            lock.release()
