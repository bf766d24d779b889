"""kill -9 while instances are accepted: what was acknowledged is there, once, and no more.

A killed process loses what it did not hand to the kernel; whether that was also synced is
shown by `test_storage_files` (every fsync) and the pragmas in `test_storage_database`.
"""

from __future__ import annotations

import hashlib
import random
import select
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from dicomnode.jobs import JobKind
from dicomnode.testing.stores import opened_store

ROUNDS = 20

# four threads, as four associations; a digest is printed after accept returned, not before
_CHILD = """
import sys, pathlib, threading
from datetime import UTC, datetime
from dicomnode.testing.stores import opened_store, received_instance
root, round_number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
said = threading.Lock()
def receive(store, thread):
    for n in range(100000):
        number = (round_number * 10 + thread) * 100000 + n
        received = received_instance(
            store.files.incoming, sop=f"1.5.{number}", study=f"1.4.{number // 3}",
            content=str(number).encode() * 1000,
        )
        now = datetime.now(UTC)
        path = store.files.keep(received)
        store.index.accept(received, path=path, now=now, report_due_at=now)
        with said:
            print(received.digest, flush=True)
with opened_store(root) as store:
    store.recover(now=datetime.now(UTC))
    threads = [threading.Thread(target=receive, args=(store, t)) for t in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def _kill_after(root: Path, round_number: int, acknowledgements: int) -> list[str]:
    """Let a child accept, kill it at a random moment; every digest it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(root), str(round_number)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        ready, _, _ = select.select([child.stdout], [], [], 60)
        assert ready, "the child did not start"
        first = [child.stdout.readline() for _ in range(acknowledgements)]
    finally:
        child.kill()
        rest = child.stdout.read()
        child.wait(20)
        child.stdout.close()
    lines = b"".join(first) + rest
    return [line.decode() for line in lines.split(b"\n") if len(line) == 64]


def test_what_was_acknowledged_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    dice = random.Random(20260304)
    acknowledged: list[str] = []
    for number in range(ROUNDS):
        acknowledged += _kill_after(tmp_path, number, dice.randint(1, 60))
    assert len(acknowledged) == len(set(acknowledged)) > ROUNDS

    with opened_store(tmp_path) as store:
        store.recover(now=datetime.now(UTC))
        held = {}
        analyses = [j.key for j in store.queue.jobs(limit=10**6) if j.kind is JobKind.ANALYSE]
        for summary in store.index.studies(limit=10**6):
            for instance, _ in store.index.outcomes(summary.study_instance_uid):
                content = store.files.absolute(instance.path).read_bytes()
                assert hashlib.sha256(content).hexdigest() == instance.digest
                held[instance.digest] = instance
        assert set(acknowledged) <= set(held)
        assert sorted(analyses) == sorted(str(instance.id) for instance in held.values())
        on_disk = {
            str(path.relative_to(tmp_path)) for path in (tmp_path / "instances").rglob("*.dcm")
        }
        assert on_disk == {instance.path for instance in held.values()}
        assert list(store.files.incoming.iterdir()) == []
