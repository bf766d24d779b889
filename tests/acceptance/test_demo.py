"""`dicomnode demo`: the whole loop with a network trained on the spot, and what it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.config import load
from dicomnode.modelcard import CARD_PATH, ModelCard
from tests.peers.validators import dciodvfy_errors, pixelmed_errors_of


def command(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dicomnode", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("demo")
    run = command("demo", "--out", str(folder))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "of 6 reports agree" in run.stdout
    return folder


def test_it_leaves_model_reports_heatmaps_and_settings(out: Path) -> None:
    version = out / "models" / "covid19" / "1"
    assert (version / "saved_model.pb").is_file()
    assert (version / "assets.extra" / "tf_serving_warmup_requests").is_file()
    card = ModelCard.from_json((version / CARD_PATH).read_text())
    assert (card.model_name, card.model_version) == ("covid19", 1)
    assert len(list((out / "reports").glob("*.dcm"))) == 6
    assert len(list((out / "heatmaps").glob("*.png"))) == 6
    assert load(out / "node.toml", environment={}).serving.engine == "embedded"


def test_its_reports_pass_both_validators_and_name_phantoms(out: Path) -> None:
    reports = sorted((out / "reports").glob("*.dcm"))
    for path in reports:
        assert dciodvfy_errors(path) == []
        assert str(dcmread(path).PatientName).startswith("PHANTOM")
    assert pixelmed_errors_of(reports) == {path: [] for path in reports}


def test_infer_with_the_embedded_engine_brings_its_own_model_server(out: Path) -> None:
    studies = sorted((out / "studies").glob("*.dcm"))[:2]
    settings = ["--config", str(out / "node.toml"), "--json"]
    run = command("infer", *map(str, studies), *settings)
    assert run.returncode == 0, run.stderr
    found = [json.loads(line)["images"][0] for line in run.stdout.splitlines()]
    assert [image["present"] for image in found] == [True, False]
    assert {image["model"]["version"] for image in found} == {1}


def test_it_runs_again_with_the_network_that_is_there(out: Path) -> None:
    before = (out / "models" / "covid19" / "1" / "saved_model.pb").stat().st_mtime_ns
    run = command("demo", "--out", str(out))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "trained already" in run.stdout
    assert (out / "models" / "covid19" / "1" / "saved_model.pb").stat().st_mtime_ns == before
