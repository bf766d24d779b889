"""What the node's recipe installs: how large it is, and that it runs as the image would.

The build stage of node.Dockerfile is executed, line by line, in folders of this machine; the node
that it makes then runs as uid 10001 on a read-only root without a home. Needs the package index
that pip is configured for, and root for the second half.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dicomnode.dimse import send_files
from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import receiving_pacs
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.acceptance.node import RunningNode, free_ports, until
from tests.cluster import image
from tests.conftest import ROOT, require_program
from tests.unit.test_dockerfiles import DOCKER, environment, stage

MEGABYTE = 1_000_000
LIMIT = 400 * MEGABYTE
USER = 10001


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for / after the build stage of node.Dockerfile."""
    root = tmp_path_factory.mktemp("image")
    (root / "src").mkdir()
    (root / "opt").mkdir()
    for instruction in stage(DOCKER / "node.Dockerfile", "build"):
        if instruction.name == "COPY":
            *sources, target = instruction.words
            for source in sources:
                _copy(ROOT / source, root / "src" / target)
        if instruction.name == "RUN":
            _run(instruction.value, root)
    return root


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _run(command: str, root: Path) -> None:
    """The command of a RUN, its absolute folders under `root`, with this Python."""
    command = re.sub(r"--mount=\S+ ", "", command)
    command = re.sub(r"(?<= )(?=/(build|opt|wheels)\b)", str(root), f" {command}").strip()
    python = getattr(sys, "_base_executable", sys.executable)
    command = re.sub(r"(?<!\S)python(?= )", shlex.quote(python), command)
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", command],
        cwd=root / "src",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PIP_NO_CACHE_DIR": "0"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


def test_the_node_image_installs_less_than_400_megabytes(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path for path in (installed / "opt" / "dicomnode").rglob("*") if path.is_file()]
    size = sum(path.lstat().st_size for path in files)
    byte_code = sum(path.lstat().st_size for path in files if path.suffix == ".pyc")
    with capsys.disabled():
        print(f"\nnode image: {size / MEGABYTE:.0f} MB, of it byte code {byte_code / MEGABYTE:.0f}")
    assert 100 * MEGABYTE < size < LIMIT


def test_the_node_image_holds_the_node_and_not_what_trains_or_builds(installed: Path) -> None:
    packages = next((installed / "opt" / "dicomnode" / "lib").glob("*/site-packages"))
    present = {path.name for path in packages.iterdir()}
    assert {"dicomnode", "pydicom", "psycopg"} <= present
    assert not {"tensorflow", "keras", "sklearn", "pip", "setuptools"} & present
    assert (packages / "dicomnode" / "__pycache__").is_dir()


