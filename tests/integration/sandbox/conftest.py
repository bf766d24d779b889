from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicomnode.testing.phantom_dicom import part10_bytes, phantom_dataset


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Writes a phantom as a Part 10 file; keyword arguments are `phantom_dataset`'s."""

    def write(name: str = "film.dcm", **how: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(
            part10_bytes(phantom_dataset(1, True, **{"rows": 512, "columns": 480, **how}))
        )
        return path

    return write
