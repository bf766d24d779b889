"""Fixtures that every test may use.

`shared_data` is the folder with real images and malformed files. It is not part of the
repository: set DICOMNODE_TEST_DATA, or keep it at ../shared/data. Without it the tests
that need it are skipped and listed.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("DICOMNODE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set DICOMNODE_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A command that runs inside a test leaves its log on that test's standard error."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raises
    root.setLevel(level)


def require_program(name: str, *, path: str | None = None) -> str:
    """The full path of another vendor's program.

    Missing, the test is skipped; with CI=true it fails, because there every peer is due.
    A virtual environment may hold programs of the same name (pynetdicom installs its own
    `storescu`), so only the system's folders are searched unless `path` says otherwise.
    """
    found = shutil.which(name, path=path or "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
    if found is None:
        message = f"{name} is not installed; `make peers` installs it on Debian as root"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found
