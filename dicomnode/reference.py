"""Writes the configuration reference and the example file from the settings classes.

`python -m dicomnode.reference` (or `make docs`); a test holds the files to the classes.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from dicomnode.config import ENVIRONMENT_PREFIX, Settings

REFERENCE = Path("docs/configuration.md")
EXAMPLE = Path("config/dicomnode.example.toml")
_REQUIRED = "(required)"


def reference_markdown() -> str:
    """The reference page: a section per table, a row per key."""
    lines = [
        "# Configuration reference",
        "",
        "One TOML file (`dicomnode serve --config FILE`); `dicomnode check-config --config FILE`",
        "checks it and prints what is in force, secrets masked. All errors are told at once, each",
        "naming its key; an unknown key is an error that names the nearest known one. Every key",
        f"can be set by environment: `{ENVIRONMENT_PREFIX}DIMSE__PORT=11113` sets `dimse.port`, a",
        "list is given as TOML. Generated from the settings classes by `make docs`.",
    ]
    for path, model, is_list in _sections(Settings, ""):
        header = f"[[{path}]]" if is_list else f"[{path}]"
        lines += ["", f"## `{header}`", "", inspect.cleandoc(model.__doc__ or ""), ""]
        lines += ["| key | default | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            if _nested(field)[0] is None:
                meaning = " ".join((field.description or "").split()).replace("|", "\\|")
                lines.append(f"| `{name}` | `{_default(field)}` | {meaning} |")
    return "\n".join(lines) + "\n"


def example_toml() -> str:
    """A file with every key at its default, each commented out."""
    lines = ["# Every setting of a node, at its default. Remove the # before what you change.", ""]
    for path, model, is_list in _sections(Settings, ""):
        lines.append(f"# [[{path}]]" if is_list else f"[{path}]")
        for name, field in model.model_fields.items():
            if _nested(field)[0] is None:
                lines += [f"# {line}" for line in (field.description or "").splitlines()]
                lines.append(f"# {name} = {_default(field)}")
        lines.append("")
    return "\n".join(lines)


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel], bool]]:
    for name, field in model.model_fields.items():
        nested, is_list = _nested(field)
        if nested is not None:
            path = f"{prefix}.{name}" if prefix else name
            yield path, nested, is_list
            yield from _sections(nested, path)


def _nested(field: FieldInfo) -> tuple[type[BaseModel] | None, bool]:
    annotation: Any = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    (first, *_) = getattr(annotation, "__args__", (None,))
    if isinstance(first, type) and issubclass(first, BaseModel):
        return first, True
    return None, False


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return _REQUIRED
    value = field.default
    if value is None:
        return '""'
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return json.dumps(str(value) if isinstance(value, Path) else value)


def main() -> None:
    """Write both files below the current folder."""
    for path, text in ((REFERENCE, reference_markdown()), (EXAMPLE, example_toml())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
