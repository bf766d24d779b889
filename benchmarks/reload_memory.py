"""Does the model server's memory stay flat over many reloads?

    python benchmarks/reload_memory.py [--reloads 50] [--ballast 20000000]

Publishes version after version with a weight of `--ballast` bytes, answers a request from
each, and prints the resident memory every fifth reload. Expected: within 10 % of the
value after the fifth.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import psutil

from dicomnode import logs
from dicomnode.modelserver.main import ModelServer
from dicomnode.modelserver.options import Options
from dicomnode.testing.saved_models import write_tiny_version
from dicomnode.wire import methods, tensors
from dicomnode.wire.generated import serving_pb2 as pb


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--ballast", type=int, default=20_000_000)
    options = parser.parse_args(argv)
    logs.configure(level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        return _reload(Path(folder), options.reloads, options.ballast)


def _reload(folder: Path, reloads: int, ballast: int) -> int:
    exported = write_tiny_version(folder / "exported", 1, ballast_bytes=ballast)
    base = folder / "covid19"
    base.mkdir()
    process, settled, most = psutil.Process(), 0.0, 0.0
    server = ModelServer(
        Options(
            model_name="covid19", model_base_path=base, port=0, file_system_poll_wait_seconds=0.0
        )
    )
    with server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        manager = server.models.get("covid19")
        assert manager is not None
        for number in range(1, reloads + 1):
            shutil.copytree(exported, base / ".staging")
            (base / ".staging").rename(base / str(number))
            manager.poll()
            assert _answering_version(channel) == number
            shutil.rmtree(base / str(number - 1), ignore_errors=True)
            resident = process.memory_info().rss / 1e6
            if number == 5:
                settled = resident
            if number > 5:
                most = max(most, resident)
            if number % 5 == 0:
                print(f"reload {number:3d}: {resident:7.1f} MB")
    print(f"most after the fifth: {most:.1f} MB, {most / settled - 1:+.1%} of the fifth")
    return 0 if most <= settled * 1.1 else 1


def _answering_version(channel: grpc.Channel) -> int:
    request = pb.PredictRequest()
    request.model_spec.name = "covid19"
    request.model_spec.signature_name = "explain"
    request.inputs["image"].CopyFrom(tensors.to_proto(np.zeros((1, 224, 224, 3), np.uint8)))
    call = channel.unary_unary(
        methods.PREDICT.path,
        request_serializer=pb.PredictRequest.SerializeToString,
        response_deserializer=pb.PredictResponse.FromString,
    )
    return int(call(request, timeout=30).model_spec.version.value)


if __name__ == "__main__":
    sys.exit(main())
