"""The `kubernetes` strategy, run as the Job's manifest says it.

Each worker is a process in its own network namespace with its own address; the names are those
that the Indexed Job and its headless Service would give; port, environment, mounts, user and
read-only file system are the manifest's. Nothing of the manifest is replaced but the image,
which is this interpreter and this repository.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.job import Job
from tests.cluster.network import Network
from tests.cluster.pod import Volumes
from trainer.submit import Manifests, render
from trainer.submit.settings import parse

USER = 10001


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    """Network namespaces need root; with CI=true they are due where they can be had."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no network namespaces here: {tried.stderr.decode().strip()}")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "claim"
    for name in ("data", "models", "work"):
        (folder / name).mkdir(parents=True)
        os.chown(folder / name, USER, USER)
    return folder


def manifests(workers: int = 2, **fit: object) -> Manifests:
    settings = parse(
        {
            "cluster": {
                "image": "registry:5000/trainer:1",
                "workers": workers,
                "user": USER,
                "claims": [
                    {"claim": "all", "mount": "/data", "sub_path": "data", "read_only": True},
                    {"claim": "all", "mount": "/models", "sub_path": "models"},
                    {"claim": "all", "mount": "/work", "sub_path": "work"},
                ],
            },
            "fit": {"data": "/data", "out": "/models/covid19", "work": "/work", **fit},
        },
        "test.toml",
    )
    return render(settings, "run")


def started(rendered: Manifests, volume: Path, network: Network, folder: Path) -> Job:
    volumes = Volumes(
        claims={"all": volume}, config_maps={rendered.name: rendered.config_map["data"]}
    )
    return Job(rendered.job, network=network, volumes=volumes, folder=folder)


def with_program(rendered: Manifests, program: str) -> Manifests:
    """The same pods with another command."""
    (container,) = rendered.job["spec"]["template"]["spec"]["containers"]
    container["command"] = ["python3", "-c", program]
    return rendered


LOOK = """
import os, pathlib, socket, sys
index, workers = int(os.environ["JOB_COMPLETION_INDEX"]), int(os.environ["DICOMNODE_WORKERS"])
job, service = os.environ["DICOMNODE_JOB_NAME"], os.environ["DICOMNODE_SERVICE"]
namespace = os.environ["DICOMNODE_NAMESPACE"]
assert socket.gethostname() == f"{job}-{index}", socket.gethostname()
assert (os.getuid(), os.getgid(), os.getgroups()) == (10001, 10001, [10001])
assert not os.listdir("/tmp") and os.access("/tmp", os.W_OK)
assert pathlib.Path("/etc/trainer/fit.toml").read_text().startswith("[fit]")
for path in ("/", "/etc/trainer", "/data", "/image/repository", "/usr"):
    try:
        (pathlib.Path(path) / "written").write_text("x")
    except OSError:
        continue
    sys.exit(f"{path} can be written to")
listener = socket.create_server(("0.0.0.0", 8470), backlog=8)
pathlib.Path("/work", str(index)).write_text("listens")
import time
end = time.monotonic() + 20
others = [other for other in range(workers) if other != index]
for other in others:
    for name in (f"{job}-{other}.{service}", f"{job}-{other}.{service}.{namespace}.svc.cluster.local"):
        while True:
            try:
                socket.create_connection((name, 8470), timeout=2).close()
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
for _ in range(2 * len(others)):
    listener.accept()
addresses = {entry[4][0] for entry in socket.getaddrinfo(service, 8470)}
assert len(addresses) == workers, addresses
print("found", *sorted(addresses))
"""


def test_the_workers_are_where_the_manifest_says_they_are(tmp_path: Path, volume: Path):
    """
    Names resolve, shortly and in full; the port is reached; user, mounts, environment and the
    read-only file system are those of the manifest.
    """
    rendered = with_program(manifests(workers=3), LOOK)
    with Network(tmp_path / "net") as network:
        with started(rendered, volume, network, tmp_path / "pods") as job:
            assert job.wait(60) == "Complete", job.said()
        assert all("found 10.77.0.2 10.77.0.3 10.77.0.4" in pod.said() for pod in job.every_pod)
