#!/usr/bin/env python3
"""Run a retraining and tell Prometheus how it went.

    retrain_textfile.py FILE.prom -- trainer retrain --config retrain.toml --json

Runs the command, whose output and exit code are passed on, and then writes FILE.prom for
node_exporter's textfile collector. Needs nothing but Python.

The outcome is what the command's JSON says under `outcome`, where it prints any; else its
exit code: 0 published, 3 nothing new, everything else failed (a refusal too, so use --json).
A run that ended as it should, whether or not it published a version, is a success. Workers
that are not the chief, and dry runs, leave the file alone. SIGTERM is passed on to the command, so
that a pod that is evicted still tells that its run failed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

OUTCOMES = ("published", "refused", "failed", "nothing_new")
_NO_RUN = ("worker", "dry_run")
_BY_EXIT_CODE = {0: "published", 3: "nothing_new"}
_KEPT_LINES = 2000
_USAGE = 2
_NOT_STARTED = 127

_SUCCESS = "dicomnode_retrain_last_success_timestamp_seconds"
_RUN = "dicomnode_retrain_last_run_timestamp_seconds"
_OUTCOME = "dicomnode_retrain_last_outcome"


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or arguments[1] != "--":
        sys.stderr.write("usage: retrain_textfile.py FILE.prom -- COMMAND [ARGUMENT ...]\n")
        return _USAGE
    path, command = Path(arguments[0]), arguments[2:]
    if not path.parent.is_dir():
        # before hours of training, not after
        sys.stderr.write(f"{path.parent} is no folder; create it, or mount the volume\n")
        return _USAGE
    code, output = run(command)
    outcome = outcome_of(code, output)
    if outcome in _NO_RUN:
        return code
    now = time.time()
    success = previous_success(path) if outcome == "failed" else now
    try:
        write(path, page(outcome, last_run=now, last_success=success))
    except OSError as error:
        sys.stderr.write(f"{path} cannot be written: {error.strerror}; the run ended with {code}\n")
        return code or 1
    return code


def run(command: list[str]) -> tuple[int, str]:
    """The command's exit code and the end of what it printed, which is passed on at once."""
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        return _NOT_STARTED, ""
    signal.signal(signal.SIGTERM, lambda _number, _frame: process.terminate())
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            kept.append(line)
    # what a shell says of a command that a signal ended
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return code, "".join(kept)


def outcome_of(code: int, output: str) -> str:
    """One of `OUTCOMES`, or of `_NO_RUN`."""
    said = _said(output)
    if said in ("refused", "nothing_new") or (code == 0 and said in ("published", *_NO_RUN)):
        return said
    return _BY_EXIT_CODE.get(code, "failed")


def _said(output: str) -> str:
    """`outcome` of the JSON that was printed: all of the output, or its last such line."""
    for text in (output, *reversed(output.splitlines())):
        try:
            document = json.loads(text)
        except ValueError:
            continue
        if isinstance(document, dict) and isinstance(document.get("outcome"), str):
            return str(document["outcome"])
    return ""


def previous_success(path: Path) -> float | None:
    """What the file said before this run."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return None
    values = [line.partition(" ")[2] for line in lines if line.startswith(f"{_SUCCESS} ")]
    try:
        return float(values[0]) if values else None
    except ValueError:
        sys.stderr.write(f"{path} is damaged and written anew; {_SUCCESS} is lost\n")
        return None


def page(outcome: str, *, last_run: float, last_success: float | None) -> str:
    """In the text format of Prometheus. Times in seconds since 1970; no success, no line."""
    lines = [
        f"# HELP {_RUN} When the last retraining ended",
        f"# TYPE {_RUN} gauge",
        f"{_RUN} {last_run:.3f}",
    ]
    if last_success is not None:
        lines += [
            f"# HELP {_SUCCESS} When the last retraining that did not fail ended",
            f"# TYPE {_SUCCESS} gauge",
            f"{_SUCCESS} {last_success:.3f}",
        ]
    lines += [
        f"# HELP {_OUTCOME} 1 for what became of the last retraining, else 0",
        f"# TYPE {_OUTCOME} gauge",
        *(f'{_OUTCOME}{{outcome="{name}"}} {int(name == outcome)}' for name in OUTCOMES),
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """At once, so that the collector never reads half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.rename(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
