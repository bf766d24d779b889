"""Films decoded and prepared: one grey plane each, whether in memory or in a file."""

from __future__ import annotations

import errno
import hashlib
import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import NotAnInstance, UndecodableImage
from dicomnode.findings import NotEvaluated, Reason
from dicomnode.imaging import preprocess, reading
from trainer.data.cases import MAXIMUM_FILE_BYTES, MAXIMUM_PIXELS, Case, Skipped
from trainer.errors import DataError, StorageFull

Tensors = NDArray[np.uint8]
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Films:
    """Films as the network sees them, in the order of `cases`."""

    cases: tuple[Case, ...]
    tensors: Tensors
    """uint8 [N, height, width, 3], not to be written: the three channels are one."""
    digests: tuple[str, ...]
    """sha256 in hex of each file's bytes."""
    skipped: tuple[Skipped, ...]
    manifest_sha256: str
    """Of every film's name, label, patient and content."""


class UnusableFilm(Exception):
    """Why a film cannot be used, in words that name nobody; it becomes a `Skipped`."""

    def __init__(self, why: str, refusal: Reason | None = None) -> None:
        super().__init__(why)
        self.refusal = refusal
        """The gate's reason; None when the file could not be read or decoded."""


def load(
    cases: Sequence[Case],
    profile_name: str,
    *,
    workers: int = 2,
    strict: bool = False,
    scratch: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Films:
    """Decode and prepare every film; those that cannot be used are listed in `skipped`.

    So are copies, byte by byte, of a film that came before: under another patient's name one
    would be learned from and its copy judge what was learned.

    With `scratch` (a folder) the tensors lie in a nameless file there, which goes when they
    do, and memory stays flat however many films there are. `progress` is called with the
    number of films done and due. Raises `DataError`: no film can be used, or, with `strict`,
    one cannot; `StorageFull` when `scratch` has no space left.
    """
    profile = preprocess.profile_named(profile_name)
    kept: list[Case] = []
    digests: dict[str, Case] = {}
    skipped: list[Skipped] = []
    plane = (profile.height, profile.width, 1)
    planes = _PlanesInFile(scratch) if scratch else _PlanesInMemory(len(cases), plane)

    def prepared(case: Case) -> tuple[Tensors, str] | Skipped:
        try:
            data = content(case)
            return profile.apply(decoded(case, data)), hashlib.sha256(data).hexdigest()
        except UnusableFilm as error:
            return Skipped(name=case.name, reason=str(error))

    for done, (case, found) in enumerate(in_order(prepared, cases, workers), start=1):
        earlier = None if isinstance(found, Skipped) else digests.get(found[1])
        result = found if earlier is None else _copy(case, earlier)
        if isinstance(result, Skipped):
            if strict:
                raise DataError(f"{result.name} cannot be used: {result.why}")
            skipped.append(result)
        else:
            planes.add(result[0][:, :, :1])
            kept.append(case)
            digests[result[1]] = case
        if progress is not None:
            progress(done, len(cases))
    if not kept:
        first = f"; {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"none of {len(cases)} films can be used{first}")
    grey = planes.array(len(kept), plane)
    return Films(
        cases=tuple(kept),
        tensors=np.broadcast_to(grey, (len(kept), *profile.shape)),
        digests=tuple(digests),
        skipped=tuple(skipped),
        manifest_sha256=_manifest_sha256(kept, tuple(digests)),
    )


def _copy(case: Case, first: Case) -> Skipped:
    reason = "the same file, byte by byte, as another"
    if case.label != first.label:
        reason += f", which is labelled {first.label}; one of the two labels is wrong"
    return Skipped(name=case.name, reason=reason, copy_of=first.name)


def content(case: Case) -> bytes:
    """The bytes of a film's file. Raises `UnusableFilm`."""
    try:
        size = case.path.stat().st_size
        if size > MAXIMUM_FILE_BYTES:
            raise UnusableFilm(f"the file has {size:,} bytes, at most {MAXIMUM_FILE_BYTES:,}")
        data = case.path.read_bytes()
    except OSError as error:
        raise UnusableFilm(f"the file cannot be read: {error.strerror}") from error
    if case.sha256 and hashlib.sha256(data).hexdigest() != case.sha256:
        raise UnusableFilm("the file has changed: its sha256 is not the one in the manifest")
    return data


def decoded(case: Case, data: bytes) -> NDArray[np.uint8]:
    """uint8 [rows, columns] of a film that the node would evaluate. Raises `UnusableFilm`.

    DICOM files pass the node's gate first (`dicomnode.imaging.gate`); JPEG and PNG files
    have no header to judge.
    """
    try:
        if case.is_image_file:
            return preprocess.image_file_grey8(data, maximum_pixels=MAXIMUM_PIXELS)
        grey = preprocess.eligible_grey(
            reading.read_instance(io.BytesIO(data)), maximum_pixels=MAXIMUM_PIXELS
        )
    except (UndecodableImage, NotAnInstance) as error:
        raise UnusableFilm(str(error)) from error
    if isinstance(grey, NotEvaluated):
        raise UnusableFilm(
            f"the node would not evaluate it ({grey.reason.value}): {grey.detail}", grey.reason
        )
    return grey


def prepared_tensor(grey: NDArray[np.uint8], profile_name: str) -> Tensors:
    """uint8 [rows, columns] to the model's input, uint8 [height, width, 3]."""
    return preprocess.profile_named(profile_name).apply(grey)


def in_order(
    work: Callable[[Case], Result], cases: Sequence[Case], workers: int
) -> Iterator[tuple[Case, Result]]:
    """Each case with its result, in order; a few ahead of the caller and not all at once.

    Threads, since numpy, Pillow and the codecs let go of the interpreter lock.
    """
    left = iter(cases)
    with ThreadPoolExecutor(workers, thread_name_prefix="film") as pool:
        ahead: deque[tuple[Case, Future[Result]]] = deque(
            (case, pool.submit(work, case)) for case in islice(left, 4 * workers)
        )
        while ahead:
            case, future = ahead.popleft()
            yield case, future.result()
            ahead.extend((case, pool.submit(work, case)) for case in islice(left, 1))


class _PlanesInMemory:
    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        self._planes = np.empty((count, *shape), np.uint8)
        self._used = 0

    def add(self, plane: Tensors) -> None:
        self._planes[self._used] = plane
        self._used += 1

    def array(self, count: int, _shape: tuple[int, int, int]) -> Tensors:
        return self._planes[:count]


class _PlanesInFile:
    """Written, not mapped, while it grows: a full disk is then an error and not a SIGBUS."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # it has no name, so it goes with the last map of it, even after a kill
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise _cannot_write(error) from error

    def add(self, plane: Tensors) -> None:
        try:
            self._file.write(np.ascontiguousarray(plane).data)
        except OSError as error:
            raise _cannot_write(error) from error

    def array(self, count: int, shape: tuple[int, int, int]) -> Tensors:
        try:
            self._file.flush()
        except OSError as error:
            raise _cannot_write(error) from error
        return np.memmap(self._file, np.uint8, mode="r", shape=(count, *shape))


def _cannot_write(error: OSError) -> DataError | StorageFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("no space left for prepared films; free some, or name another folder")
    return DataError(f"cannot write prepared films: {error.strerror}")


def _manifest_sha256(cases: Sequence[Case], digests: Sequence[str]) -> str:
    manifest = hashlib.sha256()
    for case, digest in zip(cases, digests, strict=True):
        line = "\t".join((case.name, case.label, case.patient, digest))
        manifest.update(line.encode() + b"\n")
    return manifest.hexdigest()
