"""`dicomnode bench`: the form of what it prints and writes. How fast it is, the benchmark says."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from dicomnode.bench import plots, table
from dicomnode.bench.measured import Measured, speed_up
from dicomnode.bench.servers import simulated_servers
from dicomnode.cli import main
from dicomnode.config import ServingSettings
from dicomnode.errors import DicomnodeError
from dicomnode.serving import ServingClient


def run(capsys: pytest.CaptureFixture[str], *flags: str, **options: object) -> tuple[int, str, str]:
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with pytest.raises(SystemExit) as ended:
        main(["bench", *flags, *given])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def measured(backends: int, seconds: float) -> Measured:
    latencies = tuple(number / 100 for number in range(1, 101))
    return Measured(backends=backends, studies=100, seconds=seconds, latencies=latencies)


def test_throughput_and_latency_per_number_of_backends(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, told, notes = run(
        capsys,
        "--json",
        studies=24,
        concurrency=4,
        backends="1,2",
        service_milliseconds=5,
        out=out,
    )
    assert code == 0
    facts = json.loads(told)
    assert facts == json.loads((out / "bench.json").read_text())
    assert facts["simulated"]
    assert "SIMULATED" in facts["title"]
    assert [run["backends"] for run in facts["runs"]] == [1, 2]
    for each in facts["runs"]:
        assert each["per_second"] == pytest.approx(24 / each["seconds"], rel=0.01)
        assert sum(each["shares"]) == pytest.approx(1, abs=0.001)
        assert len(each["shares"]) == each["backends"]
        # one after the other at each server: no clock can make that faster
        assert each["seconds"] >= 24 * 0.005 / each["backends"]
    assert facts["runs"][0]["of_k_times_one"] == 1.0
    rows = (out / "bench.md").read_text().splitlines()[2:]
    assert [row.count("|") for row in rows] == [len(table.HEADER) + 1] * 4
    for name in ("throughput.png", "latency.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "throughput.png" in notes


def test_the_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = run(capsys, studies=4, concurrency=2, backends="1", service_milliseconds=0)
    assert code == 0
    assert "SIMULATED model servers, 0 ms" in told
    assert all(name in told for name in table.HEADER)


def test_a_whole_node_from_c_store_to_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = run(
        capsys,
        "--end-to-end",
        "--json",
        studies=3,
        concurrency=2,
        backends="1",
        service_milliseconds=1,
    )
    assert code == 0
    (each,) = json.loads(told)["runs"]
    assert each["studies"] == 3
    assert 0 < each["latency_seconds"]["p50"] <= each["latency_seconds"]["max"]


@pytest.mark.parametrize("backends", ["", "0", "1,x", "65", "1;2"])
def test_numbers_of_backends_that_are_none_end_with_2(
    capsys: pytest.CaptureFixture[str], backends: str
) -> None:
    code, _, told = run(capsys, backends=backends)
    assert (code, "--backends must be numbers" in told) == (2, True)


def test_without_matplotlib_the_table_is_there_and_the_reason_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'matplotlib'")

    monkeypatch.setattr(plots, "write_plots", missing)
    code, _, told = run(
        capsys,
        studies=2,
        concurrency=1,
        backends="1",
        service_milliseconds=0,
        out=tmp_path,
    )
    assert code == 0
    assert "no plots, matplotlib is not installed" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.md"]


def test_quantiles_and_the_share_of_k_times_one_are_what_arithmetic_says() -> None:
    one, four = measured(1, 10.0), measured(4, 2.5)
    assert (one.quantile(0.5), one.quantile(0.99), one.quantile(0.0)) == (0.5, 0.99, 0.01)
    assert speed_up([one, four], four) == 1.0
    assert speed_up([one, measured(4, 5.0)], measured(4, 5.0)) == 0.5
    assert speed_up([four], four) is None
    assert table.rows([four])[0][4] == "-"


def test_a_simulated_server_ends_with_whoever_started_it() -> None:
    with simulated_servers(1, service_seconds=0.0) as targets:
        client = ServingClient(ServingSettings(engine="external", targets=targets))
        assert client.ready()
        client.close()
        port = int(targets[0].rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_simulated_server_that_does_not_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with (
        pytest.raises(DicomnodeError, match="did not start"),
        simulated_servers(1, service_seconds=0.0),
    ):
        raise AssertionError("not reached")
