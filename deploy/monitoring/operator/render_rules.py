#!/usr/bin/env python3
"""Write prometheusrule.yaml, the rules for the Prometheus Operator, from ../rules.

Run it after a change to the rules; a test compares. The text is taken as it is, comments
included, and moved two columns to the right.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
RULES = HERE.parent / "rules"
HEAD = """\
# Written by render_rules.py from ../rules; change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dicomnode
spec:
  groups:
"""


def rendered() -> str:
    """One PrometheusRule with the groups of every file."""
    parts = [HEAD]
    for path in sorted(RULES.glob("*.yml")):
        introduction, _, groups = path.read_text().partition("\ngroups:\n")
        for line in [*introduction.splitlines(), *groups.splitlines()]:
            indent = "    " if line.startswith("#") else "  "
            parts.append(f"{indent}{line}\n" if line else "\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    (HERE / "prometheusrule.yaml").write_text(rendered())