class ReadOnlyNode(RunningNode):
    """The node of the image: its environment and user; it may write to its store and /tmp only."""

    def __init__(self, folder: Path, installed: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self._installed = installed

    def start(self) -> None:
        script = self.folder / "start"
        script.write_text(self._script())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(require_program("unshare"), "--mount", "--pid", "--fork"),
                    *("--kill-child=SIGKILL", "--propagation", "private"),
                    *("/bin/sh", "-eu", str(script)),
                ],
                stdout=log,
                stderr=log,
                env={},
            )
        until(self._listens, seconds=60, what="the node listens")

    def _script(self) -> str:
        root = self.folder / "root"
        store = self.folder / "var"
        for path in (root, store):
            path.mkdir(exist_ok=True)
        os.chown(store, USER, USER)
        lines = [f"mount -t tmpfs -o mode=755 root {root}"]
        lines += [f"ln -s {to} {root}{inside}" for inside, to in image.links().items()]
        places = {name: path for name, path in image.binds().items() if "/image/" not in name}
        places["/opt/dicomnode"] = self._installed / "opt" / "dicomnode"
        for inside, outside in places.items():
            lines += _bind(outside, root, inside, "ro")
        (self.folder / "etc").mkdir(exist_ok=True)
        shutil.copy(self.config, self.folder / "etc")
        shutil.copytree(self.folder / "models", self.folder / "etc" / "models", dirs_exist_ok=True)
        (self.folder / "etc" / "var").mkdir(exist_ok=True)
        lines += _bind(self.folder / "etc", root, "/etc/dicomnode", "ro")
        lines += [f"mount --bind {store} {root}/etc/dicomnode/var"]
        lines += [f"mkdir {root}/proc {root}/dev {root}/tmp", f"mount -t proc proc {root}/proc"]
        lines += [f"mount --rbind /dev {root}/dev"]
        # as compose.yaml has it
        lines += [f"mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmp {root}/tmp"]
        lines += [f"mount -o remount,ro,bind {root}"]
        # what is to be shown: nothing of the root can be written to, by root either
        for place in ("/", "/opt/dicomnode/", "/etc/dicomnode/"):
            lines += [f"if touch {root}{place}x 2>&1; then echo {place} is writable; exit 9; fi"]
        variables = environment(DOCKER / "node.Dockerfile")
        del variables["HOME"]
        variables["DICOMNODE_CONFIG"] = "/etc/dicomnode/node.toml"
        variables["DICOMNODE_LOG__FORMAT"] = "json"
        confined = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
        confined += ["--no-new-privs", "--bounding-set", "-all", "--inh-caps", "-all"]
        command = [require_program("chroot"), str(root), "/usr/bin/env", "-i"]
        command += [f"{name}={value}" for name, value in variables.items()]
        command += [*confined, "/opt/dicomnode/bin/python", "-m", "dicomnode", "serve"]
        lines.append(f"exec {shlex.join(command)}")
        return "\n".join(lines) + "\n"


def _bind(outside: Path, root: Path, inside: str, mode: str) -> list[str]:
    target = f"{root}{inside}"
    return [
        f"mkdir -p {target}",
        f"mount --bind {outside} {target}",
        f"mount -o remount,{mode},bind {target}",
    ]


def test_the_node_reports_as_another_user_on_a_read_only_root_without_a_home(
    installed: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting and changing the user need root")
    film = tmp_path / "film.dcm"
    film.write_bytes(part10_bytes(phantom_dataset(1, True, rows=320, columns=320)))
    folder = tmp_path / "node"
    folder.mkdir()
    with (
        receiving_pacs() as pacs,
        FakeModelServer() as model_server,
        ReadOnlyNode(folder, installed, targets=[model_server.target], pacs_port=pacs.port) as node,
    ):
        node.wait_ready()
        (sent,) = send_files(
            "127.0.0.1", node.port, [film], called_ae_title="DICOMNODE", calling_ae_title="XRAY1"
        )
        assert sent.status == 0x0000
        until(lambda: len(pacs.received) == 2, seconds=60, what="report and heatmap arrived")
        assert node.process is not None
        # of unshare, whose child the node is; in its own namespace it is process 1
        pid = _only_child(node.process.pid)
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
        assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in status
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        environ = {"HEALTH_URL": f"http://127.0.0.1:{node.web_port}/healthz"}
        assert _healthcheck(environ).returncode == 0
        os.kill(pid, signal.SIGTERM)
        assert node.process.wait(40) == 0
    assert "Traceback" not in node.log.read_text()


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


# Healthcheck and client -------------------------------------------------------------------


def _healthcheck(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(DOCKER / "healthcheck.py")]
    return subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=30, check=False
    )


