"""`dicomnode doctor`: each thing that can be wrong is found and named, and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr

from dicomnode.cli import main
from dicomnode.config import (
    DestinationSettings,
    DimseSettings,
    ServingSettings,
    Settings,
    StorageSettings,
    WebSettings,
)
from dicomnode.doctor import Finding, Verdict, machine, models, peers, store
from dicomnode.doctor.examination import examine
from dicomnode.doctor.mounts import Mount, mount_of
from dicomnode.errors import StorageUnavailable
from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import receiving_pacs
from dicomnode.testing.saved_models import tiny_card
from dicomnode.testing.stores import opened_store
from tests.acceptance.node import free_ports

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL


def verdicts(findings: Iterator[Finding] | Sequence[Finding]) -> dict[str, Verdict]:
    told = list(findings)
    for finding in told:
        assert finding.found
        assert (finding.verdict is OK) or (finding.expected and finding.next_step)
    return {finding.check: finding.verdict for finding in told}


def only(findings: Iterator[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def storage(root: Path, url: str = "", **options: Any) -> Settings:
    options = {"minimum_free_bytes": 0} | options
    return Settings(storage=StorageSettings(root=root, database_url=SecretStr(url), **options))


# ---------------------------------------------------------------- store and database


def test_a_store_in_use_is_well_and_stays_as_it_is(tmp_path: Path, database_url: str) -> None:
    settings = storage(tmp_path / "var", database_url)
    with opened_store(tmp_path / "var", database_url=database_url):
        before = sorted(tmp_path.rglob("*"))
        found = verdicts([*store.store(settings), *store.database(settings)])
        assert [p for p in sorted(tmp_path.rglob("*")) if p.suffix not in (".sqlite3-shm",)] == [
            p for p in before if p.suffix not in (".sqlite3-shm",)
        ]
    durability = found.pop("database.durability", FAIL)  # the tests' server runs without fsync
    assert durability is FAIL
    assert set(found.values()) == {OK}
    assert "database.identity" in found


def test_a_store_that_was_never_started_is_not_made(tmp_path: Path) -> None:
    settings = storage(tmp_path / "var")
    found = verdicts([*store.store(settings), *store.database(settings)])
    assert (found["store.folder"], found["database"]) == (WARN, WARN)
    assert not (tmp_path / "var").exists()


def test_files_beside_another_database_are_a_failure(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with opened_store(tmp_path / name):
            pass
    for file in (tmp_path / "two").glob("dicomnode.sqlite3*"):
        shutil.copy(file, tmp_path / "one" / file.name)
    told = list(store.database(storage(tmp_path / "one")))
    assert told[-1].verdict is FAIL
    assert "belongs to another database" in told[-1].found


def test_a_database_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = storage(tmp_path, f"postgresql+psycopg://node:secret@127.0.0.1:{port}/dicomnode")
    found = only(store.database(settings), "database")
    assert found.verdict is FAIL
    assert "secret" not in repr(found)


def test_too_little_room_is_told_before_modalities_are_refused(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    for least, verdict in ((free // 4, OK), (free * 3 // 4, WARN), (free * 2, FAIL)):
        settings = storage(tmp_path, minimum_free_bytes=least)
        assert only(store.store(settings), "store.free").verdict is verdict


MOUNTINFO = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv rw,relatime - nfs4 10.0.0.1:/srv rw,vers=4.2,hard
31 30 0:41 / /srv/with\040space rw - nfs 10.0.0.1:/x rw,soft
32 22 0:42 / /mnt/ro ro,relatime - ext4 /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("path", "sqlite", "verdict"),
    [
        ("/var/lib/dicomnode", True, OK),
        ("/srv/store", True, FAIL),
        ("/srv/store", False, OK),
        ("/srv/with space/store", False, FAIL),
        ("/mnt/ro/store", False, FAIL),
    ],
)
def test_sqlite_over_a_network_and_soft_mounts_are_failures(
    path: str, sqlite: bool, verdict: Verdict
) -> None:
    mount = mount_of(Path(path), mountinfo=MOUNTINFO)
    assert mount is not None
    assert store.file_system(mount, sqlite=sqlite).verdict is verdict


@pytest.mark.parametrize(
    ("kind", "options", "verdict"),
    [
        ("nfs4", {"hard", "local_lock=all"}, WARN),
        ("tmpfs", {"rw"}, WARN),
        ("fuse.sshfs", {"rw"}, FAIL),
        ("cifs", {"rw"}, FAIL),
        ("xfs", {"rw"}, OK),
    ],
)
def test_other_file_systems(kind: str, options: set[str], verdict: Verdict) -> None:
    mount = Mount(point="/x", kind=kind, options=frozenset(options))
    assert store.file_system(mount, sqlite=not kind.startswith("nfs")).verdict is verdict


# ---------------------------------------------------------------- models


def serving(base: Path, targets: list[str]) -> Settings:
    return Settings(
        serving=ServingSettings(engine="external", targets=targets, model_base_path=base)
    )


def publish(base: Path, version: int, **changes: Any) -> None:
    card = json.loads(tiny_card("covid19", version).to_json()) | changes
    path = base / str(version) / "assets.extra" / "model_card.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(card))


def test_a_missing_card_and_one_that_this_program_does_not_understand(tmp_path: Path) -> None:
    settings = serving(tmp_path, ["127.0.0.1:1"])
    assert verdicts(models.cards(settings)) == {"model.card": FAIL}
    publish(tmp_path, 1)
    assert verdicts(models.cards(settings)) == {"model.card": OK}
    publish(tmp_path, 2, preprocess_profile="unit-rgb-512/9")
    assert verdicts(models.cards(settings)) == {"model.card": FAIL}


def test_each_model_server_is_asked_and_their_versions_compared(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    (nobody,) = free_ports(1)
    with FakeModelServer() as one, FakeModelServer() as two:
        settings = serving(tmp_path, [one.target, two.target])
        assert set(verdicts(models.servers(settings, node_runs=True)).values()) == {OK}
        two.version = 2
        found = verdicts(models.servers(settings, node_runs=True))
        assert found.pop("model.versions") is WARN
        one.version = 2  # and 1 is on disk
        assert verdicts(models.servers(settings, node_runs=True))["model.versions"] is WARN
        two.model_name = "another"
        found = verdicts(models.servers(settings, node_runs=True))
        assert found[f"model.server {two.target}"] is WARN  # the other one works
        alone = serving(tmp_path, [f"127.0.0.1:{nobody}"])
        (finding,) = models.servers(alone, node_runs=True)
        assert finding.verdict is FAIL
        assert grpc.StatusCode.UNAVAILABLE.name in finding.found


def test_a_headless_service_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    found = verdicts(
        models.servers(
            serving(tmp_path, ["dns:///inference-headless.invalid:8500"]), node_runs=True
        )
    )
    assert found == {"model.dns": FAIL}
    told = only(
        models.servers(serving(tmp_path, ["dns:///localhost:1"]), node_runs=True), "model.dns"
    )
    assert "addresses" in told.found


# ---------------------------------------------------------------- peers


def test_ports_are_free_or_somebody_holds_them() -> None:
    dimse, web = free_ports(2)
    settings = Settings(dimse=DimseSettings(port=dimse), web=WebSettings(port=web))
    assert peers.readiness(settings) is None
    assert verdicts(peers.node(settings, None)) == {"port.dimse": OK, "port.web": OK}
    with socket.create_server(("127.0.0.1", dimse)):
        found = verdicts(peers.node(settings, None))
    assert found == {"port.dimse": FAIL, "port.web": OK}


def test_the_running_nodes_own_opinion_is_told(http: Callable[..., int]) -> None:
    answer = {"ok": False, "checks": {"store": "ok", "model": "no backend serves 'covid19'"}}
    settings = Settings(web=WebSettings(port=http(503, json.dumps(answer))))
    told = peers.readiness(settings)
    finding = only(peers.node(settings, told), "node.ready")
    assert (finding.verdict, finding.found) == (FAIL, "model: no backend serves 'covid19'")
    assert verdicts(peers.node(settings, {"store": "ok"})) == {"node.ready": OK}
    assert peers.readiness(Settings(web=WebSettings(port=http(200, "[]")))) is None


def test_destinations_are_asked_as_a_delivery_would() -> None:
    with receiving_pacs() as pacs:
        pacs_port = pacs.port
        assert verdicts(peers.destinations(_to(pacs_port))) == {"destination pacs": OK}
    assert verdicts(peers.destinations(_to(pacs_port))) == {"destination pacs": FAIL}
    assert verdicts(peers.destinations(Settings())) == {"destinations": WARN}


def _to(port: int) -> Settings:
    pacs = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
    return Settings(destinations=[pacs])


@pytest.mark.parametrize(("status", "verdict"), [(200, OK), (401, FAIL), (404, WARN)])
def test_a_dicomweb_destination_is_asked_by_http(
    http: Callable[..., int], tmp_path: Path, status: int, verdict: Verdict
) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    settings = _web(http(status, '[{"00100010": "DOE^JOHN"}]'), secret)
    finding = only(peers.destinations(settings), "destination web")
    assert finding.verdict is verdict
    assert "DOE" not in repr(finding)
    assert "s3cret" not in repr(finding)
    assert verdicts(peers.destinations(_web(free_ports(1)[0], secret))) == {"destination web": FAIL}
    assert verdicts(peers.destinations(_web(1, tmp_path / "none"))) == {"destination web": FAIL}


def _web(port: int, secret: Path) -> Settings:
    return Settings(
        destinations=[
            DestinationSettings(
                name="web",
                kind="dicomweb",
                url=f"http://127.0.0.1:{port}/dicom-web",
                username="node",
                password_file=secret,
            )
        ]
    )


@pytest.fixture
def http() -> Iterator[Callable[..., int]]:
    """Starts a server that gives one answer to everything; its port."""
    servers: list[HTTPServer] = []

    def start(status: int, body: str) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# ---------------------------------------------------------------- machine


def test_a_clock_in_the_past_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board without a clock battery."""
    settings = storage(tmp_path)
    assert only(machine.machine(settings), "clock").verdict is OK
    (tmp_path / "store.json").write_text("{}")
    os.utime(tmp_path / "store.json", (4e9, 4e9))
    assert only(machine.machine(settings), "clock").verdict is FAIL
    (tmp_path / "store.json").unlink()
    monkeypatch.setattr(machine.time, "time", lambda: 1_000_000_000.0)
    assert only(machine.machine(settings), "clock").verdict is FAIL


