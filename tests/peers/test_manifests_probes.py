"""The readiness probe of the manifests, asked of the real model server while a version loads."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

from dicomnode.modelserver.main import ModelServer
from dicomnode.modelserver.options import Options
from tests.acceptance.node import until
from tests.peers.manifests import cluster, container
from tests.peers.test_manifests_balancing import NAME, Mean


def asked(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_pod_is_ready_when_a_version_is_available_and_not_before(tmp_path: Path) -> None:
    """
    The bare status answers 200 while the version still loads, as TensorFlow Serving's does:
    a probe on it would send requests to a server that cannot answer them.
    """
    probe = container(cluster("single-node").template("inference"))["readinessProbe"]["httpGet"]
    base = tmp_path / NAME
    base.mkdir()
    may_load = threading.Event()

    def load(path: Path) -> Mean:
        assert may_load.wait(30)
        return Mean()

    options = Options(model_name=NAME, model_base_path=base, port=0, rest_api_port=0)
    with ModelServer(options, load=load) as server:
        assert server.rest_port is not None
        port, path = server.rest_port, probe["path"]
        assert asked(port, path)[0] == 404  # nothing is published yet
        (base / "1").mkdir()
        (base / "1" / "saved_model.pb").touch()
        status = f"/v1/models/{NAME}"
        until(lambda: asked(port, status)[0] == 200, seconds=30, what="the version is known")
        (version,) = json.loads(asked(port, status)[1])["model_version_status"]
        assert version["state"] != "AVAILABLE"
        assert asked(port, path)[0] == 404
        may_load.set()
        until(lambda: asked(port, path)[0] == 200, seconds=30, what="ready")
        (version,) = json.loads(asked(port, status)[1])["model_version_status"]
        assert version["state"] == "AVAILABLE"
        (base / "1").rename(tmp_path / "withdrawn")
        until(lambda: asked(port, path)[0] == 404, seconds=30, what="withdrawn, and not ready")
