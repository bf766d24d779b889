"""Starts a command where Keras finds the ImageNet weights that are baked into the image.

    python with_weights.py COMMAND [ARGUMENT...]

Keras takes weights only from a folder that it may write to: where it may not, it turns to
/tmp/.keras and downloads (keras/src/utils/file_utils.py, get_file). The image's folder is never
writable, so KERAS_HOME is a folder of the container's /tmp, filled with links to the files.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

BAKED = "/opt/keras"


def link(baked: Path, home: Path) -> int:
    """Link every baked file into `home`; what lies there already is left. Says how many."""
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    files = sorted((baked / "models").glob("*.h5"))
    for file in files:
        with contextlib.suppress(FileExistsError):
            (models / file.name).symlink_to(file)
    return len(files)


def main(arguments: list[str]) -> NoReturn:
    if not arguments:
        _refuse("with_weights.py needs the command to start")
    home = os.environ.get("KERAS_HOME", "")
    if not home:
        _refuse("KERAS_HOME is not set; the image sets it to a folder under /tmp")
    link(Path(os.environ.get("BAKED_KERAS_HOME", BAKED)), Path(home))
    os.execvp(arguments[0], arguments)  # noqa: S606 - no shell is the point


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(why + "\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
