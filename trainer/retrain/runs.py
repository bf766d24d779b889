"""The folder of runs: one folder per run, one run at a time, what the last one came to.

::

    RUNS/.lock                     held while a run is on
    RUNS/last.json                 what the last finished run came to
    RUNS/<run>/snapshot.csv        films and labels as the run found them (not for everybody)
    RUNS/<run>/start.json          the chief's word to the other workers
    RUNS/<run>/decision.json       the gate's checks, with figures
    RUNS/<run>/report.html         the candidate's evaluation
    RUNS/<run>/candidate/          a refused candidate, until the next run
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainer.errors import TrainerError, UsageError

SNAPSHOT: Final = "snapshot.csv"
CANDIDATE: Final = "candidate"
DECISION: Final = "decision.json"
_START: Final = "start.json"
_LAST: Final = "last.json"
_POLL_SECONDS: Final = 0.5
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Last:
    """What the last finished run came to."""

    run: str
    outcome: str
    films_sha256: str
    """Of the digests and labels of all films."""
    settings_sha256: str


def name(run: str) -> str:
    """A run's name, which is that of its folder. Raises `UsageError`."""
    if _NAME.fullmatch(run) is None:
        raise UsageError(
            f"--run must be the name of one folder (letters, digits, dots, - and _, at most 63, "
            f"not a dot first), got {run!r}"
        )
    return run


@contextmanager
def alone(runs: Path) -> Iterator[None]:
    """Hold the folder of runs; the lock ends with the process. Raises `TrainerError`."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        handle = os.open(runs / ".lock", os.O_RDWR | os.O_CREAT, 0o664)
    except OSError as error:
        raise TrainerError(f"cannot write to {runs}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainerError(
                f"another retraining is on in {runs}; wait until it ends, or give this one "
                "another folder (retrain.runs)"
            ) from error
        yield
    finally:
        os.close(handle)


def opened(runs: Path, run: str) -> Path:
    """The folder of a run, which others on this machine cannot enter: it lists films."""
    folder = runs / run
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def decision(folder: Path) -> dict[str, Any] | None:
    """What the run came to; None while it is not decided. Raises `TrainerError`."""
    path = folder / DECISION
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {"outcome": str(told["outcome"]), "version": told["version"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{path} cannot be read") from error


def last(runs: Path) -> Last | None:
    """Raises `TrainerError` when the record is damaged."""
    path = runs / _LAST
    try:
        return Last(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise TrainerError(f"{path} cannot be read; remove it to start afresh") from error


def remember(runs: Path, what: Last) -> None:
    """Record what a run came to."""
    write_json(runs / _LAST, vars(what))


def last_snapshot(runs: Path) -> Path | None:
    """The list of films of the last finished run, while it is there."""
    known = last(runs)
    path = runs / known.run / SNAPSHOT if known is not None else None
    return path if path is not None and path.is_file() else None


def write_json(path: Path, value: Any) -> None:
    """At once, and durable."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(value, indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)


# ------------------------------------------------------------------- chief and workers


def tell_workers(folder: Path, word: str) -> None:
    """`train` or `nothing_new`."""
    write_json(folder / _START, {"word": word})


def await_chief(runs: Path, run: str, seconds: float) -> tuple[Path, str]:
    """The run's folder and the chief's word. Raises `TrainerError` when it does not come."""
    folder, end = runs / run, time.monotonic() + seconds
    while True:
        try:
            return folder, str(json.loads((folder / _START).read_text(encoding="utf-8"))["word"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainerError(f"{folder / _START} cannot be read") from error
        if time.monotonic() > end:
            raise TrainerError(
                f"the chief took no snapshot in {folder} within {seconds:g} s; do all workers "
                "see the same folder (retrain.runs), and is the chief running?"
            )
        time.sleep(_POLL_SECONDS)


# ------------------------------------------------------------------------- old runs


def tidy(runs: Path, keep: int) -> None:
    """Remove all but the `keep` youngest runs, and the refused candidates of all of them.

    Only folders that a run has made: the folder of runs may hold other things too.
    """
    folders = sorted(
        (path.parent for path in runs.glob(f"*/{SNAPSHOT}")), key=lambda path: path.stat().st_mtime
    )
    for folder in folders:
        if (folder / CANDIDATE).is_dir():
            shutil.rmtree(folder / CANDIDATE)
    for folder in folders[: max(0, len(folders) - keep)]:
        shutil.rmtree(folder)
