"""What stands in for each container image.

Ours are this interpreter, its packages and this repository, bound to places of their own
(`/image/...`), read-only, because a pod's mounts may cover the paths at which they lie on this
machine. Those of others are Debian's packages of the same program, with what the image's
entry point would do; what Debian does not have is listed with the reason.
"""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.supported import Unsupported
from tests.conftest import ROOT, require_program

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "sys")
ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "localtime", "ssl", "alternatives")
"""Of /etc; the rest would tell of this machine."""
PYTHON = "/image/venv/bin/python"
PATH = "/image/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Image:
    """A container image as far as a pod sees it."""

    entrypoint: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    """Scripts on its PATH, beside ours."""
    users: dict[str, int] = field(default_factory=dict)
    """Names in its /etc/passwd, and first there."""
    stop_signal: signal.Signals = signal.SIGTERM
    needs: tuple[str, ...] = ()
    """Programs of this machine."""


_OURS = {"dicomnode": 10001}
_POSTGRES = """#!/bin/sh
set -eu
# what the official image's entry point does with these variables, at the first start
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    eval "initdb --pgdata=$PGDATA --username=$POSTGRES_USER \\
        --pwfile=$POSTGRES_PASSWORD_FILE ${POSTGRES_INITDB_ARGS:-}"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE \\"$POSTGRES_DB\\";" | postgres --single -j -D "$PGDATA" postgres
fi
exec postgres -c 'listen_addresses=*' "$@"
"""


def _postgres_programs() -> str:
    """Debian keeps them in a folder per version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return str(folders[-1]) if folders else "/usr/lib/postgresql/bin"


IMAGES = {
    "node": Image(entrypoint=("dicomnode",), users=_OURS),
    "model-server": Image(entrypoint=("dicomnode", "model-server"), users=_OURS),
    "trainer": Image(entrypoint=("trainer",), users=_OURS),
    "prometheus": Image(entrypoint=("prometheus",), needs=("prometheus",)),
    "node-exporter": Image(
        entrypoint=("prometheus-node-exporter",), needs=("prometheus-node-exporter",)
    ),
    "postgres": Image(
        entrypoint=("docker-entrypoint",),
        environment={
            "PATH": f"/image/bin:{_postgres_programs()}:/usr/bin:/bin",
            "LANG": "C.UTF-8",  # the image's is en_US.utf8: the database's encoding follows
        },
        programs={"docker-entrypoint": _POSTGRES},
        users={"postgres": 999},
        stop_signal=signal.SIGINT,
        needs=("postgres",),
    ),
}
"""By the last part of the image's name."""

ABSENT = {
    "grafana": "Debian has no Grafana",
    "jupyter": "it is not installed here, and no replica is asked for on boards",
    "gpu-check": "there is no GPU",
}


def short(reference: str) -> str:
    """`node` of `registry:5000/dicomnode/node:0.1.0`."""
    return reference.rpartition("/")[2].partition("@")[0].partition(":")[0]


def find(reference: str) -> Image:
    """What stands in for an image."""
    name = short(reference)
    if name not in IMAGES:
        reason = ABSENT.get(name, f"known images: {', '.join(sorted(IMAGES))}")
        raise Unsupported(f"nothing stands in for the image {reference}: {reason}")
    return IMAGES[name]


def require_programs(image: Image) -> None:
    """Skip the test where a Debian package is missing."""
    for program in image.needs:
        folders = f"{_postgres_programs()}:/usr/sbin:/usr/bin:/sbin:/bin"
        require_program(program, path=folders)


def binds() -> dict[str, Path]:
    """Path in the container -> path here."""
    found = {
        "/image/repository": ROOT,
        "/image/venv": Path(sys.prefix),
        sys.base_prefix: Path(sys.base_prefix),  # where the venv's interpreter points to
    }
    for name in SYSTEM:
        path = Path("/", name)
        if path.is_dir() and not path.is_symlink():
            found[str(path)] = path
    return {inside: outside for inside, outside in found.items() if not _covered(inside)}


def links() -> dict[str, str]:
    """Symbolic links at the top, such as /bin -> usr/bin."""
    paths = [Path("/", name) for name in SYSTEM]
    return {str(path): str(path.readlink()) for path in paths if path.is_symlink()}


def environment(image: Image) -> dict[str, str]:
    """The ENV lines of the image."""
    ours = {"PATH": PATH, "PYTHONPATH": "/image/repository", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**ours, **image.environment}


def write_programs(image: Image, folder: Path) -> None:
    """The commands that the image has on its PATH, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {
        name: f'#!/bin/sh\nexec {shlex.quote(PYTHON)} -m {name} "$@"\n'
        for name in ("trainer", "dicomnode")
    }
    python = f'#!/bin/sh\nexec {shlex.quote(PYTHON)} "$@"\n'
    for name, script in {**scripts, "python3": python, **image.programs}.items():
        path = folder / name
        path.write_text(script)
        path.chmod(0o755)


def passwd(image: Image) -> str:
    """The image's users before those of this machine: the first of a number counts."""
    own = [
        f"{name}:x:{number}:{number}::/tmp:/sbin/nologin" for name, number in image.users.items()
    ]
    return "\n".join([*own, Path("/etc/passwd").read_text()])


def _covered(inside: str) -> bool:
    """Below /usr and the like it is there already."""
    return any(inside.startswith(f"/{name}/") for name in SYSTEM)