@contextmanager
def answering(status: int, body: bytes = b"{}") -> Iterator[tuple[str, list[Any]]]:
    """An HTTP server on loopback: its address, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked.append((self.path, json.loads(self.rfile.read(length))))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Nothing: pytest's output is not the place."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (404, 1), (503, 1)])
def test_the_healthcheck_is_content_with_200_only(status: int, code: int) -> None:
    with answering(status) as (url, _):
        done = _healthcheck({"HEALTH_URL": f"{url}/healthz"})
    assert done.returncode == code
    assert (f"answered {status}, expected 200" in done.stderr) is (code == 1)


@pytest.mark.parametrize("url", ["", "http://10.0.0.1/", "file:///etc/passwd"])
def test_the_healthcheck_asks_its_own_container_only(url: str) -> None:
    done = _healthcheck({"HEALTH_URL": url})
    assert done.returncode == 1
    assert "HEALTH_URL must be" in done.stderr


def client(*arguments: str) -> subprocess.CompletedProcess[str]:
    """docker/client/client.py."""
    command = [sys.executable, str(DOCKER / "client" / "client.py"), *arguments]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_client_asks_the_rest_api_as_the_thesis_did(tmp_path: Path) -> None:
    film, text = tmp_path / "film.dcm", tmp_path / "notes.txt"
    film.write_bytes(part10_bytes(phantom_dataset(1, True, rows=320, columns=320)))
    text.write_text("not a film")
    with answering(200, b'{"predictions": [[0.25, 0.75]]}') as (url, asked):
        done = client("predict", url, str(text), str(film))
    assert done.returncode == 1, "one of the two could not be asked about"
    assert "cannot be decoded" in done.stderr
    assert json.loads(done.stdout) == {"file": str(film), "probabilities": [0.25, 0.75]}
    ((path, body),) = asked
    assert path == "/v1/models/covid19:predict"
    (instance,) = body["instances"]
    assert (len(instance), len(instance[0]), len(instance[0][0])) == (224, 224, 3)
    values = [value for row in instance for pixel in row for value in pixel]
    assert min(values) >= 0
    assert 0.2 < max(values) <= 1


def test_the_client_sends_and_asks_with_dcmtk(tmp_path: Path) -> None:
    for program in ("echoscu", "storescu"):
        require_program(program)
    dataset = phantom_dataset(1, True, rows=320, columns=320)
    (tmp_path / "film.dcm").write_bytes(part10_bytes(dataset))
    folder = tmp_path / "node"
    folder.mkdir()
    with (
        FakeModelServer() as server,
        RunningNode(folder, targets=[server.target], pacs_port=None) as node,
    ):
        peer = f"127.0.0.1:{node.port}"
        assert client("echo", peer).returncode == 0
        assert client("echo", peer, "--calling", "STRANGER").returncode != 0
        assert client("send", peer, str(tmp_path / "film.dcm")).returncode == 0
        metrics = node.get("/metrics")[1]
    assert 'outcome="stored"} 1.0' in metrics


@contextmanager
def pacs_of_compose(folder: Path) -> Iterator[tuple[str, str]]:
    """Debian's Orthanc with compose's settings, at ports of its own: DICOM and HTTP address."""
    program = require_program("Orthanc")
    port, http_port = free_ports(2)
    settings = json.loads((DOCKER / "compose" / "orthanc.json").read_text())
    settings |= {"DicomPort": port, "HttpPort": http_port, "RemoteAccessAllowed": False}
    settings |= {"StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db")}
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(path)], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{http_port}"
        until(lambda: _stored(url) is not None, seconds=30, what="Orthanc answers")
        yield f"127.0.0.1:{port}", url
    finally:
        process.terminate()
        process.wait(20)


def _stored(url: str) -> int | None:
    """How many instances Orthanc holds; None while it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/instances", timeout=10) as answer:
            return len(json.load(answer))
    except OSError:
        return None


def test_the_pacs_of_compose_takes_reports_from_the_node_and_films_from_nobody(
    tmp_path: Path,
) -> None:
    film = tmp_path / "film.dcm"
    dataset = phantom_dataset(1, True, rows=64, columns=64)
    film.write_bytes(part10_bytes(dataset))
    with pacs_of_compose(tmp_path) as (dicom, url):
        as_node = ("--called", "ORTHANC", "--calling", "DICOMNODE")
        assert client("send", dicom, str(film), "--called", "ORTHANC").returncode != 0
        assert _stored(url) == 0
        assert client("send", dicom, str(film), *as_node).returncode == 0
        assert _stored(url) == 1
        found = client("query", dicom, "--called", "ORTHANC", "-k", "StudyDate=")
        assert found.returncode == 0
        assert dataset.StudyInstanceUID in found.stdout + found.stderr
