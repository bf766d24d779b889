"""Commands, settings and figures of the manifests are ones that the programs know."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from dicomnode.cli.app import app as node_app
from tests.peers.manifests import cluster, container, every_container
from tests.peers.test_manifests_references import every_variant, model_server, node_settings
from tests.unit.monitoring import scrape_config
from trainer.cli.app import app as trainer_app
from trainer.retrain import settings as retraining
from trainer.submit.settings import parse as parse_submit


def understood(command: list[str]) -> bool:
    """Whether the real command line takes it; nothing runs."""
    program, *arguments = command
    app = {"dicomnode": node_app, "trainer": trainer_app}[program]
    group: Any = typer.main.get_command(app)
    sub = group.commands[arguments[0]]
    sub.make_context(arguments[0], list(arguments[1:])).close()
    return True


def test_every_command_of_ours_is_one_that_the_program_takes() -> None:
    seen = set()
    for _, _, given in every_container():
        command = list(given.get("command", []))
        if "--" in command:  # retrain_textfile.py FILE -- COMMAND
            command = command[command.index("--") + 1 :]
        if command and command[0] in ("dicomnode", "trainer"):
            if command[1] != "model-server":  # its flags are parsed by `model_server` above
                assert understood(command), command
            seen.add(" ".join(command[:2]))
    assert seen == {
        "dicomnode serve",
        "dicomnode model-server",
        "trainer retrain",
        "trainer submit",
        "trainer fit",
    }


@every_variant
def test_the_retraining_tells_how_it_went_where_node_exporter_looks(variant: str) -> None:
    found = cluster(variant)
    command = container(found.template("retrain"))["command"]
    script, written = Path(command[1]), Path(command[2])
    assert command[0] == "python3"
    assert script.name in found.one("ConfigMap", "retrain-textfile")["data"]
    exporter = container(found.template("exporter"))
    assert f"--collector.textfile.directory={written.parent}" in exporter["args"]
    for name in ("retrain", "exporter"):
        template = found.template(name)
        mounts = {each["mountPath"]: each["name"] for each in container(template)["volumeMounts"]}
        volume = mounts[str(written.parent)]
        (source,) = [each for each in template.spec["volumes"] if each["name"] == volume]
        assert source["persistentVolumeClaim"]["claimName"] == "work"


@every_variant
def test_prometheus_finds_every_job_by_a_service_of_the_cluster(variant: str) -> None:
    found = cluster(variant)
    jobs = scrape_config("prometheus-kubernetes.yml")["scrape_configs"]
    looked_up = [look for job in jobs for look in job.get("dns_sd_configs", [])]
    assert len(looked_up) == 3
    for look in looked_up:
        (name,) = look["names"]
        spec = found.one("Service", name)["spec"]
        assert spec["clusterIP"] == "None"
        (template,) = found.selected({"matchLabels": spec["selector"]})
        assert look["port"] in template.ports.values()


@every_variant
def test_the_retraining_reads_its_settings(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cluster(variant)
    template = found.template("retrain")
    mounts = {mount["mountPath"] for mount in container(template)["volumeMounts"]}
    if template.component == "submit":
        text = found.one("ConfigMap", "submit-config")["data"]["submit.toml"]
        submitted = parse_submit(tomllib.loads(text), "submit.toml")
        assert submitted.run.command == "retrain"
        assert submitted.cluster.service_account == "trainer"
        claims = {claim.claim for claim in submitted.cluster.claims}
        assert claims <= {each["metadata"]["name"] for each in found.of("PersistentVolumeClaim")}
        (copied,) = template.spec["initContainers"]
        assert submitted.run.tables["data"]["node"] == copied["command"][-1]
        return
    text = found.one("ConfigMap", "retrain-config")["data"]["retrain.toml"]
    tables = tomllib.loads(text)
    assert tables["data"]["node"] == "/etc/dicomnode/node.toml"
    node_settings(found, tmp_path)
    path = tmp_path / "retrain.toml"
    path.write_text(text.replace("/etc/dicomnode/node.toml", str(tmp_path / "node.toml")))
    settings = retraining.load(path)
    served = model_server(found)
    assert settings.fit.out == served.model_base_path
    assert settings.storage is not None
    assert str(settings.storage.root) in mounts
    for written in (settings.fit.out.parent, settings.run.runs.parent):
        assert str(written) in mounts
