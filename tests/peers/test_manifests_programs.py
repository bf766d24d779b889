"""Commands, settings and figures of the manifests are ones that the programs know."""

from __future__ import annotations

import itertools
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
        if "--" in command:  # retrain_textfile.py FILE -- COMMAND, nightly.py ... -- COMMAND
            command = command[command.index("--") + 1 :]
        if command and command[0] in ("dicomnode", "trainer"):
            if command[1] != "model-server":  # its flags are parsed by `model_server` above
                assert understood(command), command
            seen.add(" ".join(command[:2]))
    assert seen == {
        "dicomnode serve",
        "dicomnode backup",
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


@pytest.mark.parametrize("variant", ["single-node with backup", "k3s-jetson with backup"])
def test_the_backup_has_a_folder_of_its_own_and_tells_how_it_went(variant: str) -> None:
    found = cluster(variant)
    template = found.template("backup")
    given = container(template)
    interpreter, script, *_ = given["command"]
    theirs = given["command"]
    ours = itertools.takewhile(lambda word: word != "--", theirs)
    asked = dict(word.removeprefix("--").split("=") for word in ours if word.startswith("--"))
    assert interpreter == "python3"
    assert Path(script).name in found.one("ConfigMap", "backup-nightly")["data"]
    assert int(asked["keep"]) > 1
    target, config = theirs[theirs.index("backup") + 1], theirs[theirs.index("--config") + 1]
    sources = {each["name"]: each for each in template.spec["volumes"]}
    mounts = {each["mountPath"]: each for each in given["volumeMounts"]}

    def claim(path: str) -> str:
        return str(sources[mounts[path]["name"]]["persistentVolumeClaim"]["claimName"])

    assert claim(target) == "backup"
    assert claim(str(Path(asked["tell"]).parent)) == "work", "which the exporter reads"
    assert claim("/var/lib/dicomnode") == "store"
    assert claim("/models") == "models"
    assert mounts["/models"]["readOnly"] is True
    assert mounts[str(Path(config).parent)]["readOnly"] is True
    # SQLite's readers write its locks; with PostgreSQL nothing of the store is written
    shared = "DICOMNODE_STORAGE__DATABASE_URL" in {each["name"] for each in given["env"]}
    assert mounts["/var/lib/dicomnode"].get("readOnly", False) is shared
    assert shared is bool(found.of("StatefulSet"))
    node = container(found.template("node"))
    assert (given["image"], template.spec["securityContext"]["runAsUser"]) == (
        node["image"],
        found.template("node").spec["securityContext"]["runAsUser"],
    )


@every_variant
def test_prometheus_finds_every_job_by_a_service_of_the_cluster(variant: str) -> None:
    found = cluster(variant)
    jobs = scrape_config("prometheus-kubernetes.yml")["scrape_configs"]
    looked_up = [look for job in jobs for look in job.get("dns_sd_configs", [])]
    assert len(looked_up) == 3
    for look in looked_up:
        (name,) = look["names"]
        service, _, domain = name.partition(".")
        assert domain == "dicomnode.svc.cluster.local.", "a shorter name leaves the cluster"
        spec = found.one("Service", service)["spec"]
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
