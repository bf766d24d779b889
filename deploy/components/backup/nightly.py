#!/usr/bin/env python3
"""Take a backup, remove the oldest ones, and tell Prometheus how it went.

    nightly.py --keep 14 --tell FILE.prom -- dicomnode backup TARGET --config FILE --json

Runs the command, whose output and exit code are passed on. Old backups are removed only after
a sound one: when the store has lost files, an older backup may be the only place where they
are. FILE.prom is for node_exporter's textfile collector. Needs nothing but Python.

Exit codes: the command's; 1 also when an old backup cannot be removed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SOUND, DAMAGED, FAILED = "sound", "damaged", "failed"
_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
_MANIFEST = "manifest.json"
_NOT_STARTED = 127

_RUN = "dicomnode_backup_last_run_timestamp_seconds"
_SUCCESS = "dicomnode_backup_last_success_timestamp_seconds"
_OUTCOME = "dicomnode_backup_last_outcome"


def main(arguments: list[str]) -> int:
    asked = _parsed(arguments)
    code, output = run(asked.command)
    outcome, taken = judged(code, output)
    written = time.time() if taken is not None else None
    if outcome == SOUND and taken is not None:
        try:
            prune(taken.parent, asked.keep)
        except OSError as error:
            sys.stderr.write(
                f"{error.filename} cannot be removed: {error.strerror}; tonight's backup is sound, "
                "remove old ones by hand before the disk is full\n"
            )
            outcome, code = FAILED, 1
    try:
        tell(asked.tell, outcome, written)
    except OSError as error:
        sys.stderr.write(f"{asked.tell} cannot be written: {error.strerror}\n")
        return code or 1
    return code


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nightly.py", description="A backup, and room for it.")
    parser.add_argument("--keep", type=_at_least_one, required=True, help="how many stay")
    parser.add_argument("--tell", type=Path, required=True, metavar="FILE.prom")
    parser.add_argument("command", nargs="+", help="dicomnode backup TARGET ... --json")
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {count}")
    return count


def run(command: list[str]) -> tuple[int, str]:
    """The command's exit code, as a shell gives it, and what it printed.

    SIGTERM is passed on, so that a pod that is evicted still tells that its backup failed.
    """
    running: list[subprocess.Popen[str]] = []
    told: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        told.append(number)
        for process in running:
            process.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        return _NOT_STARTED, ""
    running.append(process)
    if told:  # while it was being started
        process.terminate()
    output, _ = process.communicate()
    sys.stdout.write(output)
    sys.stdout.flush()
    code = process.returncode
    return (code if code >= 0 else 128 - code), output


def judged(code: int, output: str) -> tuple[str, Path | None]:
    """The outcome, and the backup where one was written."""
    try:
        facts: Any = json.loads(output)
        taken = Path(facts["backup"])
    except (ValueError, TypeError, KeyError):
        if code == 0:
            sys.stderr.write("the backup printed no JSON; is --json among its options?\n")
        return FAILED, None
    if code == 0:
        return SOUND, taken
    damaged = bool(facts.get("missing") or facts.get("altered"))
    return (DAMAGED, taken) if damaged else (FAILED, None)


def prune(target: Path, keep: int) -> None:
    """Leave the newest. What has no manifest any more was being removed when it was interrupted."""
    dated = sorted(path for path in target.iterdir() if _NAME.fullmatch(path.name))
    whole = [path for path in dated if (path / _MANIFEST).is_file()]
    for path in set(dated) - set(whole[-keep:]):
        # first what makes it a backup: half of one must never be taken for one
        (path / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)


def tell(path: Path, outcome: str, written: float | None) -> None:
    success = written if written is not None else previous_success(path)
    lines = [
        f"# HELP {_RUN} When the last backup ended",
        f"# TYPE {_RUN} gauge",
        f"{_RUN} {time.time():.3f}",
        f"# HELP {_OUTCOME} 1 for what became of the last backup, else 0",
        f"# TYPE {_OUTCOME} gauge",
        *(
            f'{_OUTCOME}{{outcome="{name}"}} {int(name == outcome)}'
            for name in (SOUND, DAMAGED, FAILED)
        ),
    ]
    if success is not None:
        lines += [
            f"# HELP {_SUCCESS} When a backup was last written to its end",
            f"# TYPE {_SUCCESS} gauge",
            f"{_SUCCESS} {success:.3f}",
        ]
    # at once, so that the collector never reads half a file
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("\n".join(lines) + "\n")
    temporary.chmod(0o644)
    temporary.rename(path)


def previous_success(path: Path) -> float | None:
    """What the file said before this run."""
    try:
        found = re.search(rf"^{_SUCCESS} (\d+\.\d+)$", path.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return None
    return float(found.group(1)) if found else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
