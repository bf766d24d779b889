"""One decoder process, as its parent sees it. Not thread-safe: a slot owns it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import dicomnode
from dicomnode.errors import SandboxUnavailable, UndecodableImage
from dicomnode.findings import NotEvaluated, PreparedImage
from dicomnode.sandbox import protocol
from dicomnode.sandbox.protocol import ProtocolViolation, Request

_START_SECONDS = 60.0
_STOP_SECONDS = 2.0
_ERROR_BYTES = 4_096
_SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPJ_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}


class Interrupted(Exception):
    """The child ended for no reason of the image: idle, or stopped from outside."""


class _Silence(Exception):
    """The child did not answer in time."""


class _Ended(Exception):
    """The child closed its pipe."""


class DecoderProcess:
    """A running child. `prepare` may be called until it raises; then only `stop`."""

    def __init__(self, *, memory_bytes: int, timeout_seconds: float, idle_seconds: float) -> None:
        """Start the child and wait until it is ready. Raises `SandboxUnavailable`."""
        self._timeout_seconds = timeout_seconds
        command = [sys.executable, "-P", "-m", "dicomnode.sandbox.child"]
        limits = [str(memory_bytes), str(timeout_seconds), str(idle_seconds)]
        try:
            self._process = subprocess.Popen(
                command + limits,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxUnavailable(
                f"the decoder process cannot be started ({error.strerror}); "
                "check memory and process limits"
            ) from error
        # a child that went idle by itself is reaped at once, not at the next image
        threading.Thread(target=self._process.wait, name="decoder-reaper", daemon=True).start()
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def prepare(self, request: Request) -> PreparedImage | NotEvaluated:
        """Have one image prepared.

        Raises `UndecodableImage`, `NotAnInstance`, `TransientError` as the child says;
        `UndecodableImage` when the child hangs or crashes; `Interrupted` when it had ended
        before it read the request, or was stopped from outside.
        """
        deadline = time.monotonic() + self._timeout_seconds
        subject = "an instance whose header it had not read"

        def read(count: int) -> bytes:
            return self._read(count, deadline)

        try:
            self._write(request.encoded())
            header = protocol.read_header(read)
            if header.get("kind") == "reading":
                subject = protocol.text(header, "subject")
                header = protocol.read_header(read)
            return _outcome(header, read)
        except _Silence as error:
            self._kill()
            raise UndecodableImage(
                f"cannot decode {subject}: not done after {self._timeout_seconds:g} s "
                "(worker.decode_timeout_seconds)"
            ) from error
        except ProtocolViolation as error:
            self._kill()
            raise UndecodableImage(
                f"cannot decode {subject}: the decoder process answered with {error}"
            ) from error
        except _Ended as error:
            raise self._ending(subject) from error

    def kill(self) -> None:
        """End the child at once; a `prepare` in another thread raises `Interrupted`."""
        self._process.kill()

    def stop(self) -> None:
        """End the child and forget its pipes. Safe to call twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        try:
            header = protocol.read_header(lambda count: self._read(count, deadline))
        except (_Ended, _Silence, ProtocolViolation) as error:
            self._kill()
            said = (self._process.stderr.read(_ERROR_BYTES) or b"") if self._process.stderr else b""
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
            raise SandboxUnavailable(
                f"the decoder process did not start (status {self._process.returncode}): "
                f"{last or 'no message'}; check memory and worker.decode_memory_bytes"
            ) from error
        if header.get("kind") != "ready":
            raise SandboxUnavailable("the decoder process did not say that it is ready")

    def _write(self, data: bytes) -> None:
        try:
            _open(self._process.stdin).write(data)
        except (BrokenPipeError, ValueError) as error:
            raise _Ended from error

    def _read(self, count: int, deadline: float) -> bytes:
        pipe = _open(self._process.stdout)
        poller = select.poll()  # select.select ends at descriptor 1023
        poller.register(pipe, select.POLLIN)
        data = bytearray()
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise _Silence
            more = os.read(pipe.fileno(), min(count - len(data), 1 << 20))
            if not more:
                raise _Ended
            data += more
        return bytes(data)

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ending(self, subject: str) -> Exception:
        """Why the child ended, once its pipe is closed."""
        try:
            status = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            return UndecodableImage(f"cannot decode {subject}: the decoder process closed its pipe")
        if status == 0 or -status in _FROM_OUTSIDE:
            return Interrupted(f"status {status}")
        if status < 0:
            ended = f"was ended by {signal.Signals(-status).name}"
        else:
            ended = f"ended with status {status}"
        return UndecodableImage(f"cannot decode {subject}: the decoder process {ended}")


def _outcome(header: dict[str, object], read: protocol.ReadExactly) -> PreparedImage | NotEvaluated:
    kind = header.get("kind")
    if kind == "prepared":
        return protocol.read_prepared(header, read)
    if kind == "refused":
        return protocol.refusal(header)
    if kind == "failed":
        raise protocol.failure(header)
    raise ProtocolViolation("an unknown kind of answer")


def _environment() -> dict[str, str]:
    """What the child needs of the node's environment: no setting, hence no secret.

    It finds this very package first, and nothing in the working folder (`-P`).
    """
    kept = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONHOME", "LD_LIBRARY_PATH")
    passed = {name: os.environ[name] for name in kept if name in os.environ}
    root = str(Path(dicomnode.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**passed, **_SINGLE_THREADED, "PYTHONPATH": path}


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise _Ended
    return pipe
