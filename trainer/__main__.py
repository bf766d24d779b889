"""`python -m trainer`."""

from __future__ import annotations

import os
import sys
import threading

from trainer.cli import main


def run() -> None:
    """`main`; a thread that still waits for a cluster's answer would abort the interpreter
    while that is taken down, so the process then ends without it."""
    try:
        main()
    except SystemExit as ended:
        if not any(thread.name.startswith(("watch-", "log-")) for thread in threading.enumerate()):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)


if __name__ == "__main__":
    run()
