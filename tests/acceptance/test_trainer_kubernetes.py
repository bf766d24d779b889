"""The `kubernetes` strategy, run as the Job's manifest says it.

Each worker is a process in its own network namespace with its own address; the names are those
that the Indexed Job and its headless Service would give; port, environment, mounts, user and
read-only file system are the manifest's. Nothing of the manifest is replaced but the image,
which is this interpreter and this repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomnode.testing.phantoms import write_training_folder
from tests.acceptance.node import until
from tests.cluster.job import Alone, Job
from tests.cluster.namespaces import require_namespaces
from tests.cluster.network import Network
from tests.cluster.pod import Volumes
from trainer import registry
from trainer.submit import Manifests, render
from trainer.submit.settings import parse

USER = 10001


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    require_namespaces()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "claim"
    for name in ("data", "models", "work"):
        (folder / name).mkdir(parents=True)
        os.chown(folder / name, USER, USER)
    return folder


def manifests(*, workers: int = 2, restarts: int = 3, **fit: object) -> Manifests:
    settings = parse(
        {
            "cluster": {
                "image": "registry:5000/trainer:1",
                "workers": workers,
                "restarts": restarts,
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
    return Job(rendered.job, runner=Alone(network, volumes, folder))


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
assert os.statvfs("/").f_flag & os.ST_RDONLY, "the root file system can be written to"
for path in ("/", "/etc/trainer", "/data", "/image/repository", "/usr"):
    try:
        (pathlib.Path(path) / "written").write_text("x")
    except OSError:
        continue
    sys.exit(f"{path} can be written to")
listener = socket.create_server(("0.0.0.0", 8470), backlog=8)
pathlib.Path("/work", str(index)).write_text("listens")
import time
end = time.monotonic() + 40
others = [other for other in range(workers) if other != index]
for other in others:
    short = f"{job}-{other}.{service}"
    for name in (short, f"{short}.{namespace}.svc.cluster.local"):
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
print("found", *sorted(addresses), flush=True)
# whoever ends leaves the Service: nobody may before all have looked
pathlib.Path("/work", f"found-{index}").write_text("")
while len(list(pathlib.Path("/work").glob("found-*"))) < workers:
    assert time.monotonic() < end, "the others do not get on"
    time.sleep(0.05)
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


TRAINING = {"network": "mobilenet", "alpha": 0.25, "epochs": 6, "batch_size": 5}


@pytest.fixture
def films(volume: Path) -> None:
    write_training_folder(volume / "data", 16, 1, 64)


@pytest.mark.usefixtures("films")
def test_two_workers_train_and_the_chief_publishes_the_first_version(tmp_path: Path, volume: Path):
    """
    Each ends with 0, which after every epoch asked the other for the same weights.
    """
    with Network(tmp_path / "net") as network:
        with started(manifests(**TRAINING), volume, network, tmp_path / "pods") as job:
            assert job.wait(200) == "Complete", job.said()
        assert job.failures == []
    base = volume / "models" / "covid19"
    assert registry.versions(base) == (1,)
    assert (base / "1" / "saved_model.pb").stat().st_uid == USER
    chief, other = job.pods[0].said(), job.pods[1].said()
    assert "computed 16" in chief, "half of the 32 films are the other's"
    assert "published" in chief
    assert "published" not in other, "the chief alone writes"


@pytest.mark.usefixtures("films")
def test_a_killed_worker_comes_back_under_its_name_and_the_run_goes_on(
    tmp_path: Path, volume: Path
):
    """
    Its new pod has another address. The chief cannot go on alone and starts again too; both
    continue from the checkpoint.
    """
    rendered = manifests(**TRAINING | {"epochs": 40})
    with (
        Network(tmp_path / "net") as network,
        started(rendered, volume, network, tmp_path / "pods") as job,
    ):
        first = job.pods[1]
        until(
            lambda: "epoch 2/40" in job.pods[0].said(),
            seconds=120,
            what=f"the second epoch in {job.pods[0].log}",
        )
        first.kill()
        assert job.wait(200) == "Complete", job.said()
        assert job.pods[1].address != first.address
        assert job.pods[1].host_name == first.host_name == "run-1"
    assert sorted(job.failures) == [(0, 75), (1, 137)]
    assert "resumed" in job.pods[0].said()
    assert registry.versions(volume / "models" / "covid19") == (1,)


@pytest.mark.parametrize("code", [1, 2, 3])
def test_what_no_other_try_would_change_ends_the_job_at_once(
    tmp_path: Path, volume: Path, code: int
):
    rendered = with_program(manifests(), f"import sys; sys.exit({code})")
    with (
        Network(tmp_path / "net") as network,
        started(rendered, volume, network, tmp_path / "pods") as job,
    ):
        assert job.wait(30) == "PodFailurePolicy"
        assert len(job.every_pod) == 2


def test_workers_that_cannot_go_on_are_given_up_after_the_restarts_of_the_manifest(
    tmp_path: Path, volume: Path
):
    rendered = with_program(manifests(restarts=1), "import sys; sys.exit(75)")
    with (
        Network(tmp_path / "net") as network,
        started(rendered, volume, network, tmp_path / "pods") as job,
    ):
        assert job.wait(30) == "BackoffLimitExceeded"
        assert len(job.failures) == 3, "twice both, and the third failure is one too many"
