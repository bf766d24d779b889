"""Other people's judges of DICOM files: dciodvfy (dicom3tools) and PixelMed's SR validator.

Both answer with the lines that they call errors; warnings are left out. A validator that
did not come to its end is an error too, so silence always means that the file passed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import require_program

_TIMEOUT_SECONDS = 240
_JARS = ("pixelmed.jar", "slf4j-api.jar", "slf4j-nop.jar", "commons-codec.jar")
_JAVA_FOLDER = Path("/usr/share/java")
_XPATH_LIMITS = [
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-Djdk.xml.xpathTotalOpLimit=0",
]
_LAST_LINE = "IOD validation complete"
_VALIDATOR = "com.pixelmed.validate.DicomSRValidator"
_BATCH = Path(__file__).with_name("PixelmedBatch.java")


def dciodvfy_errors(path: Path) -> list[str]:
    """The error lines of dciodvfy about one file."""
    program = require_program("dciodvfy")
    done = subprocess.run(
        [program, "-new", str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    errors = [line for line in lines if line.startswith("Error")]
    if not lines or (done.returncode not in (0, 1)):
        errors.append(f"dciodvfy ended with {done.returncode} and {len(lines)} lines")
    return errors


def pixelmed_errors(path: Path) -> list[str]:
    """The error lines of PixelMed's DicomSRValidator about one file."""
    return pixelmed_errors_of([path])[path]


def pixelmed_errors_of(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """The error lines about many files, judged in one Java process."""
    reports = pixelmed_reports_of(paths)
    errors = {}
    for path, lines in reports.items():
        errors[path] = [line for line in lines if line.startswith("Error")]
        if _LAST_LINE not in lines:
            errors[path].append(f"PixelMed did not come to its end: {lines[-1:]}")
    return errors


def pixelmed_reports_of(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """All that PixelMed says about many files, warnings included, line by line."""
    java = require_program("java")
    if not (_JAVA_FOLDER / _JARS[0]).is_file():
        require_program(_JARS[0], path=str(_JAVA_FOLDER))
    modules = subprocess.run(
        [java, "--list-modules"], capture_output=True, text=True, timeout=60, check=True
    )
    if "jdk.compiler" not in modules.stdout:  # a runtime alone: one process per file
        return {path: _run(java, [_VALIDATOR, str(path)]) for path in paths}
    reports: dict[Path, list[str]] = {}
    current: list[str] = []
    for line in _run(java, [str(_BATCH), *(str(path) for path in paths)]):
        if line.startswith("FILE "):
            current = reports.setdefault(Path(line.removeprefix("FILE ")), [])
        else:
            current.append(line)
    return {path: reports.get(path, []) for path in paths}


def _run(java: str, arguments: list[str]) -> list[str]:
    class_path = ":".join(str(_JAVA_FOLDER / jar) for jar in _JARS)
    done = subprocess.run(
        [java, *_XPATH_LIMITS, "-Xmx512m", "-cp", class_path, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"PixelMed ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout.splitlines()
