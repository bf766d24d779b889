"""What the files under deploy/monitoring say: expressions, metric names, label names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

MONITORING = ROOT / "deploy" / "monitoring"
RULES = sorted((MONITORING / "rules").glob("*.yml"))
RETRAIN = MONITORING / "retrain_textfile.py"
NIGHTLY = ROOT / "deploy" / "components" / "backup" / "nightly.py"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "dicomnode.json"

_METRIC = re.compile(r"(?<![\w:$.])(:?[a-zA-Z_][\w:]*)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPING = re.compile(
    r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)|\bgroup_(?:left|right)\s*\(([^)]*)\)"
)


@dataclass(frozen=True, kw_only=True)
class Expression:
    """One PromQL expression and where it stands."""

    place: str
    text: str
    instant: bool = False


def rules() -> list[dict[str, Any]]:
    """Every rule, recording and alerting, of every file."""
    documents = [yaml.safe_load(path.read_text()) for path in RULES]
    return [
        rule for document in documents for group in document["groups"] for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


def panels() -> list[dict[str, Any]]:
    """Every panel but the rows' headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_expressions() -> list[Expression]:
    return [
        Expression(place=f"panel {panel['title']}", text=target["expr"], instant=target["instant"])
        for panel in panels()
        for target in panel["targets"]
    ]


def rule_expressions() -> list[Expression]:
    return [
        Expression(place=f"rule {rule.get('alert', rule.get('record'))}", text=rule["expr"])
        for rule in rules()
    ]


def metric_names(expression: str) -> set[str]:
    """The metrics and recorded series that an expression reads."""
    text = re.sub(r"\"[^\"]*\"", '""', expression)
    text = re.sub(r"\{[^}]*\}", "", text)
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = _GROUPING.sub("", text)
    return {
        found.group(1)
        for found in _METRIC.finditer(text)
        if not text[found.end() :].lstrip().startswith("(") and found.group(1) not in _WORDS
    }


_WORDS = {"or", "and", "unless", "bool", "offset", "on", "by"}


def labels_by_metric(expression: str) -> Iterator[tuple[str, str]]:
    """Metric and label of every matcher in an expression."""
    for name, matchers in _SELECTOR.findall(expression):
        for label in _MATCHER.findall(matchers):
            yield name, label


def grouping_labels(expression: str) -> set[str]:
    """The labels in `by (...)`, `on (...)` and their like."""
    found = [first or second for first, second in _GROUPING.findall(expression)]
    return {label.strip() for part in found for label in part.split(",") if label.strip()}


def scrape_config(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((MONITORING / name).read_text())
    return document


def retrained(path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """retrain_textfile.py around a shell script that plays the training."""
    return subprocess.run(
        [sys.executable, str(RETRAIN), str(path), "--", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def backed_up(path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """nightly.py around a shell script that plays the backup."""
    return subprocess.run(
        [sys.executable, str(NIGHTLY), "--keep=1", f"--tell={path}", "--", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
