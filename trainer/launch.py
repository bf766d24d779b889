"""Several workers on this machine: started together, started again together, ended together.

Each is a `trainer fit --strategy direct` with its TF_CONFIG on loopback and its share of the
processors. A worker that is lost takes the others with it (they end with `PeerLost`); then all
start again and continue from the last checkpoint. What fails for a reason of its own would
fail again and is not repeated.

A worker ends when its standard input does, so none is left when the launcher is killed.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final

from trainer.config import FitConfig
from trainer.errors import PeerLost, TrainerError, UsageError

Tell = Callable[[str, dict[str, Any]], None]

LAUNCHED: Final = "DICOMNODE_LAUNCHED"
"""Set for the workers: end when standard input ends."""
_GRACE_SECONDS: Final = 60.0
"""For the others to end by themselves, once one has failed."""
_POLL_SECONDS: Final = 0.1
_LINES: Final = 40
_LOG_LINE: Final = re.compile(r"[IWE]\d{4} |\d{4}-\d\d-\d\d .*: [IWE] |WARNING: All log messages")
"""Of tensorflow's own log."""
_ERRORS: Final = {error.code: error for error in TrainerError.__subclasses__()}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a worker ended."""

    worker: int
    code: int
    """Negative: of the signal that ended it."""
    lines: tuple[str, ...]
    """The last ones of its standard error, without tensorflow's log."""

    @property
    def error(self) -> tuple[str, str] | None:
        """Code and message of the error that it told of."""
        for line in reversed(self.lines):
            code, _, message = line.partition(": ")
            if code == TrainerError.code or code in _ERRORS:
                return code, message
        return None

    @property
    def was_lost(self) -> bool:
        """Killed, or ended because another was."""
        return self.code < 0 or (self.error is not None and self.error[0] == PeerLost.code)


def launch(
    config: FitConfig,
    *,
    workers: int,
    restarts: int,
    options: Sequence[str] = (),
    tell: Tell,
) -> None:
    """Run `workers` processes until all are done; `options` go to each command as they are.

    Raises the error of the worker that failed, `TrainerError` when workers were lost more than
    `restarts` times, and `UsageError` for a run that is distributed already.
    """
    if config.strategy != "local":
        raise UsageError(
            f"--workers starts processes on this machine; leave out --strategy {config.strategy}"
        )
    command = [sys.executable, "-m", "trainer", "fit", *arguments(config), *options]
    for attempt in range(restarts + 1):
        ended = _together(command, workers)
        failed = [one for one in ended if one.code != 0]
        if not failed:
            return
        own = [one for one in failed if not one.was_lost]
        if own:
            raise _error_of(own[0])
        lost = sorted({one.worker for one in failed if one.code < 0})
        if attempt < restarts:
            tell("restarting", {"lost_workers": lost, "restart": f"{attempt + 1}/{restarts}"})
    raise TrainerError(
        f"workers were lost {restarts + 1} times, at last {', '.join(map(str, lost)) or 'one'}; "
        "look for what ends them (memory?), then run again: the checkpoint is kept"
    )


def arguments(config: FitConfig) -> list[str]:
    """The options that say `config`, for a worker with its place in TF_CONFIG."""
    told = ["--strategy", "direct"]
    for field in fields(config):
        value, option = getattr(config, field.name), field.name.replace("_", "-")
        if field.name == "strategy" or value is None:
            continue
        if isinstance(value, bool):
            told.append(f"--{option}" if value else f"--no-{option}")
        else:
            told += [f"--{option}", str(value)]
    return told


def end_with_launcher() -> None:
    """In a worker: end this process when the launcher is gone. Else nothing."""
    if os.environ.get(LAUNCHED) != "1":
        return

    def wait() -> None:
        # not sys.stdin: its lock, held by a thread, aborts the interpreter when it ends
        while os.read(0, 1):
            pass
        os._exit(PeerLost.exit_code)

    threading.Thread(target=wait, name="launcher-watch", daemon=True).start()


# ------------------------------------------------------------------------------ one attempt


def _together(command: Sequence[str], workers: int) -> list[Ended]:
    """Start all, wait for all; once one has failed the others get a minute."""
    hosts = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    processors = _shares(sorted(os.sched_getaffinity(0)), workers)
    with ExitStack() as stack:
        started = [
            stack.enter_context(_worker(command, hosts, number, processors[number]))
            for number in range(workers)
        ]
        deadline: float | None = None
        while any(process.poll() is None for process, _ in started):
            if deadline is None and any(process.poll() for process, _ in started):
                deadline = time.monotonic() + _GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        finished = [process.poll() for process, _ in started]
    return [
        # one that had to be ended did not fail by itself
        Ended(worker=number, code=-9 if code is None else code, lines=tuple(lines))
        for number, (code, (_, lines)) in enumerate(zip(finished, started, strict=True))
    ]


@contextmanager
def _worker(
    command: Sequence[str], hosts: list[str], number: int, processors: list[int]
) -> Iterator[tuple[subprocess.Popen[bytes], deque[str]]]:
    """A running worker and the last lines of its standard error; killed on the way out."""
    config = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": number}}
    environment = os.environ | {"TF_CONFIG": json.dumps(config), LAUNCHED: "1"}
    lines: deque[str] = deque(maxlen=_LINES)
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=None if number == 0 else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        os.sched_setaffinity(process.pid, processors)
        reader = threading.Thread(
            target=_read, args=(process, lines), name=f"worker-{number}-stderr", daemon=True
        )
        reader.start()
        try:
            yield process, lines
        finally:
            process.kill()
            process.wait()
            reader.join()


def _read(process: subprocess.Popen[bytes], lines: deque[str]) -> None:
    assert process.stderr is not None
    for raw in process.stderr:
        line = raw.decode(errors="replace").rstrip()
        if line and not _LOG_LINE.match(line):
            lines.append(line)


def _error_of(ended: Ended) -> TrainerError:
    told = ended.error
    if told is None:
        last = ended.lines[-1] if ended.lines else "it said nothing"
        return TrainerError(f"worker {ended.worker} ended with code {ended.code}: {last}")
    code, message = told
    return _ERRORS.get(code, TrainerError)(message)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _shares(processors: list[int], workers: int) -> list[list[int]]:
    """Processors of each worker: its own while there are enough, else all of them."""
    if len(processors) < workers:
        return [processors] * workers
    bounds = [len(processors) * number // workers for number in range(workers + 1)]
    return [processors[bounds[n] : bounds[n + 1]] for n in range(workers)]
