"""The cluster's nightly backup: the real command, what stays of it, what Prometheus is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.storage import open_storage
from dicomnode.testing.stores import opened_store, store_settings
from tests.conftest import ROOT, require_program
from tests.integration.test_backup import accept

NIGHTLY = ROOT / "deploy" / "components" / "backup" / "nightly.py"


class Night:
    """A store, the folder of its backups, and the command as the CronJob gives it."""

    def __init__(self, folder: Path, database_url: str = "") -> None:
        self.root, self.target = folder / "store", folder / "backup"
        self.told, self.config = folder / "backup.prom", folder / "node.toml"
        self.url = database_url
        self.keep: int | str = 2
        self.films = 0
        self.config.write_text(
            f'[storage]\nroot = "{self.root}"\nminimum_free_bytes = 1\n'
            f'[serving]\nengine = "external"\nmodel_base_path = "{folder / "models"}"\n'
        )
        with opened_store(self.root, database_url=database_url):
            pass

    def receive(self) -> Path:
        """A film more, and where it lies."""
        self.films += 1
        store = open_storage(store_settings(self.root, database_url=self.url))
        try:
            return accept(store, self.films)
        finally:
            store.close()

    def run(self, *command: str, through: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """`command` in the place of the backup, where one is given."""
        given = (*self.ours, *(command or self.backup))
        return subprocess.run(
            [*through, *given],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
            env=self.environment,
        )

    @property
    def ours(self) -> tuple[str, ...]:
        return (sys.executable, str(NIGHTLY), f"--keep={self.keep}", f"--tell={self.told}", "--")

    @property
    def backup(self) -> tuple[str, ...]:
        command = (sys.executable, "-m", "dicomnode", "backup", str(self.target))
        return (*command, "--config", str(self.config), "--json")

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DICOMNODE_STORAGE__DATABASE_URL": self.url}

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.target.iterdir() if path.name != ".lock")

    def outcome(self) -> str:
        (line,) = [each for each in self.told.read_text().splitlines() if each.endswith("} 1")]
        return line.partition('outcome="')[2].partition('"')[0]

    def success(self) -> str:
        found = [
            each.split()[1]
            for each in self.told.read_text().splitlines()
            if each.startswith("dicomnode_backup_last_success")
        ]
        return found[0] if found else ""


def test_after_a_sound_backup_the_newest_stay_and_the_outcome_is_told(tmp_path: Path) -> None:
    night = Night(tmp_path)
    for _ in range(3):
        night.receive()
        done = night.run()
        assert (done.returncode, done.stderr) == (0, "")
    assert night.outcome() == "sound"
    assert night.success()
    first, second = night.kept()
    checked = subprocess.run(
        ["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=night.target / first, check=False
    )
    assert checked.returncode == 0, "the removed one took nothing of the others with it"
    assert len(list((night.target / second).rglob("*.dcm"))) == 3


def test_a_damaged_store_costs_no_older_backup(tmp_path: Path) -> None:
    """
    The film that the store has lost is in the older ones only.
    """
    night = Night(tmp_path)
    lost = night.receive()
    for _ in range(2):
        assert night.run().returncode == 0
    lost.unlink()
    before = night.kept()
    done = night.run()
    assert done.returncode == 1
    assert "backup_damaged: the store no longer has 1 files" in done.stderr
    assert night.outcome() == "damaged"
    assert night.kept()[:2] == before
    assert len(night.kept()) == 3


def test_a_backup_that_fails_removes_nothing_and_keeps_the_time_of_the_last(tmp_path: Path) -> None:
    night = Night(tmp_path)
    for _ in range(2):
        assert night.run().returncode == 0
    night.keep, success, before = 1, night.success(), night.kept()
    for command, code in (
        (("sh", "-c", "echo full >&2; exit 1"), 1),
        (("sh", "-c", "exit 2"), 2),
        (("sh", "-c", "kill -9 $$"), 137),
        (("sh", "-c", "echo not JSON"), 0),
        (("no-such-program",), 127),
    ):
        assert night.run(*command).returncode == code
        assert (night.outcome(), night.success(), night.kept()) == ("failed", success, before)


def test_a_removal_that_was_interrupted_is_ended_and_other_folders_are_left(tmp_path: Path) -> None:
    night = Night(tmp_path)
    night.receive()
    assert night.run().returncode == 0
    (first,) = night.kept()
    (night.target / first / "manifest.json").unlink()
    (night.target / "notes").mkdir()
    assert night.run().returncode == 0
    assert first not in night.kept()
    assert len(night.kept()) == 2
    assert "notes" in night.kept()


def test_the_end_of_the_pod_ends_the_backup_and_is_told(tmp_path: Path) -> None:
    night = Night(tmp_path)
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    script = f"echo on > {ready}; exec sleep 60"
    with subprocess.Popen([*night.ours, "sh", "-c", script]) as process:
        assert ready.read_text() == "on\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert (night.outcome(), night.success()) == ("failed", "")


@pytest.mark.parametrize("keep", ["0", "-1", "some"])
def test_none_to_keep_is_wrong_usage(tmp_path: Path, keep: str) -> None:
    night = Night(tmp_path)
    night.keep = keep
    assert night.run().returncode == 2
    assert not night.told.exists()


def test_with_postgresql_the_store_is_mounted_read_only_and_that_is_enough(
    tmp_path: Path, new_database_url: object
) -> None:
    assert callable(new_database_url)
    night = Night(tmp_path, new_database_url())
    night.receive()
    unshare = (require_program("unshare"), "--mount")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounts of its own need root")
    mounts = f"mount --bind {night.root} {night.root}; mount -o remount,ro,bind {night.root}"
    through = (*unshare, "sh", "-ec", f'{mounts}; ! touch {night.root}/x 2>&-; exec "$@"', "sh")
    done = night.run(through=through)
    assert (done.returncode, done.stderr) == (0, "")
    assert (night.outcome(), len(night.kept())) == ("sound", 1)
