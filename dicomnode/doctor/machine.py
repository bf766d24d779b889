"""The machine under the node: clock, limits, temporary space, user, decoders."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit

from dicomnode.config import Settings
from dicomnode.dimse.syntaxes import TRANSFER_SYNTAXES
from dicomnode.doctor.findings import Finding, fail, ok, warn
from dicomnode.errors import DicomnodeError
from dicomnode.findings import NotEvaluated
from dicomnode.imaging.profiles import PROFILES
from dicomnode.sandbox import SandboxPreparer
from dicomnode.storage.owner import IDENTITY_NAME

_EARLIEST = 1_767_225_600  # 2026-01-01: this program is not older
_TEMPORARY_BYTES = 100_000_000
_FILES_BESIDE_ASSOCIATIONS = 256
_STA_UNSYNC, _TIME_ERROR = 0x0040, 5


def machine(settings: Settings) -> Iterator[Finding]:
    """Everything that takes no time."""
    yield _clock(settings)
    synchronised = clock_is_synchronised()
    if synchronised is False:
        yield warn(
            "clock.synchronised",
            "the kernel says that nothing keeps its clock right",
            expected="a time service (chrony, systemd-timesyncd) with a server of the hospital",
            next_step="`chronyc tracking`; without internet name a server inside",
        )
    elif synchronised:
        yield ok("clock.synchronised", "a time service keeps the clock")
    yield _open_files(settings)
    yield _temporary()
    if os.geteuid() == 0:
        yield warn(
            "user",
            "runs as root",
            expected="a user of its own",
            next_step="run it as uid 10001 (the images do) or as a system user",
        )
    else:
        yield ok("user", f"uid {os.geteuid()}")


def _clock(settings: Settings) -> Finding:
    now, identity = time.time(), settings.storage.root / IDENTITY_NAME
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    newest = identity.stat().st_mtime if identity.is_file() else _EARLIEST
    if now < max(newest - 60, _EARLIEST):
        return fail(
            "clock",
            f"it is {said}, before the store was last started",
            expected="the right time: reports and leases carry it",
            next_step="a board without a clock battery starts in the past; set the time first",
        )
    return ok("clock", said)


def clock_is_synchronised() -> bool | None:
    """What adjtimex(2) says, asked without changing anything; None where it may not be asked
    (a seccomp profile)."""
    words = (ctypes.c_long * 64)()  # struct timex; modes = 0 only reads
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex"):
        return None
    state = libc.adjtimex(ctypes.byref(words))
    if state < 0:
        return None
    # modes, offset, freq, maxerror, esterror, status: a long each, as they are aligned
    status = ctypes.c_int.from_buffer(words, 5 * ctypes.sizeof(ctypes.c_long)).value
    return not (state == _TIME_ERROR or status & _STA_UNSYNC)


def _open_files(settings: Settings) -> Finding:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES_BESIDE_ASSOCIATIONS + 3 * settings.dimse.maximum_associations
    if limit != resource.RLIM_INFINITY and limit < needed:
        return warn(
            "open_files",
            f"{limit} open files allowed",
            expected=f"{needed} for {settings.dimse.maximum_associations} associations",
            next_step="LimitNOFILE= in the unit, ulimit -n, or fewer dimse.maximum_associations",
        )
    return ok("open_files", f"{limit} allowed, {needed} needed at most")


def _temporary() -> Finding:
    try:
        folder = Path(tempfile.gettempdir())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return fail(
            "temporary",
            f"no folder for temporary files: {error.strerror}",
            expected="one that this user can write to",
            next_step="mount an emptyDir at /tmp; the root file system is read-only",
        )
    found = f"{free / 1e6:.0f} MB free in {folder}"
    if free < _TEMPORARY_BYTES:
        return warn(
            "temporary",
            found,
            expected=f"{_TEMPORARY_BYTES / 1e6:.0f} MB",
            next_step="free space, or set TMPDIR",
        )
    return ok("temporary", found)


def decoders(settings: Settings) -> Iterator[Finding]:
    """A generated film in every transfer syntax that can be written here goes through the
    node's own sandbox; for the others a decoder must be there."""
    from dicomnode.testing.phantoms import TRANSFER_SYNTAXES as WRITABLE  # noqa: PLC0415 - seconds, for this check alone

    failed = [
        f"{UID(syntax).name}: no decoder"
        for syntax in map(UID, TRANSFER_SYNTAXES)
        if syntax.is_encapsulated and not _has_decoder(syntax)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="dicomnode-doctor-") as folder,
        SandboxPreparer(
            slots=1,
            memory_bytes=settings.worker.decode_memory_bytes,
            timeout_seconds=settings.worker.decode_timeout_seconds,
        ) as preparer,
    ):
        for syntax in WRITABLE:
            told = _decoded(preparer, Path(folder), syntax)
            if told:
                failed.append(f"{syntax.name}: {told}")
    if failed:
        yield fail(
            "decoders",
            "; ".join(failed),
            expected=f"all {len(TRANSFER_SYNTAXES)} transfer syntaxes that are accepted",
            next_step="install dicomnode with its dependencies again (pylibjpeg, pyjpegls); is "
            "worker.decode_memory_bytes too small?",
        )
    else:
        yield ok(
            "decoders",
            f"{len(TRANSFER_SYNTAXES)} transfer syntaxes: {len(WRITABLE)} decoded, a decoder for "
            "the others is there",
        )


def _has_decoder(syntax: UID) -> bool:
    retired = syntax in ("1.2.840.10008.1.2.4.52", "1.2.840.10008.1.2.4.53")
    try:
        return bool(get_decoder(JPEGExtended12Bit if retired else syntax).is_available)
    except NotImplementedError:
        return False


def _decoded(preparer: SandboxPreparer, folder: Path, syntax: UID) -> str:
    """What went wrong; nothing when the film came out of the sandbox."""
    from dicomnode.testing.phantoms import part10_bytes, phantom_dataset  # noqa: PLC0415 - as above

    bits = 8 if syntax == JPEGBaseline8Bit else 12
    film = folder / f"{syntax}.dcm"
    film.write_bytes(
        part10_bytes(
            phantom_dataset(
                1, True, rows=256, columns=256, bits_stored=bits, transfer_syntax=syntax
            )
        )
    )
    try:
        prepared = preparer.prepare(film, profile=next(iter(PROFILES)))
    except DicomnodeError as error:
        return str(error)
    return prepared.detail if isinstance(prepared, NotEvaluated) else ""