def test_few_open_files_and_a_clock_that_nobody_keeps_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (128, 128))
    monkeypatch.setattr(machine, "clock_is_synchronised", lambda: False)
    found = verdicts(machine.machine(storage(tmp_path)))
    assert (found["open_files"], found["clock.synchronised"]) == (WARN, WARN)
    monkeypatch.setattr(machine, "clock_is_synchronised", lambda: None)
    assert "clock.synchronised" not in verdicts(machine.machine(storage(tmp_path)))


def test_every_transfer_syntax_is_decoded_or_has_a_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdicts(machine.decoders(storage(tmp_path))) == {"decoders": OK}
    monkeypatch.setattr(machine, "_has_decoder", lambda syntax: not syntax.endswith(".201"))
    monkeypatch.setattr(machine, "_decoded", lambda *_: "")
    finding = only(machine.decoders(storage(tmp_path)), "decoders")
    assert finding.verdict is FAIL
    assert "High-Throughput JPEG 2000" in finding.found


# ---------------------------------------------------------------- the command


def test_one_check_that_cannot_look_does_not_keep_the_others_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Settings) -> Iterator[Finding]:
        raise StorageUnavailable("the disk is away")
        yield

    monkeypatch.setattr(store, "store", broken)
    monkeypatch.setattr(machine, "decoders", lambda _: iter(()))
    found = {finding.check: finding for finding in examine(storage(tmp_path))}
    assert found["store"].verdict is FAIL
    assert "the disk is away" in found["store"].found
    assert "temporary" in found


def test_the_command_ends_with_1_only_on_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "decoders", lambda _: iter(()))
    publish(tmp_path / "models", 1)
    dimse, web = free_ports(2)
    with FakeModelServer() as server:
        config = tmp_path / "node.toml"
        config.write_text(
            f"[dimse]\nport = {dimse}\n[web]\nport = {web}\n[storage]\nminimum_free_bytes = 0\n"
            f'[serving]\nengine = "external"\ntargets = ["{server.target}"]\n'
            'model_base_path = "models"\n'
        )
        code, told = _doctor(capsys, config)
        assert (code, told["ok"]) == (0, True)
        assert {"warn", "ok"} == {finding["verdict"] for finding in told["findings"]}
        server.model_name = "another"
        code, told = _doctor(capsys, config)
        assert (code, told["ok"]) == (1, False)
    config.write_text("[dimse]\nprot = 1\n")
    code, told = _doctor(capsys, config)
    assert code == 1
    assert "did you mean dimse.port?" in told["findings"][0]["found"]


def _doctor(capsys: pytest.CaptureFixture[str], config: Path) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", "--config", str(config)])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)
