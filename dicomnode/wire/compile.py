"""Compile `serving.proto` into `generated/`: `python -m dicomnode.wire.compile`.

Needs grpcio-tools of the `dev` extra. Its version decides which protobuf runtimes can
load the result (a runtime loads code of its own major version and the one before), so
the extra is pinned to one whose code protobuf 6.31 and 7 both load.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PROTO = Path(__file__).with_name("serving.proto")
GENERATED = PROTO.parent / "generated" / "serving_pb2.py"
_IMPORT_NAME = "dicomnode/wire/serving.proto"


def compile_proto(folder: Path) -> Path:
    """Write `serving_pb2.py` below `folder`. Raises `CalledProcessError` with protoc's words."""
    root = PROTO.parents[2]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"--python_out={folder}"]
    subprocess.run([*command, _IMPORT_NAME], check=True, cwd=root)
    return folder / "dicomnode" / "wire" / "serving_pb2.py"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        GENERATED.write_bytes(compile_proto(Path(folder)).read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
