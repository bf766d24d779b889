"""The manual explains every alert, and the rules' own tests see each one fire."""

from __future__ import annotations

import re
from typing import Any

import typer

from dicomnode.cli.app import app
from tests.conftest import ROOT
from tests.unit import monitoring
from tests.unit.monitoring import MONITORING

MANUAL = ROOT / "docs" / "operations" / "monitoring.md"


def test_every_alert_says_what_it_means_and_where_to_read_on() -> None:
    headings = re.findall(r"^#+ (.+)$", MANUAL.read_text(), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    for alert in monitoring.alerts():
        told = alert["annotations"]
        assert set(told) == {"summary", "description", "runbook"}, alert["alert"]
        path, _, anchor = told["runbook"].partition("#")
        assert ROOT / path == MANUAL
        assert anchor == alert["alert"].lower()
        assert anchor in anchors


def test_the_manual_lists_every_alert_with_its_severity_and_patience() -> None:
    row = re.compile(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \| ([\w ]+) \|$", re.MULTILINE)
    listed = {
        name: (severity, after) for name, _, severity, after in row.findall(MANUAL.read_text())
    }
    assert listed == {
        alert["alert"]: (alert["labels"]["severity"], alert.get("for", "at once"))
        for alert in monitoring.alerts()
    }
    assert {severity for severity, _ in listed.values()} == {"critical", "warning", "info"}


def test_every_alert_is_seen_to_fire_in_the_rules_own_tests() -> None:
    text = "\n".join(path.read_text() for path in (MONITORING / "rules" / "tests").glob("*.yml"))
    for alert in monitoring.alerts():
        name = re.escape(alert["alert"])
        assert re.search(rf'labels: ALERTS{{alertname="{name}", alertstate="firing"', text), name


def commands(command: Any, name: str = "") -> list[str]:
    """`queue list` and its like: every command below a group."""
    children: dict[str, Any] | None = getattr(command, "commands", None)
    if children is None:
        return [name]
    return [
        found
        for sub, child in children.items()
        for found in commands(child, f"{name} {sub}".strip())
    ]


def test_commands_in_the_manual_and_in_alerts_exist() -> None:
    from trainer.cli.app import app as trainer_app

    text = MANUAL.read_text() + str(monitoring.alerts())
    for program, application in (("dicomnode", app), ("trainer", trainer_app)):
        names = commands(typer.main.get_command(application))
        assert len(names) > 3, f"the commands of {program} were not found"
        told = re.findall(rf"(?:`|^    |\n    ){program} ([a-z-]+(?: [a-z-]+)*)", text)
        assert told
        for said in told:
            known = any(f"{said} ".startswith(f"{name} ") for name in names)
            assert known, f"{program} {said}"


def test_links_of_the_manual_lead_somewhere() -> None:
    manual = MANUAL.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", manual):
        path, _, anchor = target.partition("#")
        aim = MANUAL if not path else (MANUAL.parent / path)
        headings = re.findall(r"^#+ (.+)$", aim.read_text(), re.MULTILINE)
        assert not anchor or anchor in {h.lower().replace(" ", "-") for h in headings}, target
