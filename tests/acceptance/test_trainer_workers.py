"""Two workers: the same network as one, and a worker that is killed costs an epoch at most."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dicomnode.testing.phantoms import write_training_folder
from trainer import registry

tf = pytest.importorskip("tensorflow")

EPOCHS = 40
WEIGHTS = "mobilenet_v1_0.75_224_notop_imagenet.h5"


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """What all runs have in common, as a card."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_training_folder(folder / "data", 16, 1, 64)
    path = folder / "card.toml"
    path.write_text(
        "[fit]\n"
        f'data = "{folder / "data"}"\n'
        f'weights = "{shared_data / "weights" / WEIGHTS}"\n'
        f'network = "mobilenet"\nhead = "thesis"\nepochs = {EPOCHS}\nbatch_size = 5\n'
    )
    return path


def command(card: Path, base: Path, *options: str) -> list[str]:
    told = ("--config", str(card), "--out", str(base), "--progress", "json")
    return [sys.executable, "-m", "trainer", "fit", *told, *options]


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def events(
    process: subprocess.Popen[str], on_event: Callable[[dict[str, Any]], None] = lambda _: None
) -> Iterator[dict[str, Any]]:
    for line in process.stdout or ():
        event = json.loads(line)
        on_event(event)
        yield event


def once(event: str, do: Callable[[], None], **facts: Any) -> Callable[[dict[str, Any]], None]:
    """Do something when an event is first told."""
    done: list[bool] = []

    def hear(told: dict[str, Any]) -> None:
        if not done and told["event"] == event and facts.items() <= told.items():
            done.append(True)
            do()

    return hear


def workers_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """In the order of their index."""

    def index(worker: psutil.Process) -> int:
        return int(json.loads(worker.environ()["TF_CONFIG"])["task"]["index"])

    return sorted(psutil.Process(launcher.pid).children(), key=index)


def weights(base: Path) -> list[np.ndarray]:
    reader = tf.train.load_checkpoint(str(base / "1" / "variables" / "variables"))
    names = sorted(
        name for name in reader.get_variable_to_shape_map() if "network_variables" in name
    )
    return [reader.get_tensor(name) for name in names]


def epochs_of(told: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {event["epoch"]: event for event in told if event["event"] == "epoch"}


@pytest.fixture(scope="module")
def alone(card: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The undisturbed run of one process."""
    base = tmp_path_factory.mktemp("alone") / "covid19"
    done = subprocess.run(
        command(card, base), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return base, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_killed_worker_leads_to_the_network_that_one_undisturbed_process_trains(
    card: Path, tmp_path: Path, alone: tuple[Path, list[Any]]
):
    base = tmp_path / "covid19"
    with start(command(card, base, "--workers", "2")) as launcher:

        def kill() -> None:
            workers_of(launcher)[1].kill()

        told = list(events(launcher, once("epoch", kill, epoch=f"4/{EPOCHS}")))
        assert launcher.stderr is not None
        errors = launcher.stderr.read()
    assert launcher.returncode == 0, errors

    names = [event["event"] for event in told]
    assert names.count("restarting") == names.count("resumed") == names.count("published") == 1
    assert told[names.index("restarting")]["lost_workers"] == [1]
    resumed = int(told[names.index("resumed")]["epoch"].split("/")[0])
    assert 4 <= resumed < EPOCHS
    assert names.count("epoch") in (EPOCHS, EPOCHS + 1), "no epoch but the broken one is repeated"
    assert told[names.index("resumed") - 1]["computed"] == 0, "features are not computed again"

    expected = epochs_of(alone[1])
    for number, epoch in epochs_of(told).items():
        assert epoch["loss"] == pytest.approx(expected[number]["loss"], abs=3e-4)
        assert epoch["validation_loss"] == pytest.approx(
            expected[number]["validation_loss"], abs=3e-4
        )
    for ours, theirs in zip(weights(base), weights(alone[0]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    figures, undisturbed = (registry.read_card(path, 1).metrics for path in (base, alone[0]))
    assert figures["confusion"] == undisturbed["confusion"]
    assert figures["auc"]["value"] == undisturbed["auc"]["value"]
    assert registry.versions(base) == (1,)
    assert not list((base / ".work" / "checkpoints").iterdir()), "a published run needs none"


def test_the_others_end_with_one_clear_error_when_a_worker_is_killed(card: Path, tmp_path: Path):
    """Without a launcher, as in a cluster: the job's controller starts all again."""
    base = tmp_path / "covid19"
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]

    def worker(index: int) -> subprocess.Popen[str]:
        config = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(config)}
        arguments = command(card, base, "--strategy", "direct", "--epochs", "100000")
        return start(arguments, env=environment)

    with worker(0) as chief, worker(1) as second:
        told = list(events(chief, once("epoch", second.kill, epoch="2/100000")))
        assert chief.stderr is not None
        lines = chief.stderr.read().splitlines()
    assert chief.returncode == 75
    assert lines[-1].startswith("peer_lost: worker 1 (127.0.0.1:")
    assert "start all workers again" in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert "published" not in {event["event"] for event in told}
    assert registry.versions(base) == ()
    assert list((base / ".work" / "checkpoints").glob("[!.]*.npz")), "the next start needs it"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_no_worker_is_left_when_the_launcher_is_gone(card: Path, tmp_path: Path, how):
    base = tmp_path / "covid19"
    with start(command(card, base, "--workers", "2", "--epochs", "100000")) as launcher:
        assert launcher.stdout is not None
        while next(events(launcher))["event"] != "films":
            pass
        workers = workers_of(launcher)
        launcher.send_signal(how)
        # somebody still reads, or they would end because of that
        reader = threading.Thread(target=launcher.stdout.read, daemon=True)
        reader.start()
        gone, alive = psutil.wait_procs(workers, timeout=60)
        for worker in alive:
            worker.kill()
        reader.join()
    assert len(gone) == 2
