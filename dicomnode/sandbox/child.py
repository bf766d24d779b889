"""The decoder process.

`python -m dicomnode.sandbox.child MEMORY_BYTES TIMEOUT_SECONDS IDLE_SECONDS` reads requests
from standard input and answers on standard output until end of file or `IDLE_SECONDS`
without a request, and then ends with status 0.

It limits itself before it imports a codec: address space, open files, core files. An
alarm ends it should a decoder hang while nobody is left to kill it. Standard output is
kept for the protocol under another descriptor, and whatever libraries print goes
nowhere: it could hold values of headers.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import BinaryIO

from dicomnode.errors import DicomnodeError, TransientError, UndecodableImage
from dicomnode.findings import NotEvaluated, PreparedImage
from dicomnode.sandbox import protocol
from dicomnode.sandbox.protocol import Request

_OPEN_FILES = 64
_GRACE_SECONDS = 5
_LONGEST_REQUEST = 65_536
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


def main(arguments: Sequence[str]) -> int:
    """Serve requests until the parent is gone or nothing was asked for a while."""
    memory_bytes, timeout_seconds, idle_seconds = (float(one) for one in arguments)
    _limit(int(memory_bytes))
    _import_decoders()
    answers = _claim_standard_output()
    requests = 0  # standard input, unbuffered
    _send(answers, protocol.frame({"kind": "ready"}))
    pending = b""
    while select.select([requests], [], [], None if b"\n" in pending else idle_seconds)[0]:
        more = os.read(requests, _LONGEST_REQUEST)
        if not more:
            return 0
        pending += more
        line, newline, rest = pending.partition(b"\n")
        if not newline:
            continue
        pending = rest
        signal.alarm(math.ceil(timeout_seconds) + _GRACE_SECONDS)
        _answer(answers, Request.decoded(line))
        signal.alarm(0)
    return 0


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _import_decoders() -> None:
    """Import what the first request needs, before it is timed and while errors are shown."""
    from pydicom import config  # noqa: PLC0415 - the limits come first

    import dicomnode.imaging.preprocess  # noqa: PLC0415
    import dicomnode.imaging.reading  # noqa: F401, PLC0415

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    config.settings.reading_validation_mode = config.IGNORE


def _claim_standard_output() -> BinaryIO:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return io.BufferedWriter(answers)


def _answer(answers: BinaryIO, request: Request) -> None:
    try:
        outcome = _prepare(answers, request)
    except DicomnodeError as error:
        _send(answers, protocol.failed_frame(error))
        return
    if isinstance(outcome, NotEvaluated):
        _send(answers, protocol.refused_frame(outcome))
    else:
        _send(answers, protocol.prepared_frame(outcome))


def _prepare(answers: BinaryIO, request: Request) -> PreparedImage | NotEvaluated:
    from dicomnode.imaging import elements, preprocess  # noqa: PLC0415
    from dicomnode.imaging.reading import read_instance  # noqa: PLC0415

    subject = "the instance"
    try:
        started = time.perf_counter()
        with open(request.path, "rb") as stream:  # noqa: PTH123 - nothing but the path is needed
            ds = read_instance(stream)
        subject = elements.subject(ds)
        _send(answers, protocol.frame({"kind": "reading", "subject": subject}))
        grey = preprocess.eligible_grey(ds, maximum_pixels=request.maximum_pixels)
        if isinstance(grey, NotEvaluated):
            return grey
        decoded = time.perf_counter()
        profile = preprocess.PROFILES[request.profile]
        tensor, display = profile.apply(grey), preprocess.display_image(grey)
        return PreparedImage(
            tensor=tensor,
            display=display,
            decode_seconds=decoded - started,
            preprocess_seconds=time.perf_counter() - decoded,
        )
    except DicomnodeError:
        raise
    except MemoryError as error:
        raise UndecodableImage(
            f"cannot decode {subject}: it needs more memory than worker.decode_memory_bytes allows"
        ) from error
    except OSError as error:
        raise _unreadable(error) from error
    except Exception as error:
        # the last boundary: whatever a malformed instance provokes is about that instance
        raise UndecodableImage(
            f"cannot decode {subject}: unforeseen {type(error).__name__}"
        ) from error


def _unreadable(error: OSError) -> DicomnodeError:
    name = errno.errorcode.get(error.errno or 0, "no errno")
    if error.errno in _GONE:
        return UndecodableImage(f"the stored file cannot be opened ({name}); is it still there?")
    return TransientError(f"the stored file cannot be read ({name}); check the storage")


def _send(answers: BinaryIO, pieces: Sequence[bytes | memoryview]) -> None:
    for piece in pieces:
        answers.write(piece)
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
