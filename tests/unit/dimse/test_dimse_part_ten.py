"""The file that grows as a data set arrives."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dicomnode.dimse.part_ten import PartTenFile

META = b"m" * 300
PIECE = 256 * 1024


@pytest.mark.parametrize("size", [0, 1, PIECE - 301, PIECE - 300, PIECE - 299, 2 * PIECE, 700_001])
@pytest.mark.parametrize("step", [16 * 1024 - 6, PIECE, 10**7])
def test_the_file_holds_what_came_and_the_digest_is_of_the_data_set(
    tmp_path: Path, size: int, step: int
) -> None:
    data = os.urandom(size)
    file = PartTenFile(tmp_path, META)
    arriving = bytearray(step)
    for start in range(0, size, step):
        piece = data[start : start + step]
        arriving[: len(piece)] = piece  # one buffer, as an association's: it is used again
        file.write(memoryview(arriving)[: len(piece)])
    file.complete()
    assert file.read_at(0, size) == data
    file.close()
    assert file.path.read_bytes() == META + data
    assert file.size == len(META) + size
    assert file.digest() == hashlib.sha256(data).hexdigest()


def test_a_large_data_set_is_on_its_way_to_the_disk_before_it_is_complete(tmp_path: Path) -> None:
    file = PartTenFile(tmp_path, META)
    file.write(memoryview(bytes(8 * PIECE)))
    assert file.path.stat().st_size >= 7 * PIECE
    file.discard()
    assert list(tmp_path.iterdir()) == []
