"""Puts ImageNet weights into a folder, when the trainer's image is built.

    python fetch_weights.py --from FOLDER --to FOLDER NETWORK[:ALPHA]...

Files that lie under --from are taken; what is missing is downloaded by Keras. Either way Keras
compares each file with the checksum that it knows, and the network is built from it once.
Exit codes: 0 done, 1 a file could not be had, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Fetch ImageNet weights into a folder.")
    parser.add_argument("--from", dest="source", type=Path, help="a folder with .h5 files")
    parser.add_argument("--to", dest="home", type=Path, required=True, help="KERAS_HOME to fill")
    parser.add_argument("networks", nargs="*", metavar="NETWORK[:ALPHA]")
    told = parser.parse_args(arguments)
    models: Path = told.home / "models"
    models.mkdir(parents=True, exist_ok=True)
    os.environ["KERAS_HOME"] = str(told.home)  # Keras reads it when it is imported
    if told.source is not None:
        for file in sorted(told.source.glob("*.h5")):
            shutil.copyfile(file, models / file.name)
    from trainer.errors import WeightsError  # noqa: PLC0415 - after KERAS_HOME is set

    try:
        for network in told.networks:
            _say(f"{network}: {_build(network)} parameters")
    except (WeightsError, UnknownNetwork) as error:
        _say(f"{error}\nhere: --from a folder with the file, or leave the network out")
        return 2 if isinstance(error, UnknownNetwork) else 1
    for file in sorted(models.glob("*.h5")):
        file.chmod(0o444)
        _say(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
    return 0


class UnknownNetwork(Exception):
    """A name that the trainer does not know."""


def _build(network: str) -> int:
    from trainer.networks.catalogue import APPLICATIONS  # noqa: PLC0415 - as above
    from trainer.networks.weights import backbone  # noqa: PLC0415

    name, _, width = network.partition(":")
    if name not in APPLICATIONS:
        known = ", ".join(sorted(APPLICATIONS))
        raise UnknownNetwork(f"{name!r} has no ImageNet weights; known: {known}")
    side = int(APPLICATIONS[name].profile.partition("/")[0].rpartition("-")[2])
    alpha = float(width) if width else None
    return int(backbone(name, weights="imagenet", alpha=alpha, side=side).count_params())


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
