"""Part 10 files on a real file system: durable, never overwritten, never outside."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.errors import NotAnInstance, NotInStore, StorageFull, StorageUnavailable
from dicomnode.storage import durable
from dicomnode.storage.files import PartTenFiles
from dicomnode.testing.stores import received_instance

Syncs = list[Path]


@pytest.fixture
def files(tmp_path: Path) -> PartTenFiles:
    return PartTenFiles(tmp_path / "store", minimum_free_bytes=0)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    """What was fsynced, in order; the real fsync is done too."""
    seen: Syncs = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_a_kept_instance_lies_under_its_study_and_series_with_its_digest(
    files: PartTenFiles,
) -> None:
    received = received_instance(files.incoming, content=b"abc")
    path = files.keep(received)
    assert path == f"instances/1.2.3.100/1.2.3.10/1.2.3.1.{received.digest[:16]}.dcm"
    assert files.absolute(path).read_bytes() == b"abc"
    assert list(files.incoming.iterdir()) == []


def test_file_and_every_new_folder_are_synced(files: PartTenFiles, syncs: Syncs) -> None:
    received = received_instance(files.incoming)
    place = files.absolute(files.keep(received))
    series, study, instances = place.parents[0], place.parents[1], place.parents[2]
    assert syncs[0] == received.path
    assert {series, study, instances} <= set(syncs[1:])
    syncs.clear()
    second = received_instance(files.incoming, sop="1.2.3.2", content=b"2")
    files.keep(second)
    assert syncs == [second.path, series]


def test_the_same_instance_again_is_kept_once(files: PartTenFiles) -> None:
    first = files.keep(received_instance(files.incoming))
    assert files.keep(received_instance(files.incoming)) == first
    assert len(list(files.absolute(first).parent.iterdir())) == 1


def test_other_content_under_an_equal_name_is_not_overwritten(files: PartTenFiles) -> None:
    """Sixteen digits of a digest can be made to agree."""
    received = received_instance(files.incoming, content=b"first")
    first = files.keep(received)
    forged = received_instance(files.incoming, content=b"second")
    digest = received.digest[:16] + forged.digest[16:]
    second = files.keep(replace(forged, digest=digest))
    assert files.absolute(first).read_bytes() == b"first"
    assert files.absolute(second).read_bytes() == b"second"


def test_a_folder_that_was_removed_is_made_again(files: PartTenFiles) -> None:
    place = files.absolute(files.keep(received_instance(files.incoming)))
    place.unlink()
    place.parent.rmdir()
    place.parents[1].rmdir()
    assert files.absolute(files.keep(received_instance(files.incoming))) == place
    assert place.exists()


def test_a_conflict_is_set_aside(files: PartTenFiles, syncs: Syncs) -> None:
    kept = files.keep(received_instance(files.incoming))
    aside = files.set_aside(kept)
    assert aside == kept.replace("instances/", "conflicts/", 1)
    assert files.absolute(aside).exists()
    assert not files.absolute(kept).exists()
    assert {files.absolute(aside).parent, files.absolute(kept).parent} <= set(syncs)


def test_a_conflict_that_another_thread_has_set_aside_is_aside(files: PartTenFiles) -> None:
    """The same conflicting instance over two associations at once: both kept it under one
    name, and one of them moves it first."""
    kept = files.keep(received_instance(files.incoming))
    assert files.set_aside(kept) == files.set_aside(kept)
    with pytest.raises(StorageUnavailable, match="setting a conflicting instance aside"):
        files.set_aside("instances/1.2/1.3/1.4.dcm")


@pytest.mark.parametrize(
    "uid", ["../../etc", "..", ".", "", "1.2/3", "1..2", "1.2.", "1.2\n", "1.2 ", "1" * 65, "１.2"]
)
@pytest.mark.parametrize("field", ["sop_instance_uid", "series_instance_uid", "study_instance_uid"])
def test_no_uid_can_name_another_folder(files: PartTenFiles, field: str, uid: str) -> None:
    received = replace(received_instance(files.incoming), **{field: uid})  # type: ignore[arg-type]
    with pytest.raises(NotAnInstance, match=r"PS3\.5 9\.1"):
        files.keep(received)


def test_nothing_is_kept_below_the_reserve(tmp_path: Path) -> None:
    files = PartTenFiles(tmp_path, minimum_free_bytes=1 << 60)
    received = received_instance(files.incoming)
    with pytest.raises(StorageFull, match=r"storage\.minimum_free_bytes"):
        files.keep(received)
    assert not files.has_room()
    assert "minimum_free_bytes" in (files.trouble() or "")
    files.write_document("documents/1.2/3.dcm", b"the reserve is for what we owe")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so(
    files: PartTenFiles, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    received = received_instance(files.incoming)

    def full(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull):
        files.keep(received)
    with pytest.raises(StorageFull):
        files.write_document("documents/1.2/3.dcm", b"x")
    assert not (files.root / "documents/1.2/3.dcm").exists()
    files.discard(received.path)
    assert list(files.incoming.iterdir()) == []


def test_a_failing_disk_is_an_outage(files: PartTenFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        files.keep(received_instance(files.incoming))
    assert files.trouble() == "writing a probe to the store failed: Input/output error"
    assert not files.writable()


def test_a_device_without_space_is_a_full_disk() -> None:
    full = pytest.raises(StorageFull, match="no space left while writing")
    with full, durable.mapped_errors("writing"):
        Path("/dev/full").write_bytes(b"x")


def test_a_document_is_replaced_as_a_whole(files: PartTenFiles, syncs: Syncs) -> None:
    files.write_document("documents/1.2/3.dcm", b"one")
    files.write_document("documents/1.2/3.dcm", b"two")
    assert files.absolute("documents/1.2/3.dcm").read_bytes() == b"two"
    assert list(files.incoming.iterdir()) == []
    assert files.root / "documents/1.2" in syncs


@pytest.mark.parametrize(
    "relative",
    ["instances/1/2/3.dcm", "conflicts/1/2.dcm", "incoming/1.part", "store.json", "", "../x/y",
     "/etc/x/y", "documents/../instances/x", "documents/\0"],
)  # fmt: skip
def test_documents_never_touch_what_was_received(files: PartTenFiles, relative: str) -> None:
    with pytest.raises(NotInStore):
        files.write_document(relative, b"x")


def test_no_path_leaves_the_root(files: PartTenFiles, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (files.root / "documents" / "link").symlink_to(tmp_path)
    for relative in ("documents/link/secret", "documents/../../secret", str(tmp_path / "secret")):
        with pytest.raises(NotInStore, match="leaves the store's root"):
            files.absolute(relative)


def test_a_discarded_file_may_be_gone_already(files: PartTenFiles) -> None:
    files.discard(files.incoming / "nothing.part")


def test_a_root_that_is_a_link_is_a_root(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    files = PartTenFiles(tmp_path / "store", minimum_free_bytes=0)
    assert files.absolute(files.keep(received_instance(files.incoming))).exists()
    assert files.trouble() is None
